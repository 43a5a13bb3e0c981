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

from postoffice.commands.common import Failed, run, words
from postoffice.commands.greylist import expire, set_record, show


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("authexpire", _authexpire, arguments, manual=__doc__)


def _authexpire(arguments: Sequence[str]) -> int:
    file, overrides, given, rest = words(arguments, plain="Enzuvwl", valued="abd")
    verbs = given.keys() & {"a", "b", "d"}
    if verbs:
        verb = verbs.pop()
        if verbs or rest or given.keys() - {verb, "v", "w"}:
            raise Failed("-a, -b and -d go alone", os.EX_USAGE)
        set_record(file, overrides, "approve" if verb == "a" else "forbid", given[verb])
    elif "l" in given:
        show(file, overrides, wide="w" in given)
    else:
        expire(file, overrides, set(given), rest)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
