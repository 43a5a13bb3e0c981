"""mailq: show the queue.

    mailq [-C FILE] [-q{PATTERN}]

Letters with their last reason and what recipients remain, oldest first; a letter that is being worked on
has stars around its id. PATTERN is `I`, `S` or `R` with part of a queue id, a sender or a recipient, or
any part of these. What is on hold waits for an operator, and a filter's reason for it is shown first.

With the service down root and the service's account see the queue as it is in the spool, and a warning; for
everybody else the exit code is EX_TEMPFAIL.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from postoffice.commands.common import DOWN, ask, complain, flags, pattern_of, printable, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("mailq", _mailq, arguments, manual=__doc__)


def _mailq(arguments: Sequence[str]) -> int:
    file, overrides, pattern = None, [], ""
    for flag, value in flags(arguments, plain="v", valued="Co", optional="q"):
        match flag:
            case "C":
                file = value
            case "o":
                overrides.append(value)
            case "q":
                pattern = value
    return show("mailq", file, overrides, pattern)


def show(name: str, file: str | None, overrides: Sequence[str], pattern: str) -> int:
    """Print the queue, on behalf of the command `name`."""
    *entries, last = ask(file, overrides, {"verb": "list", "pattern": pattern_of(pattern)})
    if "down" in last:
        complain(name, f"warning: {DOWN}")
    sys.stdout.writelines(f"{line}\n" for line in table(entries))
    return 0


def table(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of the listing."""
    letters = sorted(entries, key=lambda entry: entry["received"])
    if not letters:
        yield "Mail queue is empty."
        return
    yield f"   Mail Queue ({len(letters)} request{'s' if len(letters) > 1 else ''})"
    yield " --ID--  --Size-- -----Queued------ ------Sender/Recipient------"
    for letter in letters:
        name = f"*{letter['id']}*" if letter["busy"] else letter["id"]
        queued = time.strftime("%a %b %d %H:%M", time.localtime(letter["received"]))
        sender = letter["sender"] or "<>"
        yield f"{printable(name):>8} {letter['size']:>8} {queued:>17} {printable(sender)}"
        reason = next((one["last"] for one in letter["recipients"] if one["last"]), "")
        if letter["held"]:
            reason = letter["held_for"] or reason
            reason = f"on hold: {reason}" if reason else "on hold"
        if reason:
            yield f"{'':17} {printable(reason):.62}"
        for one in letter["recipients"]:
            yield f"{'':35} {printable(one['address'])}"


if __name__ == "__main__":
    sys.exit(main())
