"""The passwords of this machine's accounts: by the shadow database, and by PAM.

Each is a function of a name and a password that gives the account's name if the password is right; made by
the service, called in threads by `postoffice.directory.passwords`. They do in this process what a process
with privileges of its own will do: the shadow database can be read by root and by a group that has to be
given to the service's account. Nobody logs in as account 0.

When things fail: `OSError` says why nothing could be found out.
"""

from __future__ import annotations

import errno
import pwd
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from postoffice.interfaces import IPasswordHashes
from postoffice.services.crypt import ShadowEntry, load_shadow

PAM_SERVICE = "postoffice"
"""What the rules of PAM are looked up by (/etc/pam.d/postoffice, else those of `other`)."""

# Of the codes of <security/_pam_types.h>, those that are about the account and not about the machine:
# PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED.
_PAM_DENIED = frozenset({6, 7, 8, 10, 11, 12, 13})
# Where nobody of this machine has a password, this one is tried; it is nobody's.
_NOBODYS = (
    "$6$AXup6NeWe0NQ$IUmxRdyaY5axDU.HNzLJN1qwfr/RXzeOs0ReDO1Yqh0QpaafHWCKL.j9zPF4Jkdds0GrnpHBm2M0ouB17IDuM1"
)


class ShadowPasswords:
    """The shadow database. Errors when it is made: LookupError without a C library that has one."""

    def __init__(
        self,
        hashes: IPasswordHashes,
        find: Callable[[str], ShadowEntry | None] | None = None,
        accounts: Callable[[], list[pwd.struct_passwd]] = pwd.getpwall,
        uid: Callable[[str], int | None] | None = None,
    ) -> None:
        self._hashes = hashes
        self._find = find or load_shadow()
        self._accounts = accounts
        self._uid = uid or _uid
        self._like = ""

    def check(self, name: str, password: bytes) -> str | None:
        """The account's name if the password is right. Who has none costs as much time as who has one."""
        stored = self._usable(name) if self._uid(name) else ""
        right = self._hashes.verify(stored or self._another(), password)
        return name if stored and right else None

    def _usable(self, name: str) -> str:
        """The hash of an account that may log in, else empty."""
        entry = self._find(name)
        if entry is None or not self._hashes.usable(entry.hash) or 0 <= entry.expires <= _today():
            return ""
        return entry.hash

    def _another(self) -> str:
        """The hash of some account, so that the work is of the kind it is for this machine's users."""
        if not self._like:
            found = (self._usable(account.pw_name) for account in self._accounts())
            self._like = next(filter(None, found), _NOBODYS)
        return self._like


class PamPasswords:
    """PAM, by `python-pam` (the extra `pam`). Errors when it is made: LookupError where that is missing."""

    def __init__(self, make: Callable[[], Any] | None = None) -> None:
        self._make = make or _load_pam()

    def check(self, name: str, password: bytes) -> str | None:
        """The account's name if PAM lets it in."""
        talk = self._make()
        right: bool = talk.authenticate(name, password, service=PAM_SERVICE, resetcreds=False)
        if not right and talk.code not in _PAM_DENIED:
            raise OSError(errno.EIO, f"PAM: {talk.reason}")
        # An account that only PAM knows has no number.
        return name if right and _uid(name) != 0 else None


def _load_pam() -> Callable[[], Any]:
    try:
        from pam import PamAuthenticator
    except ImportError as error:
        raise LookupError("auth=pam needs python-pam: pip install 'postoffice[pam]'") from error
    make: Callable[[], Any] = PamAuthenticator
    return make


def _uid(name: str) -> int | None:
    """The number of an account, None where there is no such account."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _today() -> int:
    return int(datetime.now(UTC).timestamp()) // 86400
