"""The passwords of this machine's accounts, checked by processes of the helper's.

Made by the service and asked by `postoffice.directory.passwords`. A check has a process of its own: for the
shadow database one that is the account we run as, with the group that may read it where the helper is root's;
for PAM one that is the account itself, or else the one we run as. What a check is about, and what sees the
password, tells `postoffice.delivery.helper.passwords`.

Who cannot log in costs as much time as a wrong password: with the shadow database because the same is done;
of what PAM does we know nothing, so that a failure is told only when `STEP` seconds are full.

A user may stop the process that PAM works in, which is his own, so that no account gets more than its share
of the checks under way. A name that is no account has one, too, or whoever asks often would be told of names.

When things fail: `OSError` where nothing could be found out in `PATIENCE` seconds, or too many checks are
under way, of all names or of that one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import defer
from twisted.internet.task import deferLater

from postoffice.delivery.files import write_all
from postoffice.delivery.helper import packets
from postoffice.delivery.identities import Identities, Lost, NotAllowed

MOST = 64
"""The most checks under way, those that wait for others included: more are refused for now."""

SHARE = 16
"""The most questions about one name that PAM is asked at once."""

PATIENCE = 30.0
STEP = 2.0


class HelpedPasswords:
    """`own` is the account we run as; `find` tells of all others, where the helper can become them."""

    def __init__(
        self,
        reactor: Any,
        identities: Identities,
        own: str,
        find: Callable[[str], Awaitable[Any]] | None,
    ) -> None:
        self._reactor = reactor
        self._identities = identities
        self._own = own
        self._find = find
        self._under_way = 0
        self._shares: dict[str, int] = {}

    async def by_shadow(self, name: str, password: bytes) -> str | None:
        """The account's name if that is the password in the shadow database."""
        try:
            right = await self._check(self._own, "shadow", name, password)
        except NotAllowed as error:
            raise OSError(errno.EACCES, str(error)) from None
        return name if right else None

    async def by_pam(self, name: str, password: bytes) -> str | None:
        """The account's name if PAM lets it in."""
        with self._share(name):
            began = self._reactor.seconds()
            account = await self._asked_of_pam(name, password)
            if account is None:
                await deferLater(self._reactor, STEP - (self._reactor.seconds() - began) % STEP)
            return account

    @contextmanager
    def _share(self, name: str) -> Iterator[None]:
        """One question more about a name. Errors: `BlockingIOError`."""
        taken = self._shares.get(name, 0)
        if taken >= SHARE:
            raise BlockingIOError(errno.EAGAIN, f"{taken} passwords of {name} are being checked already")
        self._shares[name] = taken + 1
        try:
            yield
        finally:
            self._shares[name] -= 1
            if not self._shares[name]:
                del self._shares[name]

    async def _asked_of_pam(self, name: str, password: bytes) -> str | None:
        account = self._own
        if self._find is not None:
            # The helper is not asked for whatever name a stranger thinks of.
            found = await self._find(name)
            if found is None:
                return None
            name = account = found.name
        try:
            right = await self._check(account, "pam", name, password)
        except NotAllowed as error:
            if not error.rule:
                raise OSError(errno.EACCES, str(error)) from None
            right = False
        return name if right else None

    async def _check(self, account: str, purpose: str, name: str, password: bytes) -> bool:
        """Have it checked, in time. Errors: `OSError`, `NotAllowed`."""
        if self._under_way >= MOST:
            raise BlockingIOError(errno.EAGAIN, f"{self._under_way} passwords are being checked already")
        # In front of the count, since there may be none.
        file = packets.memory_file()
        self._under_way += 1
        try:
            write_all(file, password)
            packets.seal(file)
            work = defer.Deferred.fromCoroutine(self._identities.check(account, purpose, name, file))
            return await work.addTimeout(PATIENCE, self._reactor)
        except (Lost, defer.TimeoutError) as error:
            raise OSError(errno.EAGAIN, f"a password could not be checked: {error}") from None
        finally:
            os.close(file)
            self._under_way -= 1
