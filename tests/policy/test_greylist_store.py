"""The greylist's records on disk: the contract, the bounds of the disk, and what happens when it fails."""

from __future__ import annotations

import os
import stat
import threading
from typing import Any

import apsw
from twisted.internet import reactor as any_reactor
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from postoffice.interfaces import IGreylistStore, StoreFailed
from postoffice.mail.greylist import Bounds, Record
from postoffice.policy import greylist_store
from postoffice.policy.greylist_store import AGAIN, PAUSE, GreylistStore
from postoffice.policy.greylist_table import look_up
from tests.contracts import waiting
from tests.doubles import MemoryGreylist
from tests.greylist_contract import NOW, PASSED, WAITING, GreylistContract, everything
from tests.queue.support import Journal

reactor: Any = any_reactor


class Threads:
    """The calls from threads of the real reactor with the time of a test's clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = clock.seconds

    def callLater(self, delay: float, function: Any, *args: Any) -> IDelayedCall:
        return self.clock.callLater(delay, function, *args)

    def callFromThread(self, function: Any, *args: Any) -> None:
        reactor.callFromThread(function, *args)


class InMemory(SynchronousTestCase, GreylistContract):
    """The stand-in of the tests."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = float(NOW)
        self.records: dict[str, tuple[Record, str]] = {}

    def make(self, most: int = 0, share: int = 0, keep: int = 0) -> IGreylistStore:
        return MemoryGreylist(self.clock.seconds, Bounds(most, share, keep), self.records)


