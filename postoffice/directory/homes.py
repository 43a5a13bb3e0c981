"""The home of the account we run as: the only one that can be read as its owner without help.

`IHomes` for a service that was not started by root. Errors are those of `IHomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.directory.accounts import Account
from postoffice.home_file import read_as_owner
from postoffice.interfaces import IHomes


@implementer(IHomes)
class OwnHome:
    """Reads in the home of `account`; all others have no files for us. `in_thread` calls a function there."""

    def __init__(self, account: Account, in_thread: Callable[..., Deferred[Any]]) -> None:
        self._account = account
        self._in_thread = in_thread

    async def read(self, account: str, name: str) -> bytes | None:
        if account != self._account.name:
            return None
        data: bytes | None = await self._in_thread(read_as_owner, self._account.home, self._account.uid, name)
        return data
