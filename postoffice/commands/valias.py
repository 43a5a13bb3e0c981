"""valias: the aliases of a virtual domain.

    valias [-C FILE] DOMAIN                     list them
    valias [-C FILE] NAME@DOMAIN                show one
    valias [-C FILE] NAME@DOMAIN TARGET...      have it stand for these addresses, whatever it stood for
    valias [-C FILE] -d NAME@DOMAIN             remove it

The name `*` is the catch-all of the domain; a target `*@OTHER.DOMAIN` keeps the name that was written to.
Other lines of the alias file, comments, and the order of all stay as they are.

For administrators, and for the owner of the domain in domains.cf while the service runs. Exits with EX_NOUSER
for an alias that is not there, with EX_DATAERR for what cannot be one, else as in sysexits(3).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from postoffice.commands.common import Failed, ask, name_and_domain, printable, run, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("valias", _valias, arguments, manual=__doc__)


def _valias(arguments: Sequence[str]) -> int:
    file, overrides, given, subjects = words(arguments, plain="d")
    remove = "d" in given
    if not subjects or (remove and len(subjects) > 1):
        raise Failed("say DOMAIN, NAME@DOMAIN [TARGET...] or -d NAME@DOMAIN; --help says more", os.EX_USAGE)
    subject, *targets = subjects
    if not remove and not targets:
        return _show(file, overrides, subject)
    name, domain = name_and_domain(subject)
    how: dict[str, Any] = {"do": "remove-alias"} if remove else {"do": "set-alias", "targets": targets}
    request = {"verb": "virtual", "domain": domain, "alias": name} | how
    for _ in ask(file, overrides, request):
        pass
    return os.EX_OK


def _show(file: str | None, overrides: Sequence[str], subject: str) -> int:
    name, at, domain = subject.rpartition("@")
    found = False
    for answer in ask(file, overrides, {"verb": "virtual", "domain": domain, "do": "aliases"}):
        if "done" not in answer and (not at or answer["alias"].lower() == name.lower()):
            found = True
            print(printable(f"{answer['alias']}: {answer['targets']}"))
    if at and not found:
        raise Failed(f"there is no alias {name}", os.EX_NOUSER)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
