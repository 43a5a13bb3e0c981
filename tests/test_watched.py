from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.watched import LIMIT, Mistake, Unreadable, Watch, Watched


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
