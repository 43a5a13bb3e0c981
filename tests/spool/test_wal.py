"""The write-ahead log: its room, and that it is begun anew."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from postoffice.interfaces import ISpool
from postoffice.mail.envelope import Settlement
from postoffice.spool import wal
from postoffice.spool.sqlite import SqliteSpool
from tests.contracts import ANN, BOB, DELIVERED, LEASE, SpoolHelpers, waiting
from tests.spool.test_sqlite import Spools, Threads

ROOM = 1_000_000


class Log(Spools, SpoolHelpers):
    """A spool whose log has some room and is soon copied."""

    room = ROOM

    def setUp(self) -> None:
        super().setUp()
        self.patch(wal, "PAGES", 30)

    def make(self, node: str = "here") -> ISpool:
        return SqliteSpool(self.directory, Threads(self.clock), node=node, lease=LEASE, room=self.room)

    @property
    def log(self) -> Path:
        return Path(self.directory, "spool.db-wal")

    async def some(self, spool: ISpool, count: int) -> None:
        for number in range(count):
            await self.put(spool, self.new(id=f"SOME{number}"), bytes(20_000))

    @waiting
    async def test_has_its_room_from_the_start(self) -> None:
        await self.some(await self.opened(), 3)
        self.assertTrue(ROOM <= self.log.stat().st_size < ROOM + 4096)

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
    async def test_is_begun_anew_under_a_load_that_does_not_end(self) -> None:
        spool = await self.opened()
        await self.some(spool, 1000)
        self.assertLess(self.log.stat().st_size, 2 * ROOM)
        with closing(sqlite3.connect(f"file:{self.directory}/spool.db?immutable=1", uri=True)) as database:
            ((stored,),) = database.execute("SELECT count(*) FROM letter")
        self.assertGreater(stored, 800)
        self.assertEqual(len(await spool.entries()), 1000)


class Together(Spools, SpoolHelpers):
    """Letters that are stored and served in one step."""

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
