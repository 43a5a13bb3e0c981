"""vpasswd: the users of a virtual domain and their passwords.

    vpasswd [-C FILE] [--stdin] USER@DOMAIN       set the password of a user
    vpasswd [-C FILE] [--stdin] -a USER@DOMAIN    add a user
    vpasswd [-C FILE] -d USER@DOMAIN              remove a user; the mailbox stays
    vpasswd [-C FILE] -l DOMAIN                   list the users, and who cannot log in

The password is asked for on the terminal, twice; with --stdin it is the first line of standard input. It is
kept as an argon2id hash.

For administrators, and for the owner of the domain in domains.cf while the service runs. Exits with EX_NOUSER
for a user who is not there, with EX_DATAERR for what cannot be a name or a password, else as in sysexits(3).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from postoffice.commands.common import Failed, ask, name_and_domain, printable, run, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_USAGE = "say USER@DOMAIN, -a USER@DOMAIN, -d USER@DOMAIN or -l DOMAIN; --help says more"
# More than any password that is taken.
_LONGEST = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("vpasswd", _vpasswd, arguments, manual=__doc__)


def _vpasswd(arguments: Sequence[str]) -> int:
    file, overrides, verbs, subjects = words([word for word in arguments if word != "--stdin"], plain="adl")
    if len(subjects) != 1 or len(verbs) > 1:
        raise Failed(_USAGE, os.EX_USAGE)
    if "l" in verbs:
        return _list(file, overrides, subjects[0])
    user, domain = name_and_domain(subjects[0])
    request: dict[str, Any] = {"verb": "virtual", "domain": domain, "user": user}
    if "d" in verbs:
        request |= {"do": "remove-user"}
    else:
        password = _given() if "--stdin" in arguments else _typed(subjects[0])
        request |= {"do": "set-password", "password": password, "new": "a" in verbs}
    for _ in ask(file, overrides, request):
        pass
    return os.EX_OK


def _list(file: str | None, overrides: Sequence[str], domain: str) -> int:
    for answer in ask(file, overrides, {"verb": "virtual", "domain": domain, "do": "users"}):
        if "done" not in answer:
            print(printable(answer["user"]) + ("" if answer["login"] else "\t(cannot log in)"))
    return os.EX_OK


def _given() -> str:
    """The first line of standard input."""
    line = sys.stdin.buffer.readline(_LONGEST)
    return _text(line.removesuffix(b"\n").removesuffix(b"\r"))


def _typed(whose: str) -> str:
    """What is typed at the terminal, which does not show it."""
    # Imported here, since programs give the password on standard input.
    from getpass import getpass

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise Failed("there is no terminal to ask for the password; use --stdin", os.EX_USAGE) from None
    try:
        first = getpass(f"New password of {printable(whose)}: ")
        second = getpass("The same once more: ")
    except EOFError:
        raise Failed("no password was given", os.EX_DATAERR) from None
    except UnicodeDecodeError:
        raise Failed("the password is not UTF-8", os.EX_DATAERR) from None
    if first != second:
        raise Failed("the two are not the same", os.EX_DATAERR)
    return first


def _text(password: bytes) -> str:
    try:
        return password.decode()
    except UnicodeDecodeError:
        raise Failed("the password is not UTF-8", os.EX_DATAERR) from None


if __name__ == "__main__":
    sys.exit(main())
