"""newaliases: check alias files, and have them read again.

    newaliases [-C FILE] [DOMAIN]...

Reads the alias file of the system and the lists it includes, or the alias files of the virtual domains
named, the way delivery does, and says on standard error what is in each; a running service uses them from
then on. A mistake is told with file and line, and the exit code is EX_DATAERR; the version before it stays
in use. A list that cannot be read is a warning: mail for it waits. There is no database to rebuild.

For administrators, and for the owner of a virtual domain. `postoffice -bi` is the same. Exit codes are those
of sysexits(3).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from postoffice.commands.common import ask, complain, printable, run, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("newaliases", _newaliases, arguments, manual=__doc__)


def _newaliases(arguments: Sequence[str]) -> int:
    file, overrides, _, domains = words(arguments, plain="v")
    return rebuild("newaliases", file, overrides, domains)


def rebuild(name: str, file: str | None, overrides: Sequence[str], domains: Sequence[str]) -> int:
    """Check the files, on behalf of the command `name`; the exit code is that of the first mistake."""
    code = os.EX_OK
    for answer in ask(file, overrides, {"verb": "newaliases", "domains": list(domains) or [None]}):
        if "problem" in answer:
            complain(name, answer["problem"])
            code = code or answer["exit"]
        elif "done" not in answer:
            for line, alias in answer["twice"]:
                what = f"the alias {alias} is given twice; the first one counts"
                complain(name, f"warning: {answer['file']}:{line}: {what}")
            for warning in answer["warnings"]:
                complain(name, f"warning: {warning}")
            for mistake in answer["mistakes"]:
                complain(name, mistake)
                code = code or os.EX_DATAERR
            print(printable(_summary(answer)), file=sys.stderr)
    return code


def _summary(answer: dict[str, Any]) -> str:
    number = answer["aliases"]
    what = f"{answer['file']}: {number} alias{'' if number == 1 else 'es'}"
    if number > 1:
        what += f", longest is {_bytes(answer['longest'])}"
    return f"{what}, {_bytes(answer['total'])} total."


def _bytes(number: int) -> str:
    return f"{number} byte{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
