"""Password hashes of the forms that htpasswd files and the shadow database hold.

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

from postoffice.interfaces import IPasswordHashes
from postoffice.services.crypt import load_crypt

# About two seconds each on a machine of today.
BCRYPT_COST = 15
SHA_ROUNDS = 5_000_000
ARGON2_KIB = 1024 * 1024
ARGON2_PASSES = 20

_B64 = r"[./0-9A-Za-z]"
_DES = re.compile(rf"{_B64}{{13}}\Z").match
_MD5 = re.compile(rf"\$1\$[!-#%-9;-~]{{1,8}}\${_B64}{{22}}\Z").match
_BCRYPT = re.compile(rf"\$2[aby]\$(\d\d)\${_B64}{{53}}\Z").match
_SHA = re.compile(rf"\$[56]\$(?:rounds=(\d{{1,9}})\$)?[!-#%-9;-~]{{0,16}}\${_B64}{{43,86}}\Z").match
_YESCRYPT = re.compile(rf"\$y\${_B64}{{1,8}}\${_B64}{{0,86}}\${_B64}{{43}}\Z").match
_APR1 = re.compile(rf"\$apr1\${_B64}{{1,8}}\${_B64}{{22}}\Z").match
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
        if _DES(stored) or _MD5(stored) or _YESCRYPT(stored):
            return self._by_crypt
        if (found := _BCRYPT(stored)) is not None:
            return self._by_crypt if int(found[1]) <= BCRYPT_COST else None
        if (found := _SHA(stored)) is not None:
            return self._by_crypt if int(found[1] or 0) <= SHA_ROUNDS else None
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
