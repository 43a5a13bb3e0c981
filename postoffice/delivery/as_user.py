"""Deliveries as a user: letters handed to a child that has become this user.

Used by local delivery for mailboxes that are not the running account's, for files and for commands. The
letter is in a sealed file in memory from here on. Errors: those of `postoffice.delivery.identities`, and
those of `postoffice.delivery.files` and the system, as the child tells them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore

from postoffice.delivery.files import write_all
from postoffice.delivery.final import Prepared
from postoffice.delivery.helper import packets
from postoffice.delivery.identities import Identities

LARGE_AT_ONCE = 10
"""The most letters for mailboxes that are copied to memory at once although they were not held there."""


class AsUser:
    """What local delivery has done as somebody else."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._large = DeferredSemaphore(LARGE_AT_ONCE)

    async def store(
        self,
        account: str,
        message: dict[str, Any],
        letter: Prepared,
        unlocked: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        """Store a letter; `unlocked` does a step again while the mailbox is busy."""
        if letter.rest is not None:
            await self._large.acquire()
        try:
            file = await _file(letter.begin, letter.rest)
            try:
                await unlocked(lambda: self._identities.store(account, message, file))
            finally:
                os.close(file)
        finally:
            if letter.rest is not None:
                self._large.release()

    async def append(
        self, account: str, message: dict[str, Any], letters: Sequence[tuple[str, float, bytes]]
    ) -> list[Exception | None]:
        """Append whole letters to an mbox together; what went wrong with each, None if nothing."""
        sizes = [(sender, now, len(text)) for sender, now, text in letters]
        file = await _file(b"".join(text for _, _, text in letters), None)
        try:
            return await self._identities.append(account, {**message, "letters": sizes}, file)
        finally:
            os.close(file)

    async def check(
        self,
        account: str,
        text: str,
        environment: dict[str, str],
        pieces: AsyncIterator[bytes],
        timeout: float,
        begun: Callable[[Deferred[Any]], None],
    ) -> dict[str, Any]:
        """Have a command look at a letter that is not ours yet; how it ended."""
        message = {
            "do": "command", "text": text, "environment": environment, "sender": None, "now": 0.0,
            "timeout": timeout,
        }  # fmt: skip
        file = await _file(b"", pieces)
        try:
            return await self._identities.run(account, message, file, begun, "check")
        finally:
            os.close(file)

    async def run(
        self, account: str, message: dict[str, Any], letter: Prepared, begun: Callable[[Deferred[Any]], None]
    ) -> dict[str, Any]:
        """Run a command; how it ended."""
        file = await _file(letter.begin, letter.rest)
        try:
            return await self._identities.run(account, message, file, begun)
        finally:
            os.close(file)


async def _file(begin: bytes, rest: AsyncIterator[bytes] | None) -> int:
    """The whole letter in a file. Errors also: those of the spool."""
    file = packets.memory_file()
    try:
        write_all(file, begin)
        if rest is not None:
            async for piece in rest:
                write_all(file, piece)
        packets.seal(file)
    except BaseException:
        os.close(file)
        raise
    return file
