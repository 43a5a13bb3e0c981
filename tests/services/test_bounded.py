from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.bounded import BoundedThreads


class Bounds(SynchronousTestCase):
    def test_so_much_waits_and_no_more(self) -> None:
        begun: list[tuple[Callable[[], Any], Deferred[Any]]] = []

        def run(function: Callable[[], Any]) -> Deferred[Any]:
            begun.append((function, Deferred()))
            return begun[-1][1]

        threads = BoundedThreads(ThreadPool(0, 1), run, 2)
        first, second = threads(lambda: 1), threads(lambda: 2)
        self.failureResultOf(threads(lambda: 3), BlockingIOError)
        self.assertEqual(len(begun), 2)
        begun[0][1].callback(begun[0][0]())
        self.assertEqual(self.successResultOf(first), 1)
        begun[1][1].errback(ZeroDivisionError())
        self.failureResultOf(second, ZeroDivisionError)
        for _ in range(2):
            self.assertNoResult(threads(lambda: 4))
        self.failureResultOf(threads(lambda: 5), BlockingIOError)

    def test_threads_that_never_started_end(self) -> None:
        BoundedThreads(ThreadPool(0, 1), lambda _: Deferred(), 1).stop()
