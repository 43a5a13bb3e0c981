"""crypt(3) and the shadow password database of the machine's C library.

Used by `postoffice.services.hashes`, in threads, and by the processes that check passwords of this machine's
accounts (`postoffice.delivery.helper.passwords`). Standard library only, which has no module for either since
Python 3.13; the one it had kept all other threads waiting, and a call through ctypes does not. What the C
library knows differs: libxcrypt (Debian, Fedora and all like them) every scheme there is, musl no yescrypt.

When things fail: `LookupError` when a function is not there, `OSError` when we may not read the shadow
database.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHADOW = "/etc/shadow"

Secret = ctypes.Array[ctypes.c_char]
"""A password with a NUL behind it, in memory that is overwritten when it was used."""

# About two seconds each on a machine of today.
BCRYPT_COST = 15
SHA_ROUNDS = 5_000_000

# The largest `struct crypt_data` of any library is that of the old glibc, 131,232 octets.
_WORK = 256 * 1024
_SHADOW_LINE = 64 * 1024
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", None)

_B64 = r"[./0-9A-Za-z]"
_DES = re.compile(rf"{_B64}{{13}}\Z").match
_MD5 = re.compile(rf"\$1\$[!-#%-9;-~]{{1,8}}\${_B64}{{22}}\Z").match
_BCRYPT = re.compile(rf"\$2[aby]\$(\d\d)\${_B64}{{53}}\Z").match
_SHA = re.compile(rf"\$[56]\$(?:rounds=(\d{{1,9}})\$)?[!-#%-9;-~]{{0,16}}\${_B64}{{43,86}}\Z").match
_YESCRYPT = re.compile(rf"\$y\${_B64}{{1,8}}\${_B64}{{0,86}}\${_B64}{{43}}\Z").match


class _Spwd(ctypes.Structure):
    """`struct spwd` of getspnam(3)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("hash", ctypes.c_char_p),
        ("changed", ctypes.c_long),
        ("least", ctypes.c_long),
        ("most", ctypes.c_long),
        ("warning", ctypes.c_long),
        ("inactive", ctypes.c_long),
        ("expires", ctypes.c_long),
        ("flag", ctypes.c_ulong),
    )


class ShadowEntry(NamedTuple):
    """One account's `hash`, and until when it counts, in days; negative numbers are none.

    The password was `changed` on that day since 1970, 0 for one that has to be changed now, and counts for at
    `most` so many days. The account is not valid from the day `expires` on.
    """

    hash: str
    changed: int = -1
    most: int = -1
    expires: int = -1

    def is_valid(self, today: int) -> bool:
        """Whether neither the account nor its password has expired."""
        if 0 <= self.expires <= today or self.changed == 0:
            return False
        return self.most < 0 or self.changed < 0 or today - self.changed <= self.most


def is_crypt(stored: str) -> bool:
    """Whether it is a hash that crypt(3) makes, and makes in bearable time."""
    if _DES(stored) or _MD5(stored) or _YESCRYPT(stored):
        return True
    if (found := _BCRYPT(stored)) is not None:
        return int(found[1]) <= BCRYPT_COST
    found = _SHA(stored)
    return found is not None and int(found[1] or 0) <= SHA_ROUNDS


def load_crypt() -> Callable[[bytes | Secret, str], str]:
    """crypt(3): the hash of a password under a setting, which may be an earlier hash.

    Empty where the library cannot do it. Errors: LookupError when there is no such library.
    """
    function = _function("crypt_r")
    function.restype = ctypes.c_char_p
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

    def crypt(password: bytes | Secret, setting: str) -> str:
        work = ctypes.create_string_buffer(_WORK)
        answer: bytes | None = function(password, setting.encode("ascii"), work)
        # Some libraries say by a text that begins so that they cannot.
        return "" if answer is None or answer.startswith(b"*") else answer.decode("ascii")

    return crypt


def load_shadow() -> Callable[[str], ShadowEntry | None]:
    """getspnam(3): the entry of an account, None where it has none; that may raise OSError.

    Errors: LookupError when there is no such function.
    """
    function = _function("getspnam_r")
    function.restype = ctypes.c_int

    def find(name: str) -> ShadowEntry | None:
        # Some sources of accounts know only that there is no password, and hide that others cannot be read.
        if os.path.exists(SHADOW):
            os.close(os.open(SHADOW, os.O_RDONLY | os.O_CLOEXEC))
        entry, found = _Spwd(), ctypes.POINTER(_Spwd)()
        line = ctypes.create_string_buffer(_SHADOW_LINE)
        encoded = ctypes.c_char_p(name.encode())
        size = ctypes.c_size_t(_SHADOW_LINE)
        status = function(encoded, ctypes.byref(entry), line, size, ctypes.byref(found))
        if found:
            stored = (entry.hash or b"").decode("ascii", "replace")
            return ShadowEntry(stored, entry.changed, entry.most, entry.expires)
        if status not in (0, errno.ENOENT):
            raise OSError(status, os.strerror(status), "the shadow password database")
        return None

    return find


def shadow_hashes() -> Iterator[str]:
    """What stands for a hash in each line of the shadow database's file. Errors: `OSError`."""
    with open(SHADOW, encoding="ascii", errors="replace") as file:
        for line in file:
            yield line.rstrip("\n").split(":")[1] if ":" in line else ""


def _function(name: str) -> Any:
    for library in _LIBRARIES:
        try:
            return getattr(ctypes.CDLL(library, use_errno=True), name)
        except (OSError, AttributeError):
            continue
    raise LookupError(f"the C library of this machine has no {name}")
