"""The home of the account we run as: the only one that can be read as its owner without help.

`IHomes` for a service that was not started by root. A file is opened once, no link is followed below the
home, and everything is judged by what was opened, so that nobody can put another file in its place meanwhile.

Errors are those of `IHomes`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.directory.accounts import Account
from postoffice.interfaces import IHomes, Unsafe

LIMIT = 1 << 18

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


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


def read_as_owner(home: str, uid: int, name: str) -> bytes | None:
    """A file below a home; see `IHomes`. Blocks."""
    *directories, last = name.split("/")
    opened: list[int] = []
    try:
        opened.append(os.open(home, _DIRECTORY))
        _check(os.fstat(opened[-1]), uid, "the home")
        for directory in directories:
            opened.append(os.open(directory, _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
            _check(os.fstat(opened[-1]), uid, directory)
        opened.append(os.open(last, _FILE, dir_fd=opened[-1]))
        return _content(opened[-1], uid)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsafe("it is a symbolic link") from None
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _content(descriptor: int, uid: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Unsafe("it is not a regular file")
    _check(status, uid, "it")
    if status.st_size > LIMIT:
        raise Unsafe(f"it is longer than {LIMIT} octets")
    data = b""
    while len(data) <= LIMIT and (piece := os.read(descriptor, LIMIT + 1)):
        data += piece
    return data


def _check(status: os.stat_result, uid: int, what: str) -> None:
    if status.st_uid not in (0, uid):
        raise Unsafe(f"{what} belongs to somebody else")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unsafe(f"others may write to {what}")
