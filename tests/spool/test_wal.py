"""The write-ahead log: its room, and that it is begun anew."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater

from postoffice.interfaces import ISpool
from postoffice.mail.envelope import Settlement
from postoffice.spool import home, wal, writer
from postoffice.spool.schema import PAGE
from postoffice.spool.sqlite import SqliteSpool
from tests.contracts import ANN, BOB, DELIVERED, LEASE, SpoolHelpers, waiting
from tests.spool.test_sqlite import Spools, Threads, reactor

ROOM = 1_000_000


class Log(Spools, SpoolHelpers):
    """A spool whose log has some room and is soon copied."""

    room = ROOM
    timeout = 30

    def setUp(self) -> None:
        super().setUp()
        self.patch(wal, "LENGTH", 30 * PAGE)

    def make(self, node: str = "here") -> ISpool:
        return SqliteSpool(self.directory, Threads(self.clock), node=node, lease=LEASE, room=self.room)

    @property
    def log(self) -> Path:
        return Path(self.directory, "spool.db-wal")

    async def some(self, spool: ISpool, count: int, letter_id: str = "SOME") -> None:
        for number in range(count):
            await self.put(spool, self.new(id=f"{letter_id}{number}"), bytes(20_000))

    @waiting
    async def test_has_its_room_from_the_start(self) -> None:
        await self.some(await self.opened(), 3)
        self.assertTrue(ROOM <= self.log.stat().st_size < ROOM + PAGE)

    @waiting
    async def test_has_none_where_there_is_little(self) -> None:
        there = os.statvfs(os.curdir)
        self.room = there.f_bavail * there.f_frsize // 10
        await self.some(await self.opened(), 3)
        self.assertLess(self.log.stat().st_size, ROOM)

    @waiting
    async def test_a_letter_survives_in_it(self) -> None:
        """What lies behind the last commit is not taken for one, by whoever opens it after a crash."""
        await self.some(await self.opened(), 3)
        copy = Path(self.mktemp())
        copy.mkdir()
        for end in ("", "-wal"):
            copy.joinpath(f"spool.db{end}").write_bytes(Path(self.directory, f"spool.db{end}").read_bytes())
        copy.joinpath("content").mkdir()
        self.directory = str(copy)
        self.assertEqual(await self.ids(await self.opened()), ["SOME0", "SOME1", "SOME2"])

    @waiting
    async def test_makes_its_room_behind_what_another_node_wrote(self) -> None:
        self.patch(wal, "LENGTH", 10**10)
        self.room = 0
        await self.some(await self.opened("there"), 3)
        self.room = ROOM
        spool = await self.opened("here")
        self.assertEqual(await self.ids(spool), ["SOME0", "SOME1", "SOME2"])
        await self.put(spool, self.new(id="LAST"))
        with closing(sqlite3.connect(Path(self.directory, "spool.db"))) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def copied(self) -> int:
        """Octets of the database itself."""
        return Path(self.directory, "spool.db").stat().st_size

    @waiting
    async def test_is_begun_anew_under_a_load_that_does_not_end(self) -> None:
        spool = await self.opened()
        await self.some(spool, 1000)
        # How long it became is a matter of who had the processor; all commits together have 115 MB.
        self.assertLess(self.log.stat().st_size, 1000 * 20_000)
        # How often it was begun anew stands in its header.
        self.assertGreater(int.from_bytes(self.log.read_bytes()[12:16], "big"), 3)
        self.assertGreater(self.copied(), 800 * 20_000)
        self.assertEqual(len(await spool.entries()), 1000)

    @waiting
    async def test_is_copied_beside_the_commits(self) -> None:
        self.patch(wal.WriteAheadLog, "_copy_rest", lambda *_: None)
        await self.some(await self.opened(), 500)
        self.assertGreater(self.copied(), 300 * 20_000)

    @waiting
    async def test_is_copied_where_there_are_no_more_threads(self) -> None:
        spool = await self.opened()

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", start)
        await self.some(spool, 100)
        self.assertGreater(self.copied(), 80 * 20_000)

    @waiting
    async def test_is_copied_when_there_is_little_left(self) -> None:
        self.patch(writer, "IDLE", 60)
        self.patch(wal, "LENGTH", 10**10)
        spool = await self.opened()
        await self.some(spool, 50)
        self.patch(home, "PLENTY", 10**9)
        await self.some(spool, 50, "MORE")
        self.assertGreater(self.copied(), 50 * 20_000)

    @waiting
    async def test_much_is_copied_beside_letters_that_may_come(self) -> None:
        self.patch(wal, "LENGTH", 10**10)
        checkpoint, threads = wal._checkpoint, []

        def noted(connection: apsw.Connection, mode: int) -> None:
            threads.append(threading.current_thread().name)
            checkpoint(connection, mode)

        self.patch(wal, "_checkpoint", noted)
        await self.some(await self.opened(), 100)
        while "spool-copier" not in threads:
            await deferLater(reactor, 0.05)

    @waiting
    async def test_keeps_its_length_when_there_is_nothing_to_do(self) -> None:
        self.patch(writer, "IDLE", 0.01)
        self.patch(wal, "KEPT", 2 * ROOM)
        self.patch(wal, "LENGTH", 10**10)
        self.patch(home, "PLENTY", 1)
        spool = await self.opened()
        await self.some(spool, 3)
        await self.idle(spool, "FEW")
        self.assertTrue(ROOM <= self.log.stat().st_size < ROOM + PAGE)
        self.patch(writer, "IDLE", 60)
        await self.some(spool, 200, "MORE")
        self.assertGreater(self.log.stat().st_size, 3 * ROOM)
        self.patch(writer, "IDLE", 0.01)
        await self.idle(spool, "MANY")
        self.assertEqual(self.log.stat().st_size, 2 * ROOM)

    async def idle(self, spool: ISpool, letter_id: str) -> None:
        """Wait until the log was begun anew, which the first commit afterwards shows."""
        before = self.log.read_bytes()[:32]
        for number in range(100):
            await deferLater(reactor, 0.05)
            await self.put(spool, self.new(id=f"{letter_id}{number}"), b"x")
            if self.log.read_bytes()[:32] != before:
                return
        self.fail("the log goes on")


class Together(Spools, SpoolHelpers):
    """Letters that are stored and served in one step."""

    timeout = 30

    def count(self, *tables: str) -> list[int]:
        """How many rows there are."""
        with closing(sqlite3.connect(Path(self.directory, "spool.db"))) as database:
            return [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    @waiting
    async def test_nothing_of_a_letter_stays(self) -> None:
        spool = await self.opened()
        for count in (1, 3, 16, 17, 40):
            new = [self.new(id=f"N{count}X{one}") for one in range(count)]
            stored = [Deferred.fromCoroutine(self.put(spool, one, claim=True)) for one in new]
            claims = [claim for claim, _ in await gatherResults(stored)]
            await gatherResults(
                [spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)]) for claim in claims]
            )
        tables = ["letter", "content", "recipient", "attempt", "copy"]
        self.assertEqual(self.count(*tables), [0, 0, 0, 0, 0])

    @waiting
    async def test_one_of_two_with_the_same_id_is_refused(self) -> None:
        for count in (1, 2, 5, 8, 9, 16, 17, 31, 32, 33, 40):
            spool = await self.opened()
            new = [self.new(id=f"N{count}X{one or count - 1}") for one in range(count)]
            stored = [Deferred.fromCoroutine(self.put(spool, one)) for one in new]
            done = sum(success for success, _ in await DeferredList(stored, consumeErrors=True))
            self.assertEqual(done, max(count - 1, 1))
            there = [letter_id for letter_id in await self.ids(spool) if letter_id.startswith(f"N{count}X")]
            self.assertEqual(len(there), done)
            await spool.close()

    @waiting
    async def test_what_was_handed_in_before_closing_is_done(self) -> None:
        calls: list[Any] = []
        threads = Threads(self.clock)
        threads.callLater = lambda _, function: calls.append(function)  # type: ignore[method-assign,assignment]
        spool = SqliteSpool(self.directory, threads)
        await spool.open()
        stored = Deferred.fromCoroutine(self.put(spool, self.new(id="LATE")))
        await spool.close()
        self.assertIsNone(await stored)
        for call in calls:
            call()
        self.assertEqual(await self.ids(await self.opened()), ["LATE"])

    @waiting
    async def test_a_copy_in_another_mode_is_put_right(self) -> None:
        spool = await self.opened()
        await self.put(spool, self.new(id="KEPT"))
        await spool.close()
        database = Path(self.directory, "spool.db")
        with closing(sqlite3.connect(database)) as original:
            original.execute("VACUUM INTO ?", (f"{database}.copy",))
        os.replace(f"{database}.copy", database)
        spool = await self.opened()
        await self.put(spool, self.new(id="NEW"))
        self.assertEqual(await self.ids(spool), ["KEPT", "NEW"])

    @waiting
    async def test_nodes_take_turns(self) -> None:
        """Each node learns that another gave the key that it would have given next."""
        nodes = [await self.opened(node) for node in ("here", "there")]
        for number in range(6):
            await self.put(nodes[number % 2], self.new(ANN, id=f"ONE{number}"))
            await self.put(nodes[number % 2], self.new(ANN, BOB, id=f"TWO{number}"))
        entries = {entry.letter.id: entry for entry in await nodes[0].entries()}
        self.assertEqual(set(entries), {f"{kind}{number}" for kind in ("ONE", "TWO") for number in range(6)})
        for letter_id, entry in entries.items():
            expected = [ANN] if letter_id.startswith("ONE") else [ANN, BOB]
            self.assertEqual([recipient.address for recipient in entry.recipients], expected)
