from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.watched import LIMIT, SMALL, Mistake, Unreadable, Watch, Watched


def parse(data: bytes) -> str:
    if b"bad" in data:
        raise Mistake(data[: data.index(b"bad")].count(b"\n") + 1, "this is bad")
    return data.decode()


class WatchedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.warnings: list[str] = []
        self.path = os.path.abspath(self.mktemp())
        self.reads = 0

    def make(self, start: str | None = None) -> Watched[str]:
        def counted(data: bytes) -> str:
            self.reads += 1
            return parse(data)

        self.watch = Watch(self.clock.seconds, self.warnings.append)
        return Watched(self.path, counted, "nothing", self.watch, start)

    def write(self, text: str) -> None:
        with open(f"{self.path}.new", "w") as file:
            file.write(text)
        os.replace(f"{self.path}.new", self.path)

    def test_read_again_when_changed(self) -> None:
        self.write("one")
        watched = self.make()
        self.assertEqual(watched.get(), "one")
        self.write("two")
        self.assertEqual(watched.get(), "one")
        self.clock.advance(1)
        self.assertEqual(watched.get(), "two")
        self.assertEqual(self.warnings, [])

    def test_looked_at_when_that_is_asked_for(self) -> None:
        self.write("one")
        watched = self.make()
        self.assertEqual(watched.get(), "one")
        self.write("two")
        self.watch.look()
        self.assertEqual(watched.get(), "two")
        self.write("three")
        self.assertEqual(watched.get(), "two")

    def test_not_read_again_without_need(self) -> None:
        self.write("one")
        watched = self.make()
        for _ in range(5):
            watched.get()
            self.clock.advance(2)
        self.assertEqual(self.reads, 1)

    def test_changed_in_place(self) -> None:
        self.write("one")
        watched = self.make()
        watched.get()
        os.utime(self.path, (5, 5))
        self.clock.advance(1)
        watched.get()
        self.assertEqual(self.reads, 2)

    def test_clock_set_back(self) -> None:
        self.write("one")
        watched = self.make()
        self.clock.advance(1e6)
        watched.get()
        self.write("two")
        self.clock.advance(-1e5)
        self.assertEqual(watched.get(), "two")

    def test_mistake_keeps_the_last_good_version(self) -> None:
        self.write("one")
        watched = self.make()
        watched.get()
        self.write("x\nbad")
        for _ in range(3):
            self.clock.advance(1)
            self.assertEqual(watched.get(), "one")
        expected = f"{self.path}:2: this is bad; the last good version stays in use"
        self.assertEqual(self.warnings, [expected])
        self.assertEqual(self.reads, 2)
        self.write("three")
        self.clock.advance(1)
        self.assertEqual(watched.get(), "three")

    def test_never_good(self) -> None:
        self.write("bad")
        watched = self.make()
        self.assertRaises(Unreadable, watched.get)
        self.assertRaises(Unreadable, watched.get)
        self.assertEqual(self.warnings, [f"{self.path}:1: this is bad; what it says is not known"])
        self.write("good")
        self.clock.advance(1)
        self.assertEqual(watched.get(), "good")

    def test_start_value_until_the_first_good_version(self) -> None:
        self.write("bad")
        self.assertEqual(self.make(start="begin").get(), "begin")

    def test_missing_from_the_beginning(self) -> None:
        watched = self.make()
        self.assertEqual(watched.get(), "nothing")
        self.assertEqual(self.warnings, [])
        self.write("one")
        self.clock.advance(1)
        self.assertEqual(watched.get(), "one")

    def test_bad_then_gone_is_missing(self) -> None:
        self.write("bad")
        watched = self.make()
        self.assertRaises(Unreadable, watched.get)
        os.unlink(self.path)
        self.clock.advance(1)
        self.assertEqual(watched.get(), "nothing")

    def test_gone_keeps_the_last_good_version(self) -> None:
        self.write("one")
        watched = self.make()
        watched.get()
        os.unlink(self.path)
        for _ in range(2):
            self.clock.advance(1)
            self.assertEqual(watched.get(), "one")
        expected = f"{self.path}: the file is gone; the last good version stays in use"
        self.assertEqual(self.warnings, [expected])
        self.write("two")
        self.clock.advance(1)
        self.assertEqual(watched.get(), "two")

    def test_what_is_no_regular_file_is_not_read(self) -> None:
        for make in (os.mkfifo, os.mkdir):
            self.path = os.path.abspath(self.mktemp())
            make(self.path)
            self.assertRaises(Unreadable, self.make().get)
        self.assertEqual(
            [warning.rpartition(": ")[2] for warning in self.warnings],
            ["not a regular file; what it says is not known"] * 2,
        )

    def test_longest(self) -> None:
        self.write("x" * LIMIT)
        watched = self.make()
        self.assertEqual(len(watched.get()), LIMIT)
        self.write("x" * (LIMIT + 1))
        self.clock.advance(1)
        self.assertEqual(len(watched.get()), LIMIT)
        self.assertIn(f"longer than {LIMIT} octets", self.warnings[0])


