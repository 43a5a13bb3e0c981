"""Checking one password of an account of this machine, in a child made for this check and nothing else.

`shadow`: the child is the service's account and, at first, of the group that may read the shadow database.
It reads two hashes there, the account's own and one that anybody else's password is compared with, gives the
group up for good, and only then looks at the password. `pam`: the child is the account itself, which PAM lets
check its own password; for that, what PAM runs may gain privileges (unix_chkpwd), as nothing else here may.

Neither can be traced or read by processes of the same account, and neither lives longer than `LIMIT`, nor
does what PAM runs for it. The password comes in a sealed file in memory and is overwritten when it was
compared.

A check is answered by {"right": BOOL}, or by {"trouble": TEXT} where that could not be found out.
"""

from __future__ import annotations

import ctypes
import hmac
import os
import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from zlib import crc32

from postoffice.crypt import Secret, ShadowEntry, is_crypt, load_crypt, load_shadow, shadow_hashes
from postoffice.delivery.helper.identity import Rules, leave_group
from postoffice.delivery.helper.pam import load_pam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 25
"""Seconds."""

LONGEST = 1024
"""The most octets of a password."""

# Where nobody of this machine has a password, this one is tried; it is nobody's.
NOBODYS = (
    "$6$AXup6NeWe0NQ$IUmxRdyaY5axDU.HNzLJN1qwfr/RXzeOs0ReDO1Yqh0QpaafHWCKL.j9zPF4Jkdds0GrnpHBm2M0ouB17IDuM1"
)

_DAY = 86400


def answer(purpose: str, name: str, file: int, rules: Rules) -> dict[str, Any]:
    """Check the password in a file."""
    check = by_shadow if purpose == "shadow" else by_pam
    try:
        return {"right": check(name, file, rules)}
    except (OSError, LookupError) as error:
        return {"trouble": str(error)}


def by_shadow(name: str, file: int, rules: Rules) -> bool:
    """Whether it is the one the shadow database holds. Errors: `OSError`, `LookupError`."""
    crypt = load_crypt()
    own, anothers = Shadow(rules.may_be).hashes(name)
    leave_group()
    with secret(file) as password:
        return fits(crypt, own, anothers, password)


def by_pam(name: str, file: int, _: Rules) -> bool:
    """Whether PAM lets the account in with it. Errors: `OSError`, `LookupError`."""
    ask = load_pam()
    with secret(file) as password:
        return not is_empty(password) and ask(name, password)


class Shadow:
    """What is read in the shadow database. `may_be` tells of an entry of passwd(5) whether it may log in."""

    def __init__(
        self,
        may_be: Callable[[pwd.struct_passwd], bool],
        find: Callable[[str], ShadowEntry | None] | None = None,
        stored: Callable[[], Iterator[str]] = shadow_hashes,
        look: Callable[[str], pwd.struct_passwd] = pwd.getpwnam,
    ) -> None:
        self._may_be = may_be
        self._find = find or load_shadow()
        self._stored = stored
        self._look = look

    def hashes(self, name: str) -> tuple[str, str]:
        """The hash of an account that may log in, else empty; and one that nobody can log in by.

        The latter is some account's, the same for the same name, so that the work is of the kinds it is for
        this machine's users. The same is done for whoever is asked for.
        """
        usable = [*filter(is_crypt, self._stored())] or [NOBODYS]
        anothers = usable[crc32(name.encode()) % len(usable)]
        is_user = self._is_user(name)
        entry = self._find(name) or ShadowEntry("")
        valid = is_crypt(entry.hash) and entry.is_valid(int(time.time()) // _DAY)
        return entry.hash if valid and is_user else "", anothers

    def _is_user(self, name: str) -> bool:
        try:
            return self._may_be(self._look(name))
        except KeyError:
            return False


def fits(crypt: Callable[[Secret, str], str], own: str, anothers: str, password: Secret) -> bool:
    """Whether a password fits the own hash. There is as much to do if there is none."""
    right = hmac.compare_digest(crypt(password, own or anothers), own or anothers)
    return bool(own) and right and not is_empty(password)


def is_empty(password: Secret) -> bool:
    """Whether there is none."""
    return password[0] == b"\0"


@contextmanager
def secret(file: int) -> Iterator[Secret]:
    """The password in a file, with a NUL behind it, as long as it is needed. Errors: `OSError`.

    One that is too long, or that has a NUL itself, is an empty one, which is nobody's.
    """
    room = bytearray(LONGEST + 1)
    try:
        length = os.preadv(file, [room], 0)
        if length > LONGEST or 0 in room[:length]:
            room[:] = bytes(len(room))
        yield (ctypes.c_char * len(room)).from_buffer(room)
    finally:
        room[:] = bytes(len(room))
