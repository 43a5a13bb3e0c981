"""Work in threads of which only so much may wait: what is too much is refused at once.

Used for checking passwords. Strangers ask for that work, and a queue without a bound would have everybody
wait for the guesses of one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class BoundedThreads:
    """Calls functions by `run` in a pool of threads; at most `most` of them wait or run at the same time."""

    def __init__(
        self, pool: ThreadPool, run: Callable[[Callable[[], Any]], Deferred[Any]], most: int
    ) -> None:
        self._pool = pool
        self._run = run
        self._most = most
        self._under_way = 0

    def start(self) -> None:
        """Begin; after privileges were given up, since threads keep theirs."""
        self._pool.start()

    def stop(self) -> None:
        """Finish what was begun, and end the threads."""
        if self._pool.started:
            self._pool.stop()

    def __call__(self, function: Callable[[], T]) -> Deferred[T]:
        """Call the function; the Deferred has its result or its error. Errors: BlockingIOError."""
        if self._under_way >= self._most:
            return fail(BlockingIOError(errno.EAGAIN, f"{self._under_way} wait already"))
        self._under_way += 1
        return self._run(function).addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._under_way -= 1
        return result
