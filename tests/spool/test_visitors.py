"""A spool that commands open while no service runs: to read, or to change what is there."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import SpoolDamaged, SpoolFailed, SpoolInUse
from postoffice.spool.home import PAUSE, Home
from postoffice.spool.sqlite import SqliteSpool
from tests.contracts import LEASE, TEXT, SpoolHelpers, read, waiting
from tests.spool.test_sqlite import Spools, Threads

LARGE = bytes(300_000)


class Visitors(Spools, SpoolHelpers):
    """`enter` and `browse`."""

    def visitor(self) -> SqliteSpool:
        return SqliteSpool(self.directory, Threads(self.clock), node="here", lease=LEASE)

    async def browsing(self) -> SqliteSpool:
        """A spool that is open to be read, and closed at the end of the test."""
        spool = self.visitor()
        await spool.browse()
        self.addCleanup(spool.close)
        return spool

    async def stored(self) -> None:
        """Two letters, of which a service that has ended was delivering one, and what it left of a draft."""
        spool = self.make()
        await spool.open()
        await self.put(spool, self.new(id="SMALL"), claim=True)
        await self.put(spool, self.new(id="LARGE"), LARGE)
        await spool.close()
        Path(self.directory, "content", "here.draft").touch()

    def kept(self) -> dict[str, bytes]:
        """What of a spool is not SQLite's to make and remove, and not the lock."""
        files = Path(self.directory).rglob("*")
        return {
            path.name: path.read_bytes()
            for path in files
            if path.is_file() and path.suffix in (".db", ".draft")
        }

    @waiting
    async def test_reading_changes_nothing(self) -> None:
        await self.stored()
        before = self.kept()
        spool = await self.browsing()
        other = await self.browsing()
        self.assertEqual(await self.ids(spool), ["SMALL", "LARGE"])
        self.assertEqual([entry.busy for entry in await other.entries()], [False, False])
        self.assertEqual(await read(await spool.content("SMALL")), TEXT)
        self.assertEqual(await read(await spool.content("LARGE")), LARGE)
        self.assertIsNone(await spool.content("OTHER"))
        for asked in (spool.hold("SMALL"), spool.delete("SMALL"), spool.requeue(None)):
            await self.refused(asked, SpoolFailed)
        await spool.close()
        await self.refused(spool.entries(), SpoolFailed)
        self.assertEqual(self.kept(), before)

    @waiting
    async def test_a_service_may_begin_while_somebody_reads(self) -> None:
        await self.stored()
        reader = await self.browsing()
        content = await reader.content("LARGE")
        service = await self.opened()
        self.assertTrue(await service.delete("SMALL"))
        self.assertEqual(await self.ids(reader), ["LARGE"])
        self.assertEqual(await read(content), LARGE)

    @waiting
    async def test_changes_count_at_the_next_start(self) -> None:
        await self.stored()
        spool = self.visitor()
        await spool.enter()
        self.assertTrue(await spool.hold("SMALL"))
        self.assertTrue(await spool.delete("LARGE"))
        await spool.close()
        self.assertEqual(os.listdir(os.path.join(self.directory, "content")), [])
        service = await self.opened()
        self.assertEqual([(one.letter.id, one.held) for one in await service.entries()], [("SMALL", True)])

    @waiting
    async def test_D5_a_spool_that_a_service_has_is_left_alone(self) -> None:
        service = await self.opened()
        await self.put(service, self.new(id="A"))
        for opening in (self.visitor().enter(), self.visitor().browse()):
            error = await self.refused(opening, SpoolInUse)
            self.assertIn(f"(pid {os.getpid()})", str(error))
        self.assertTrue(await service.hold("A"))
        await service.close()
        await (await self.browsing()).close()

    @waiting
    async def test_a_service_that_starts_waits_for_a_command(self) -> None:
        os.mkdir(self.directory)
        with open(os.path.join(self.directory, "here.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            service = self.visitor()
            opening = service.open()
        await opening
        await service.close()

    @waiting
    async def test_none_is_made(self) -> None:
        for there in (False, True):
            if there:
                os.mkdir(self.directory)
            for opening in (self.visitor().enter(), self.visitor().browse()):
                error = await self.refused(opening, SpoolFailed)
                self.assertEqual(str(error), f"{os.path.abspath(self.directory)}/spool.db: there is none")
            self.assertEqual(list(Path(self.directory).rglob("*")), [])

    @waiting
    async def test_a_damaged_one_is_named_and_left_as_it_is(self) -> None:
        await self.stored()
        Path(self.directory, "spool.db").write_bytes(b"not a database" * 100)
        before = self.kept()
        for opening in (self.visitor().enter(), self.visitor().browse()):
            error = await self.refused(opening, SpoolDamaged)
            self.assertIn("spool.db: not an SQLite database", str(error))
        self.assertEqual(self.kept(), before)

    @waiting
    async def test_one_of_an_older_program_is_upgraded_by_changes_alone(self) -> None:
        home = Path(self.directory)
        home.mkdir()
        with closing(sqlite3.connect(home / "spool.db", isolation_level=None)) as old:
            old.executescript(Path(__file__).with_name("tables1.sql").read_text())
        before = self.kept()
        error = await self.refused(self.visitor().browse(), SpoolFailed)
        self.assertIn("of an older version", str(error))
        self.assertEqual(self.kept(), before)
        spool = self.visitor()
        await spool.enter()
        self.assertTrue(await spool.release("EARLY23456"))
        await spool.close()
        self.assertIn("EARLY23456", await self.ids(await self.browsing()))

    @waiting
    async def test_a_name_that_is_no_spools(self) -> None:
        self.directory = self.mktemp()
        Path(self.directory).touch()
        for opening in (self.visitor().enter(), self.visitor().browse()):
            await self.refused(opening, SpoolFailed)


class Waiting(SynchronousTestCase):
    """A service that starts waits for a command to end."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.pauses: list[float] = []
        lock = os.open(os.path.join(self.directory, "here.lock"), os.O_RDWR | os.O_CREAT)
        self.held: list[int] = [lock]
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.addCleanup(self.let_go)

    def let_go(self) -> None:
        while self.held:
            os.close(self.held.pop())

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == 3:
            self.let_go()

    def test_until_it_has_ended(self) -> None:
        home = Home(self.directory, "here", self.pause)
        home.prepare(1.0)
        self.addCleanup(home.leave)
        self.assertEqual(self.pauses, [PAUSE] * 3)
        with open(os.path.join(self.directory, "here.lock")) as lock:
            self.assertEqual(lock.read(), f"{os.getpid()}\n")

    def test_not_for_ever(self) -> None:
        home = Home(self.directory, "here", self.pause)
        with self.assertRaises(SpoolInUse):
            home.prepare(2 * PAUSE)
        self.assertEqual(self.pauses, [PAUSE] * 2)
