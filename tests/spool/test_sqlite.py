from __future__ import annotations

import gc
import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from postoffice.interfaces import ISpool, SpoolFailed
from postoffice.mail.envelope import Letter, Recipient, Settlement
from postoffice.spool.sqlite import SqliteSpool
from tests.contracts import ANN, BOB, DELIVERED, LEASE, START, SpoolContract, SpoolHelpers, read, waiting
from tests.expansion_contract import ExpansionContract

reactor: Any = any_reactor


class Threads:
    """The calls from threads of the real reactor with the time of a test's clock."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = clock.seconds

    def callLater(self, delay: float, function: Any, *args: Any) -> None:
        reactor.callLater(delay, function, *args)

    def callFromThread(self, function: Any, *args: Any) -> None:
        reactor.callFromThread(function, *args)


def open_files() -> list[str]:
    """What the descriptors of this process refer to."""
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)]


class Spools(TestCase):
    """A directory, a clock, and spools on them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = START
        self.directory = self.mktemp()

    def make(self, node: str = "here") -> ISpool:
        return SqliteSpool(self.directory, Threads(self.clock), node=node, lease=LEASE, patience=0)


class Contract(Spools, SpoolContract, ExpansionContract):
    """`ISpool` on disk."""


class Directory(Spools, SpoolHelpers):
    """What lies in the directory, and who may use it."""

    @waiting
    async def test_modes_whatever_the_umask(self) -> None:
        for mask in (0o000, 0o077, 0o277):
            self.directory = self.mktemp()
            self.addCleanup(os.umask, os.umask(mask))
            spool = await self.opened()
            await self.put(spool, self.new(), bytes(300_000))
            await self.put(spool, self.new())
            for path in Path(self.directory).rglob("*"):
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700 if path.is_dir() else 0o600, path)
            self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)
            await spool.close()

    @waiting
    async def test_a_node_is_alive_once(self) -> None:
        await self.opened("here")
        error = await self.refused(self.make("here").open(), SpoolFailed)
        self.assertIn("another service", str(error))
        self.assertIn(str(os.getpid()), str(error))
        self.assertIn("'here'", str(error))
        await self.opened("there")

    def test_node_names(self) -> None:
        for name in ("", "../x", "a.b", "ä"):
            self.assertRaises(ValueError, self.make, name)

    def test_making_one_touches_nothing(self) -> None:
        threads = threading.active_count()
        self.make()
        self.assertFalse(os.path.exists(self.directory))
        self.assertEqual(threading.active_count(), threads)

    @waiting
    async def test_closing_ends_everything(self) -> None:
        threads = threading.active_count()
        spool = await self.opened()
        draft = spool.draft()
        draft.write(bytes(300_000))
        small = spool.draft()
        small.write(b"x")
        committing = small.commit(self.new(), False)
        await spool.close()
        await committing
        draft.discard()
        self.assertEqual(threading.active_count(), threads)
        del draft
        gc.collect()
        home = os.path.abspath(self.directory)
        self.assertEqual([path for path in open_files() if path.startswith(home)], [])
        self.assertFalse(os.path.exists(os.path.join(self.directory, "spool.db-wal")))
        for asked in (spool.claim(1), spool.entries(), spool.draft().commit(self.new(), False)):
            await self.refused(asked, SpoolFailed)
        again = await self.opened()
        self.assertEqual(len(await again.entries()), 1)
        self.assertEqual(os.listdir(os.path.join(self.directory, "content")), [])

    @waiting
    async def test_only_our_own_orphans_are_swept(self) -> None:
        spool = await self.opened("here")
        await self.put(spool, self.new(), bytes(300_000))
        await spool.close()
        content = Path(self.directory, "content")
        (kept,) = content.iterdir()
        (content / "here.orphan").touch()
        (content / "there.draft").touch()
        await self.opened("here")
        self.assertEqual({path.name for path in content.iterdir()}, {kept.name, "there.draft"})

    @waiting
    async def test_a_spool_of_an_older_program_is_upgraded(self) -> None:
        """Its letters are as they were, and its tables are what a new spool has."""
        home = Path(self.directory)
        home.mkdir()
        with closing(sqlite3.connect(home / "spool.db", isolation_level=None)) as old:
            old.executescript(Path(__file__).with_name("tables1.sql").read_text())
        spool = await self.opened()
        await self.put(spool, self.new(id="NEW2345678", ret="FULL"))
        letters = {claim.letter.id: (claim, content) for claim, content in await spool.claim(5)}
        claim, content = letters["EARLY23456"]
        self.assertEqual(
            claim.letter,
            Letter("EARLY23456", ANN, "8BITMIME", 22, 1_600_000_000.0, "[192.0.2.1]"),
        )
        recipient = Recipient(7340032, BOB, 1_600_000_900.0, 2, "450 4.2.0 later")
        self.assertEqual(claim.recipients, (recipient,))
        self.assertEqual(await read(content), b"Subject: one\r\n\r\nLine\r\n")
        self.assertEqual(letters["NEW2345678"][0].letter.ret, "FULL")
        held = {entry.letter.id: entry.held_for for entry in await spool.entries() if entry.held}
        self.assertEqual(held, {"HELD234567": ""})
        await spool.settle(claim, [Settlement(7340032, DELIVERED)])
        await spool.close()
        upgraded = self.tables()
        await (await self.opened()).close()
        self.directory = self.mktemp()
        await (await self.opened()).close()
        self.assertEqual(upgraded, self.tables())

    def tables(self) -> list[Any]:
        """The version of the tables, and their columns."""
        with closing(sqlite3.connect(Path(self.directory, "spool.db"))) as database:
            found = database.execute("PRAGMA user_version").fetchall()
            for name in ("letter", "content", "recipient", "attempt", "copy", "node"):
                found += database.execute(f"PRAGMA table_info({name})").fetchall()
        return found

    @waiting
    async def test_files_go_with_their_letters(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), bytes(300_000), claim=True)
        await spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)])
        await spool.close()
        self.assertEqual(os.listdir(os.path.join(self.directory, "content")), [])

    @waiting
    async def test_a_large_draft_waits_for_the_disk(self) -> None:
        spool = await self.opened()
        draft = spool.draft()
        waits = 0
        for _ in range(40):
            room = draft.write(bytes(60_000))
            waits += room is not None
            if room is not None:
                await room
        claimed = await draft.commit(self.new(), True)
        self.assertGreater(waits, 2)
        assert claimed is not None
        self.assertEqual(claimed[1].size, 2_400_000)
        self.assertIsNone(claimed[1].held)

    @waiting
    async def test_a_shortened_file_is_not_read_as_a_whole_letter(self) -> None:
        spool = await self.opened()
        _, content = await self.put(spool, self.new(), bytes(300_000), claim=True)
        (path,) = Path(self.directory, "content").iterdir()
        for size in (299_999, 300_001, 0):
            os.truncate(path, size)
            await self.refused(Deferred.fromCoroutine(read(content)), SpoolFailed)
        path.unlink()
        await self.refused(Deferred.fromCoroutine(read(content)), SpoolFailed)

    @waiting
    async def test_long_queues_are_listed_in_portions(self) -> None:
        spool = await self.opened()
        waiting = []
        for number in range(1203):
            draft = spool.draft()
            draft.write(b"x")
            waiting.append(draft.commit(self.new(ANN, BOB, id=f"LONG{number}"), False))
        for one in waiting:
            await one
        entries = await spool.entries()
        self.assertEqual([entry.letter.id for entry in entries], [f"LONG{number}" for number in range(1203)])
        self.assertEqual({len(entry.recipients) for entry in entries}, {2})
