"""A few threads that wait for the disk so that the reactor does not.

Used for content files (written, synced, read, removed) and for listings. Lighter than a
`ThreadPool` where a letter of some megabytes comes in many pieces: a queue in C, and one call into
the reactor for each piece of work. The threads are started by the first piece of work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from postoffice.interfaces import SpoolFailed

T = TypeVar("T")

THREADS = 8
"""Syncs of several files at once share a journal commit: eight bring a third more than four."""


class Clockwork(Protocol):
    """What the spool needs of a reactor."""

    def seconds(self) -> float:
        """The time in epoch seconds; also called from threads."""

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function after so many seconds."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in the reactor."""


class Workers:
    """Threads that take work in order. What is handed in after `stop` fails."""

    def __init__(self, reactor: Clockwork) -> None:
        self._reactor = reactor
        self._queue: SimpleQueue[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]] | None]
        self._queue = SimpleQueue()
        self._ended: deque[tuple[Callable[[Any, BaseException | None], None], Any, BaseException | None]]
        self._ended = deque()
        self._called = False
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def submit(
        self, function: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Call `function` in a thread, then `done` in the reactor with its result and its error."""
        if self._stopped:
            done(None, SpoolFailed("the spool is closed"))
            return
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name=f"spool-worker-{number}", daemon=True)
                for number in range(THREADS)
            ]
            for thread in self._threads:
                thread.start()
        self._queue.put((function, done))

    def call(self, function: Callable[[], T]) -> Deferred[T]:
        """Call `function` in a thread; the Deferred has its result or its error."""
        result: Deferred[T] = Deferred()

        def done(value: Any, error: BaseException | None) -> None:
            if error is None:
                result.callback(value)
            else:
                result.errback(error)

        self.submit(function, done)
        return result

    def stop(self) -> None:
        """Finish what was handed in and end the threads; waits for the disk."""
        self._stopped = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            function, done = work
            value = error = None
            try:
                value = function()
            except BaseException as caught:
                error = caught
            self._ended.append((done, value, error))
            # Each call writes to a pipe, which costs the reactor the interpreter lock; one call answers
            # all that ended. Two threads may call at once, which does no harm.
            if not self._called:
                self._called = True
                self._reactor.callFromThread(self._answer)
            del work, function, done, value, error

    def _answer(self) -> None:
        """Tell what has ended; in the reactor."""
        # Before the first is taken: what ends from here on calls again, or is taken below.
        self._called = False
        for _ in range(len(self._ended)):
            done, value, error = self._ended.popleft()
            done(value, error)
