"""authexpire: do housekeeping on the greylist.

    authexpire [-C FILE] [-Enuvz] [AGE]
    authexpire [-C FILE] -l [-w]
    authexpire [-C FILE] -a RECORD
    authexpire [-C FILE] -d RECORD

Removes records not seen for AGE (14d); -l lists them, -a approves one, -d (or -b) forbids one. What the other
flags, an AGE and a RECORD are, `postoffice greylist --help` says. Exit codes are those of sysexits(3).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from postoffice.commands.common import Failed, flags, run
from postoffice.commands.greylist import expire, set_record, show


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("authexpire", _authexpire, arguments, manual=__doc__)


def _authexpire(arguments: Sequence[str]) -> int:
    file: str | None = None
    overrides: list[str] = []
    given: set[str] = set()
    rest: list[str] = []
    verb = record = ""
    for flag, value in flags(arguments, plain="Enzuvwl", valued="abdCo", optional=""):
        match flag:
            case "":
                rest.append(value)
            case "C":
                file = value
            case "o":
                overrides.append(value)
            case "a" | "b" | "d":
                verb, record = "approve" if flag == "a" else "forbid", value
            case _:
                given.add(flag)
    if verb:
        if rest or given - {"v", "w"}:
            raise Failed("-a and -d go alone", os.EX_USAGE)
        set_record(file, overrides, verb, record)
    elif "l" in given:
        show(file, overrides, wide="w" in given)
    else:
        expire(file, overrides, given, rest)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
