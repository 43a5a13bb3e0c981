"""postoffice hold, release, delete, show: what is done with letters in the queue, by their queue ids.

    postoffice [-C FILE] hold ID...       set letters aside
    postoffice [-C FILE] release ID...    let them go on
    postoffice [-C FILE] delete ID...     remove them; nobody is told
    postoffice [-C FILE] show ID          print one, header and body

For administrators; with the service down for root and the service's account. The log says who did what. Exits
with EX_DATAERR for a letter that is not there; what was named before it is done then.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence

from postoffice.commands.common import Failed, ask, ask_content


def letters(file: str | None, overrides: Sequence[str], words: Sequence[str]) -> int:
    """Do it; returns the exit code. `words` are the verb and its arguments."""
    verb, *ids = words
    if ids == ["--help"]:
        # What stands at the top of this file is the manual.
        print((__doc__ or "").strip())
        return os.EX_OK
    if not ids:
        raise Failed(f"{verb}: name a letter by its queue id", os.EX_USAGE)
    if verb == "show":
        if len(ids) > 1:
            raise Failed("show: name one letter", os.EX_USAGE)
        _show(file, overrides, ids[0])
        return os.EX_OK
    for _ in ask(file, overrides, {"verb": verb, "ids": ids}):
        pass
    return os.EX_OK


def _show(file: str | None, overrides: Sequence[str], letter_id: str) -> None:
    tame = sys.stdout.isatty()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in ask_content(file, overrides, {"verb": "show", "id": letter_id}):
        data = piece.replace(b"\r", b"")
        sys.stdout.buffer.write(_tamed(decoder.decode(data)) if tame else data)


def _tamed(text: str) -> bytes:
    """Text without anything that a terminal would obey."""
    plain = "".join(sign if sign.isprintable() or sign in "\t\n" else "?" for sign in text)
    return plain.encode(sys.stdout.encoding, "replace")