class Stores(TestCase):
    """A directory, a clock, and stores on them. Nothing is left behind."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = float(NOW)
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = f"{self.directory}/policy.db"
        self.journal = Journal()
        # Clean-ups run in reverse order: this one after stores were closed.
        self.addCleanup(self.check_nothing_left)

    def check_nothing_left(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn("greylist", [thread.name for thread in threading.enumerate()])

    def make(self, most: int = 0, share: int = 0, keep: int = 0) -> GreylistStore:
        return GreylistStore(self.path, Bounds(most, share, keep), self.journal, Threads(self.clock))


class OnDisk(Stores, GreylistContract):
    """The one the service uses."""


class Disks(Stores):
    """What tests of the disk do again and again."""

    async def opened(self, **bounds: int) -> GreylistStore:
        store = self.make(**bounds)
        await store.open()
        self.addCleanup(store.close)
        return store

    def on_disk(self, key: str) -> Record | None:
        """What another connection finds."""
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return look_up(connection, key)
        finally:
            connection.close()


class Disk(Disks):
    """When it is written, and what is there."""

    @waiting
    async def test_for_our_account_alone(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        store = await self.opened()
        store.put("a", WAITING, "")
        await store.flush()
        modes = {stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(self.directory)}
        self.assertEqual(modes, {0o600})

    @waiting
    async def test_changes_are_written_together_after_a_pause(self) -> None:
        store = await self.opened()
        store.put("a", WAITING, "")
        store.put("b", WAITING, "")
        self.assertIsNone(self.on_disk("a"))
        (timer,) = self.clock.getDelayedCalls()
        self.assertEqual(timer.getTime(), NOW + PAUSE)
        self.clock.advance(PAUSE)
        await everything(store)
        self.assertEqual((self.on_disk("a"), self.on_disk("b")), (WAITING, WAITING))

    @waiting
    async def test_what_changes_while_it_is_written_is_kept(self) -> None:
        store = await self.opened()
        store.put("a", WAITING, "")
        first = store.flush()
        store.put("a", PASSED, "")
        store.put("b", PASSED, "")
        second = store.flush()
        await first
        self.assertEqual(store.get("a"), PASSED)
        await second
        self.assertEqual((self.on_disk("a"), self.on_disk("b")), (PASSED, PASSED))

    @waiting
    async def test_what_waits_is_bounded(self) -> None:
        self.patch(greylist_store, "MOST_WAITING", 2)
        store = await self.opened()
        store.put("a", WAITING, "")
        store.put("b", WAITING, "")
        store.put("b", PASSED, "")
        self.assertRaises(StoreFailed, store.put, "c", WAITING, "")
        await store.flush()
        store.put("c", WAITING, "")

    @waiting
    async def test_the_database_is_of_no_more_pages_than_its_bounds_need(self) -> None:
        store = await self.opened(most=500, share=100, keep=1000)
        sizes = []
        for turn in range(12):
            for number in range(2500):
                name = f"{turn}.{number}@[198.51.{number % 250}.7]"
                store.put(name, Record(NOW + 3600, int(self.clock.seconds())), f"198.51.{number % 250}")
            await store.flush()
            sizes.append(os.path.getsize(self.path))
            self.clock.advance(10)
        self.assertEqual(len(await everything(store)), 500)
        self.assertLess(max(sizes), 1_500_000)
        self.clock.advance(2000)
        for _ in range(8):
            await store.flush()
        self.assertEqual(await everything(store), {})
        with apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY) as connection:
            rows = connection.execute("SELECT sum(records) FROM number").fetchall()
        self.assertEqual(rows, [(0,)])
        connection.close()


class Failing(Disks):
    """When the database or the disk is no good."""

    def told(self, words: str) -> None:
        """The errors in the log are one, with these words."""
        (error,) = self.journal.named("error")
        self.assertIn(words, error)
        self.journal.facts.clear()

    @waiting
    async def test_damaged_when_it_is_opened(self) -> None:
        for content in (b"this is not a database at all" * 40, b"SQLite format 3\0" + b"\1" * 5000):
            with open(self.path, "wb") as file:
                file.write(content)
            store = self.make()
            await store.open()
            self.told("policy.db.damaged")
            with open(self.path + ".damaged", "rb") as file:
                self.assertEqual(file.read(), content)
            store.put("a", WAITING, "")
            await store.close()
            self.assertEqual(self.on_disk("a"), WAITING)

    @waiting
    async def test_of_another_version(self) -> None:
        await (await self.opened()).flush()
        with apsw.Connection(self.path) as connection:
            connection.pragma("user_version", 99)
        connection.close()
        other = self.make()
        await other.open()
        await other.close()
        self.told("another program or version")

    async def ruined(self) -> GreylistStore:
        """An open store with records, of whose database only the first page is left."""
        store = self.make()
        await store.open()
        for number in range(5000):
            store.put(f"{number}@example.org", WAITING, "x")
        await store.close()
        store = await self.opened()
        size = os.path.getsize(self.path)
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        return store

    @waiting
    async def test_damaged_while_it_is_used(self) -> None:
        store = await self.ruined()
        self.assertRaises(StoreFailed, store.get, "77@example.org")
        self.assertRaises(StoreFailed, store.get, "78@example.org")
        await store.flush()
        self.told("policy.db.damaged")
        self.assertIsNone(store.get("77@example.org"))
        store.put("new", WAITING, "x")
        await store.flush()
        self.assertEqual(self.on_disk("new"), WAITING)

    @waiting
    async def test_damage_that_a_write_meets(self) -> None:
        store = await self.ruined()
        store.put("new", WAITING, "x")
        await store.flush()
        self.told("policy.db.damaged")
        self.assertEqual((store.get("new"), self.on_disk("new")), (WAITING, WAITING))

    @waiting
    async def test_a_place_that_is_none_is_tried_again(self) -> None:
        os.rmdir(self.directory)
        store = self.make()
        await store.open()
        self.addCleanup(store.close)
        self.told("cannot be opened")
        self.assertRaises(StoreFailed, store.get, "a")
        os.mkdir(self.directory)
        self.clock.advance(AGAIN)
        await everything(store)
        self.assertIsNone(store.get("a"))

    @waiting
    async def test_a_write_that_fails_is_tried_again(self) -> None:
        store = await self.opened()
        blocker = apsw.Connection(self.path)
        self.addCleanup(blocker.close)
        store._table._ready().set_busy_timeout(0)
        blocker.execute("BEGIN IMMEDIATE")
        store.put("a", WAITING, "")
        first = store.flush()
        store.put("b", WAITING, "")
        error = await self.failed(first)
        self.assertIn("locked", str(error))
        self.told("not written yet")
        self.assertEqual(store.get("a"), WAITING)
        blocker.execute("COMMIT")
        self.clock.advance(AGAIN)
        await everything(store)
        self.assertEqual((self.on_disk("a"), self.on_disk("b")), (WAITING, WAITING))

    async def failed(self, deferred: Any) -> Exception:
        try:
            await deferred
        except StoreFailed as error:
            return error
        raise AssertionError("did not fail")

    @waiting
    async def test_what_cannot_be_written_at_the_end_is_logged(self) -> None:
        store = self.make()
        await store.open()
        store._table._ready().execute("DROP TABLE record").close()
        store.put("a", WAITING, "")
        await store.close()
        self.assertIn("are lost", self.journal.named("error")[-1])
