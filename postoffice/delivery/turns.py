"""Letters for one mbox wait for each other here, not in threads.

Used by `postoffice.delivery.local`. An mbox is written by one at a time. The letters in memory that wait for
their turn meanwhile are written together when it comes, so that they share the locks and the sync; a letter
that finds nobody there waits for nobody. One that comes in pieces has a turn of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from postoffice.delivery.files import MailboxBusy
from postoffice.delivery.job import Job

MOST = 32
"""The most letters that are written together, ..."""
LARGEST = 4 * 1024 * 1024
"""... and their octets, unless it is one letter."""

Whole = tuple[str, float, bytes]
"""A letter in memory: the sender as the `From ` line tells him, the time, and the text."""


@frozen
class Place:
    """An mbox, as it is written: by `account`, None for us; see `postoffice.delivery.mbox`."""

    path: str
    tree: str
    quote: bool
    account: str | None


Write = Callable[[Place, Sequence[Whole]], Awaitable["list[Exception | None]"]]


@frozen(eq=False)
class _Waiting:
    job: Job
    letter: Whole
    done: Deferred[None]


@define(eq=False)
class _Batch:
    """Letters that go together."""

    job: Job = field(factory=Job)
    members: list[_Waiting] = field(factory=list)
    octets: int = 0

    def add(self, job: Job, letter: Whole) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.members.append(_Waiting(job, letter, done))
        self.octets += len(letter[2])
        job.waits(self)
        return done

    def has_room(self, letter: Whole) -> bool:
        return len(self.members) < MOST and self.octets + len(letter[2]) <= LARGEST

    def cancel(self) -> None:
        """One of the letters is not wanted any more; the lock is waited for as long as another one is."""
        if not any(member.job.is_wanted() for member in self.members):
            self.job.cancel()


class Turns:
    """`write` writes letters together, and tells what went wrong with each, None if nothing."""

    def __init__(self, write: Write, clock: IReactorTime) -> None:
        self._write = write
        self._clock = clock
        self._turns: dict[str, DeferredLock] = {}
        # The last batch that waits for its turn, which takes further letters.
        self._open: dict[Place, _Batch] = {}

    async def put(self, place: Place, job: Job, letter: Whole) -> None:
        """Append a whole letter. Errors: `CancelledError`; what `write` raises or tells of it."""
        batch = self._open.get(place)
        if batch is not None and batch.has_room(letter):
            await batch.add(job, letter)
            return
        batch = self._open[place] = _Batch()
        done = batch.add(job, letter)
        await self.take(place.path, partial(self._settle, place, batch))
        await done

    async def take(self, path: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do something when nobody else of us writes there."""
        turn = self._turns.setdefault(path, DeferredLock())
        await turn.acquire()
        try:
            await step()
        finally:
            turn.release()
            # What waited may have run to its end within `release`.
            if not turn.locked and self._turns.get(path) is turn:
                del self._turns[path]

    async def _settle(self, place: Place, batch: _Batch) -> None:
        """Write a batch and tell each of its letters what became of it; never fails itself."""
        if self._open.get(place) is batch:
            del self._open[place]
        errors: Sequence[Exception | None]
        try:
            errors = await batch.job.unlocked(self._clock, partial(self._attempt, place, batch))
        except Exception as error:
            errors = [error] * len(batch.members)
        for member, wrong in zip(batch.members, errors, strict=True):
            member.job.waits(None)
            if wrong is None:
                member.done.callback(None)
            else:
                member.done.errback(wrong)

    async def _attempt(self, place: Place, batch: _Batch) -> list[Exception | None]:
        """Write what is still wanted. Errors: `MailboxBusy`."""
        errors: list[Exception | None] = [
            None if member.job.is_wanted() else CancelledError() for member in batch.members
        ]
        wanted = [at for at, error in enumerate(errors) if error is None]
        if wanted:
            told = await self._write(place, [batch.members[at].letter for at in wanted])
            if isinstance(told[0], MailboxBusy):
                raise told[0]
            for at, error in zip(wanted, told, strict=True):
                errors[at] = error
        return errors