class InThreadTests(SynchronousTestCase):
    """Large files are read in another thread; here, when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.warnings: list[str] = []
        self.path = os.path.abspath(self.mktemp())
        self.calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.released: list[str] = []
        self.watch = Watch(self.clock.seconds, self.warnings.append, self.in_thread)

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.calls.append((Deferred(), partial(function, *arguments)))
        return self.calls[-1][0]

    def run_thread(self) -> None:
        deferred, function = self.calls.pop(0)
        execute(function).chainDeferred(deferred)

    def make(self) -> Watched[str]:
        return Watched(self.path, parse, "nothing", self.watch, release=self.released.append)

    def write(self, mark: str, size: int = SMALL + 1) -> None:
        with open(f"{self.path}.new", "w") as file:
            file.write(mark.ljust(size, "."))
        os.replace(f"{self.path}.new", self.path)
        self.clock.advance(1)

    def asked(self, watched: Watched[str]) -> Deferred[str]:
        return Deferred.fromCoroutine(watched.current())

    def test_small_ones_are_not(self) -> None:
        self.write("one", SMALL)
        self.assertTrue(self.make().get().startswith("one"))
        self.assertEqual(self.calls, [])

    def test_whoever_asks_first_waits(self) -> None:
        self.write("one")
        watched = self.make()
        self.assertRaises(Unreadable, watched.get)
        asking = [self.asked(watched), self.asked(watched)]
        self.clock.advance(2)
        asking.append(self.asked(watched))
        self.assertEqual(len(self.calls), 1)
        for one in asking:
            self.assertNoResult(one)
        self.run_thread()
        for one in asking:
            self.assertTrue(self.successResultOf(one).startswith("one"))

    def test_the_version_before_is_in_use_meanwhile(self) -> None:
        self.write("one")
        watched = self.make()
        self.asked(watched)
        self.run_thread()
        self.write("two")
        self.assertTrue(watched.get().startswith("one"))
        self.assertTrue(self.successResultOf(self.asked(watched)).startswith("one"))
        self.run_thread()
        self.assertTrue(watched.get().startswith("two"))
        # What was read before is let go of in a thread, too.
        self.assertEqual(self.released, [])
        self.run_thread()
        self.assertTrue(self.released[0].startswith("one"))
        self.assertEqual(self.calls, [])

    def test_a_mistake_keeps_the_last_good_version(self) -> None:
        self.write("one")
        watched = self.make()
        self.asked(watched)
        self.run_thread()
        self.write("\nbad")
        watched.get()
        self.run_thread()
        self.assertTrue(watched.get().startswith("one"))
        self.assertEqual(self.warnings, [f"{self.path}:2: this is bad; the last good version stays in use"])
        self.assertEqual((self.released, self.calls), ([], []))

    def test_a_mistake_from_the_beginning(self) -> None:
        self.write("bad")
        asking = self.asked(self.make())
        self.run_thread()
        self.failureResultOf(asking, Unreadable)

    def test_changed_while_it_was_read(self) -> None:
        self.write("one")
        watched = self.make()
        self.asked(watched)
        self.write("two")
        self.run_thread()
        self.assertTrue(watched.get().startswith("two"))
        self.write("three")
        watched.get()
        deferred, read = self.calls.pop(0)
        found = read()
        self.write("four")
        deferred.callback(found)
        self.assertTrue(watched.get().startswith("three"))
        self.run_thread()
        self.run_thread()
        self.assertTrue(watched.get().startswith("four"))

    def test_gone_while_it_was_to_be_read(self) -> None:
        self.write("one")
        watched = self.make()
        asking = self.asked(watched)
        os.unlink(self.path)
        self.run_thread()
        self.assertEqual(self.successResultOf(asking), "nothing")

    def test_whoever_watches_is_found_again_as_long_as_he_does(self) -> None:
        watched = self.watch.keep(self.path, self.make)
        self.assertIs(self.watch.keep(self.path, self.make), watched)
        del watched
        gc.collect()
        self.assertNotIn(self.path, self.watch.kept)
