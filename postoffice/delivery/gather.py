"""Letters for Maildirs that wait for a thread, taken several at a time.

Used by `postoffice.delivery.local` for letters that are in memory. Threads that each write one
letter spend more on taking turns with the interpreter than on the letter; a few that write all that
gathered meanwhile share the syncs, too. A letter that finds a thread free waits for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from postoffice.delivery.maildir import MaildirFile, put_together

T = TypeVar("T")

THREADS = 2
MOST = 32


class InThread(Protocol):
    """Runs a function in some thread; the result or the exception comes back in the reactor's."""

    def __call__(self, function: Callable[..., T], *args: object) -> Deferred[T]: ...


@frozen(eq=False)
class _Waiting:
    opened: Callable[[], MaildirFile]
    letter: bytes
    is_wanted: Callable[[], bool]
    done: Deferred[None]


class Gathering:
    """Uses at most `THREADS` threads at a time, for at most `MOST` letters each."""

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._free = THREADS
        self._waiting: deque[_Waiting] = deque()

    def put(
        self, opened: Callable[[], MaildirFile], letter: bytes, is_wanted: Callable[[], bool]
    ) -> Deferred[None]:
        """Deposit a whole letter, unless it is not wanted any more when a thread gets to it.

        Errors: `CancelledError` then; what `MaildirFile` raises.
        """
        done: Deferred[None] = Deferred()
        self._waiting.append(_Waiting(opened, letter, is_wanted, done))
        self._start()
        return done

    def _start(self) -> None:
        while self._free and self._waiting:
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < MOST:
                waiting = self._waiting.popleft()
                if waiting.is_wanted():
                    batch.append(waiting)
                else:
                    waiting.done.errback(CancelledError())
            if batch:
                self._free -= 1
                letters = [(waiting.opened, waiting.letter) for waiting in batch]
                self._in_thread(put_together, letters).addBoth(self._written, batch)

    def _written(self, errors: list[Exception | None] | Failure, batch: list[_Waiting]) -> None:
        self._free += 1
        # The next batch is on its way while this one is settled.
        self._start()
        for at, waiting in enumerate(batch):
            error = errors if isinstance(errors, Failure) else errors[at]
            if error is None:
                waiting.done.callback(None)
            else:
                waiting.done.errback(error)
