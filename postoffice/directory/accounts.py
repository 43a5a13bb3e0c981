"""Who has a mailbox here: accounts of the system, and the users of virtual domains.

Asked by `postoffice.directory.lookup`. What is returned is always the name as the system or the
domain's `passwd` file spells it, never as a stranger wrote it, because it becomes part of a path.

When things fail: see `postoffice.watched`; a passwd file that never was readable gives
`Unreadable`. Password hashes are for `postoffice.directory.passwords`; nothing shows or logs them.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from postoffice.directory.domains import OurDomain
from postoffice.watched import Mistake, Unreadable, Watch, Watched

# Seconds for which what the system says of an account counts, and for which it counts that there is none.
KEPT = 60.0
KEPT_UNKNOWN = 10.0
_MOST_KEPT = 10_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=&'-]{0,63}\Z")


@frozen
class VirtualUser:
    """A user of a virtual domain: the name as the file spells it, and what stands behind its colon."""

    name: str
    stored: str = field(repr=False)


@frozen
class Account:
    """An account of the system."""

    name: str
    uid: int
    home: str


def is_fit(name: str) -> bool:
    """Whether a user's name may become part of a path.

    A name that ends in `.lock` would be the lock of another user's mbox.
    """
    return bool(_NAME.match(name)) and ".." not in name and not name.lower().endswith(".lock")


class Accounts(Protocol):
    """The accounts of the system."""

    async def find(self, name: str) -> Account | None:
        """The account of that name, compared without case. Errors: `Unreadable`."""


class OneAccount:
    """The one account there is for a service that cannot act as others. Account 0 never receives mail."""

    def __init__(self, account: Account | None) -> None:
        usable = account is not None and account.uid != 0 and is_fit(account.name)
        self._account = account if usable else None
        self._key = account.name.lower() if account else ""

    async def find(self, name: str) -> Account | None:
        return self._account if name.lower() == self._key else None


class AllAccounts:
    """All accounts of the system, for a service that has a helper to act as them.

    The C library is asked in a thread, for an account may be in a directory on another machine; what it says
    is remembered. The exact name counts before that in lower case. `look` finds an entry of passwd(5).
    """

    def __init__(
        self,
        in_thread: Callable[..., Deferred[Any]],
        seconds: Callable[[], float],
        look: Callable[[str], pwd.struct_passwd] | None = None,
    ) -> None:
        self._in_thread = in_thread
        self._seconds = seconds
        self._look = look or entry_of
        self._known: dict[str, tuple[float, Account | None]] = {}

    async def find(self, name: str) -> Account | None:
        if not is_fit(name):
            return None
        now = self._seconds()
        known = self._known.get(name)
        if known is not None and known[0] - KEPT <= now < known[0]:
            return known[1]
        try:
            account: Account | None = await self._in_thread(self._ask, name)
        except OSError as error:
            raise Unreadable(f"the account {name}: {error.strerror}") from None
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[name] = (now + (KEPT if account else KEPT_UNKNOWN), account)
        return account

    def _ask(self, name: str) -> Account | None:
        for spelling in dict.fromkeys((name, name.lower())):
            try:
                entry = self._look(spelling)
            except KeyError:
                continue
            if is_fit(entry.pw_name):
                return Account(entry.pw_name, entry.pw_uid, entry.pw_dir)
        return None


def entry_of(name: str) -> pwd.struct_passwd:
    """The entry of an account. Errors: `KeyError` if there is none, `OSError` if that cannot be told."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        # The same is said where the C library could not read its file, with no descriptor left for example.
        os.close(os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC))
        raise


class VirtualUsers:
    """The users of virtual domains, from `<directory>/<domain>/passwd`, lines of `user:hash`."""

    def __init__(self, directory: str, watch: Watch) -> None:
        self._directory = directory
        self._watch = watch
        self._files: dict[str, Watched[dict[str, VirtualUser]]] = {}

    async def find(self, name: str, domain: OurDomain) -> str | None:
        """The user's name as the file spells it, compared without case. Errors: `Unreadable`."""
        user = (await self.all(domain)).get(name.lower())
        return user.name if user else None

    async def all(self, domain: OurDomain) -> dict[str, VirtualUser]:
        """Every user by the lower-case form of the name. Errors: `Unreadable`."""
        users = self._files.get(domain.name)
        if users is None:
            path = f"{self._directory}/{domain.name}/passwd"
            users = Watched(path, parse_passwd, {}, self._watch)
            self._files[domain.name] = users
        return await users.current()


def parse_passwd(data: bytes) -> dict[str, VirtualUser]:
    """Users by the lower-case form of the name."""
    users: dict[str, VirtualUser] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        name, colon, secret = line.partition(b":")
        if not colon or not secret.strip():
            raise Mistake(number, "not of the form user:hash")
        user = name.decode("ascii", "replace")
        if not is_fit(user):
            raise Mistake(number, f"{user[:64]!r} cannot be the name of a user")
        if user.lower() in users:
            raise Mistake(number, f"the user {user} is given twice")
        users[user.lower()] = VirtualUser(user, secret.strip().decode("ascii", "replace"))
    return users
