"""Password hashes of the forms that htpasswd files hold.

DES-crypt, MD5-crypt, bcrypt, SHA-256- and SHA-512-crypt and yescrypt are the C library's work, argon2 and
apr1 that of `argon2-cffi` and `libpass`. A hash takes from a millisecond to a second, so `verify` is for
threads; all of them but apr1, which takes one millisecond, leave the interpreter to others meanwhile.

Never raises for what a file may hold: a hash of no known form, or one that would take far too long or too
much memory, is not usable and fits no password.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from passlib.handlers.md5_crypt import apr_md5_crypt
from zope.interface import implementer

from postoffice.crypt import is_crypt, load_crypt
from postoffice.interfaces import IPasswordHashes

# About two seconds on a machine of today.
ARGON2_KIB = 1024 * 1024
ARGON2_PASSES = 20

_APR1 = re.compile(r"\$apr1\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{22}\Z").match
_ARGON2 = re.compile(r"\$argon2(?:id|i|d)\$v=19\$m=(\d{1,9}),t=(\d{1,4}),p=\d{1,3}\$[0-9A-Za-z+/$]+\Z").match


@implementer(IPasswordHashes)
class PasswordHashes:
    """The hashes this machine knows. Errors when it is made: LookupError without a C library that does."""

    def __init__(self) -> None:
        self._crypt = load_crypt()
        self._argon2 = PasswordHasher()

    def usable(self, stored: str) -> bool:
        return self._verifier(stored) is not None

    def verify(self, stored: str, password: bytes) -> bool:
        verifier = self._verifier(stored)
        return verifier is not None and verifier(stored, password)

    def make(self, password: bytes) -> str:
        return self._argon2.hash(password)

    def _verifier(self, stored: str) -> Callable[[str, bytes], bool] | None:
        if is_crypt(stored):
            return self._by_crypt
        if (found := _ARGON2(stored)) is not None:
            bearable = int(found[1]) <= ARGON2_KIB and int(found[2]) <= ARGON2_PASSES
            return self._by_argon2 if bearable else None
        return _by_apr1 if _APR1(stored) else None

    def _by_crypt(self, stored: str, password: bytes) -> bool:
        return hmac.compare_digest(self._crypt(password, stored), stored)

    def _by_argon2(self, stored: str, password: bytes) -> bool:
        try:
            return self._argon2.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False


def _by_apr1(stored: str, password: bytes) -> bool:
    return bool(apr_md5_crypt.verify(password, stored))
