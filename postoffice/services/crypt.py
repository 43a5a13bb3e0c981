"""crypt(3) and the shadow password database of the machine's C library.

Used by `postoffice.services.hashes` and `postoffice.services.shadow`, in threads. Python has no module for
either since 3.13, and the one it had kept all other threads waiting; a call through ctypes does not.
What the library knows differs: libxcrypt (Debian, Fedora and all like them) every scheme there is, musl no
yescrypt.

When things fail: `LookupError` when a function is not there, `OSError` when we may not read the shadow
database.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

from attrs import frozen

# The largest `struct crypt_data` of any library is that of the old glibc, 131,232 octets.
_WORK = 256 * 1024
_SHADOW_LINE = 64 * 1024
SHADOW = "/etc/shadow"
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", None)


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


@frozen
class ShadowEntry:
    """One account's `hash`, and the day since 1970 from which on it is not valid, -1 for never."""

    hash: str
    expires: int


def load_crypt() -> Callable[[bytes, str], str]:
    """crypt(3): the hash of a password under a setting, which may be an earlier hash.

    Empty where the library cannot do it. Errors: LookupError when there is no such library.
    """
    function = _function("crypt_r")
    function.restype = ctypes.c_char_p
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

    def crypt(password: bytes, setting: str) -> str:
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
        if os.path.exists(SHADOW) and not os.access(SHADOW, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), SHADOW)
        entry, found = _Spwd(), ctypes.POINTER(_Spwd)()
        line = ctypes.create_string_buffer(_SHADOW_LINE)
        encoded = ctypes.c_char_p(name.encode())
        size = ctypes.c_size_t(_SHADOW_LINE)
        status = function(encoded, ctypes.byref(entry), line, size, ctypes.byref(found))
        if found:
            return ShadowEntry((entry.hash or b"").decode("ascii", "replace"), entry.expires)
        if status not in (0, errno.ENOENT):
            raise OSError(status, os.strerror(status), "the shadow password database")
        return None

    return find


def _function(name: str) -> Any:
    for library in _LIBRARIES:
        try:
            return getattr(ctypes.CDLL(library, use_errno=True), name)
        except (OSError, AttributeError):
            continue
    raise LookupError(f"the C library of this machine has no {name}")
