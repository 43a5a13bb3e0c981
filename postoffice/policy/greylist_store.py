"""The greylist's records in a database, read at once and written behind.

Implements `IGreylistStore` over `postoffice.policy.greylist_table`. Look-ups run in the reactor: a few
microseconds in what waits to be written, else a few pages through an index, which the kernel has in memory.
Changes are written by a thread once a second, all together. What waits is bounded; when the disk does not
keep up, more is refused.

When things fail: a write that failed is tried again with the next; a look-up that failed has the thread
look at the database, and until it is open again look-ups fail. Each is an error in the log.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from postoffice.interfaces import IGreylistStore, IJournal, StoreFailed
from postoffice.mail.greylist import Bounds, Record
from postoffice.policy.greylist_table import Table, look_up

T = TypeVar("T")

PAUSE = 1.0
"""Seconds that changes are gathered for."""

MOST_WAITING = 100_000
"""Changes that may wait for the disk."""

AGAIN = 60.0
"""Seconds after which what could not be opened is tried again."""

_BUSY = 20


class Clockwork(Protocol):
    """What the store needs of a reactor."""

    def seconds(self) -> float:
        """The time in epoch seconds."""

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any) -> IDelayedCall:
        """Call a function after a time in seconds."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in the reactor."""


@implementer(IGreylistStore)
class GreylistStore:
    """The store in the database at `path`."""

    def __init__(self, path: str, bounds: Bounds, journal: IJournal, reactor: Clockwork) -> None:
        self._table = Table(path, bounds)
        self._journal = journal
        self._reactor = reactor
        self._queue: SimpleQueue[tuple[Callable[[], Any], Callable[[Any, Exception | None], None]] | None]
        self._queue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._reader: apsw.Connection | None = None
        self._opened = 0
        # What waits, and what the thread is writing now; newer changes are in the first.
        self._changes: dict[str, tuple[Record | None, str]] = {}
        self._written: dict[str, tuple[Record | None, str]] = {}
        self._writing = False
        self._timer: IDelayedCall | None = None
        self._mending: IDelayedCall | None = None
        self._next: list[Deferred[None]] = []

    # IGreylistStore.

    def adapt(self, bounds: Bounds) -> None:
        self._table.bounds = bounds

    def open(self) -> Deferred[None]:
        self._thread = threading.Thread(target=self._run, name="greylist", daemon=True)
        self._thread.start()
        return self._call(self._table.open).addCallbacks(self._reopen, self._not_open)

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._thread is None:
            return
        try:
            await self.flush()
        except StoreFailed as error:
            self._journal.error(f"the last changes of the greylist are lost: {error}")
        thread, self._thread = self._thread, None
        for timer in (self._timer, self._mending):
            if timer is not None and timer.active():
                timer.cancel()
        self._let_go()
        await self._call(self._table.close)
        self._queue.put(None)
        thread.join()

    def get(self, key: str) -> Record | None:
        change = self._changes.get(key) or self._written.get(key)
        if change is not None:
            return change[0]
        if self._reader is None:
            raise StoreFailed(f"{self._table.path}: it is not open")
        try:
            return look_up(self._reader, key)
        except apsw.BusyError as error:
            raise StoreFailed(f"{self._table.path}: {error}") from error
        except apsw.Error as error:
            self._let_go()
            self._mend()
            raise StoreFailed(f"{self._table.path}: {error}") from error

    def put(self, key: str, record: Record, network: str) -> None:
        self._change(key, record, network)

    def remove(self, key: str) -> None:
        self._change(key, None, "")

    def flush(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._next.append(done)
        if not self._writing:
            self._write()
        return done

    async def records(self) -> AsyncIterator[list[tuple[str, Record]]]:
        await self.flush()
        after = 0
        while True:
            try:
                rows = await self._call(partial(self._table.page, after))
            except (apsw.Error, OSError) as error:
                raise StoreFailed(f"{self._table.path}: {error}") from error
            if not rows:
                return
            after = rows[-1][0]
            yield [(key, record) for _, key, record in rows]

    # Writing.

    def _change(self, key: str, record: Record | None, network: str) -> None:
        changes = self._changes
        if len(changes) >= MOST_WAITING and key not in changes:
            raise StoreFailed(f"{self._table.path}: {len(changes)} changes wait to be written")
        changes[key] = record, network
        if self._timer is None and not self._writing:
            self._timer = self._reactor.callLater(PAUSE, self._write)

    def _write(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._writing = True
        self._written, self._changes = self._changes, {}
        waiting, self._next = self._next, []
        changes, now = self._written, int(self._reactor.seconds())
        self._call(partial(self._table.write, changes, now)).addBoth(self._wrote, waiting)

    def _wrote(self, result: Any, waiting: list[Deferred[None]]) -> None:
        self._writing = False
        error = getattr(result, "value", None)
        if error is not None:
            # What changed since then is newer.
            self._changes = {**self._written, **self._changes}
            self._journal.error(f"{self._table.path}: changes of the greylist are not written yet: {error}")
        self._written = {}
        self._reopen()
        if self._next:
            self._write()
        elif self._changes:
            self._timer = self._reactor.callLater(PAUSE if error is None else AGAIN, self._write)
        for done in waiting:
            if error is None:
                done.callback(None)
            else:
                done.errback(StoreFailed(f"{self._table.path}: {error}"))

    # The connection that reads, and what is wrong with the database.

    def _reopen(self, _: object = None) -> None:
        """Read from the database the thread has open now."""
        trouble, self._table.trouble = self._table.trouble, ""
        if trouble:
            self._journal.error(trouble)
        if self._opened == self._table.opened and self._reader is not None:
            return
        self._let_go()
        self._opened = self._table.opened
        try:
            self._reader = apsw.Connection(self._table.path, flags=apsw.SQLITE_OPEN_READONLY)
            self._reader.set_busy_timeout(_BUSY)
            self._reader.pragma("cache_size", -1024)
        except apsw.Error as error:
            self._let_go()
            self._not_open(error)

    def _not_open(self, error: object) -> None:
        what = getattr(error, "value", error)
        self._journal.error(f"{self._table.path}: the greylist cannot be opened: {what}")
        if self._thread is not None and (self._mending is None or not self._mending.active()):
            self._mending = self._reactor.callLater(AGAIN, self._mend)

    def _mend(self) -> None:
        self._call(self._table.mend).addCallbacks(self._reopen, self._not_open)

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close(True)

    # The thread.

    def _call(self, function: Callable[[], T]) -> Deferred[T]:
        """Call a function in the thread; the Deferred has its result or its error."""
        result: Deferred[T] = Deferred()

        def done(value: Any, error: Exception | None) -> None:
            if error is None:
                result.callback(value)
            else:
                result.errback(error)

        self._queue.put((function, done))
        return result

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            function, done = work
            value = error = None
            try:
                value = function()
            except Exception as caught:
                error = caught
            self._reactor.callFromThread(done, value, error)
            del work, function, done, value, error
