"""A delivery under way on this machine, as far as it can be cancelled or has to wait for a lock.

Used by `postoffice.delivery.local` and `postoffice.delivery.turns`. Cancelling takes effect between two
steps: a step that a thread or another process does is finished first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from postoffice.delivery.files import MailboxBusy

T = TypeVar("T")

LOCK_WAIT = 10.0
LOCK_PAUSE = 0.25


class Cancellable(Protocol):
    """What may be given up."""

    def cancel(self) -> None:
        """Do without it."""


class Job:
    """One delivery, or several that wait for the same lock."""

    def __init__(self) -> None:
        self.cancelled = False
        self._pause: Cancellable | None = None

    def cancel(self, _: object = None) -> None:
        self.cancelled = True
        if self._pause is not None:
            self._pause.cancel()

    def waits(self, pause: Cancellable | None) -> None:
        """What is waited for now is not waited for any more when this is cancelled."""
        self._pause = pause

    def is_wanted(self) -> bool:
        return not self.cancelled

    def check(self) -> None:
        if self.cancelled:
            raise CancelledError

    async def unlocked(self, clock: IReactorTime, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step, again and again while the mailbox is busy, for up to `LOCK_WAIT` seconds."""
        until = clock.seconds() + LOCK_WAIT
        while True:
            self.check()
            try:
                return await step()
            except MailboxBusy:
                if clock.seconds() >= until:
                    raise
            await self._sleep(clock, LOCK_PAUSE)

    async def _sleep(self, clock: IReactorTime, seconds: float) -> None:
        self.check()
        pause: Deferred[None] = deferLater(clock, seconds)
        self._pause = pause
        try:
            await pause
        finally:
            self._pause = None
