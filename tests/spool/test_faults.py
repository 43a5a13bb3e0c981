"""Full disks, failing syncs and damaged files.

The first two are met by a program of its own (`tests.spool.office`): on a file system of a few
megabytes in a mount namespace of its own, and under strace, which lets system calls fail.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import apsw
from twisted.internet.defer import Deferred

from postoffice.interfaces import SpoolDamaged, SpoolFailed
from postoffice.spool import schema
from postoffice.spool.schema import too_old
from postoffice.spool.writer import Writer
from tests.contracts import SpoolHelpers, waiting
from tests.spool.office import content_of
from tests.spool.test_crash import ENVIRONMENT, Office, words
from tests.spool.test_sqlite import Spools
from tests.support import program


class FailingCalls(Office):
    """System calls that fail now and then: nothing of the group is acknowledged, the rest goes on."""

    async def failing(self, call: str, error: str, when: str, name: str) -> None:
        strace = program("strace")
        options = ["-f", "-qq", "-o", self.mktemp(), "-e", f"trace={call}"]
        options += ["-e", f"inject={call}:error={error}:when={when}"]
        process = subprocess.run(
            [strace, *options, *self.arguments(60)], stdout=subprocess.PIPE, env=ENVIRONMENT, check=False
        )
        self.note(process.stdout)
        self.assertIn(b"done", process.stdout)
        self.assertIn(f"error {name}".encode(), process.stdout)
        self.assertTrue(self.refused)
        self.assertTrue(self.stored - self.refused)
        self.settled -= self.refused
        self.stored -= self.refused
        self.refused -= self.unsure
        await self.check()

    @waiting
    async def test_sync_of_a_commit(self) -> None:
        await self.failing("fdatasync", "EIO", "20+7", "SpoolFailed")

    @waiting
    async def test_syncs_that_fail_for_a_while(self) -> None:
        """The log then holds what was refused, and is what the database is opened with again."""
        await self.failing("fdatasync", "EIO", "20..31", "SpoolFailed")

    @waiting
    async def test_sync_of_a_content_file_or_directory(self) -> None:
        await self.failing("fsync", "EIO", "4+3", "SpoolFailed")

    @waiting
    async def test_no_space_for_the_log(self) -> None:
        await self.failing("pwrite64", "ENOSPC", "60+40", "SpoolFull")

    @waiting
    async def test_input_output_error_of_the_log(self) -> None:
        await self.failing("pwrite64", "EIO", "60+40", "SpoolFailed")


class LateErrors(Spools, SpoolHelpers):
    """Commits that are on the disk although they are said to have failed."""

    def fail_after(self, name: str, error: Exception) -> None:
        """Let the next call of a method of the writer do what it should, and fail."""
        method = getattr(Writer, name)

        def failing(*arguments: Any) -> None:
            setattr(Writer, name, method)
            method(*arguments)
            raise error

        self.patch(Writer, name, failing)

    @waiting
    async def test_what_was_refused_does_not_turn_up(self) -> None:
        spool = await self.opened()
        for number, data in enumerate((b"small", bytes(200_000))):
            self.fail_after("_commit", apsw.IOError("disk I/O error"))
            self.fail_after("_connect", apsw.CantOpenError("unable to open database file"))
            letter = self.put(spool, self.new(id=f"REFUSED{number}"), data)
            await self.refused(Deferred.fromCoroutine(letter), SpoolFailed)
            await self.put(spool, self.new(id=f"TAKEN{number}"))
        self.assertEqual(sorted(await self.ids(spool)), ["TAKEN0", "TAKEN1"])
        await spool.close()
        self.assertEqual(os.listdir(Path(self.directory, "content")), [])


SCRIPT = """
mount -t tmpfs -o size=8m tmpfs "$1" && head -c 6000000 /dev/zero > "$1/ballast" || exit 1
here=$1; kept=$2; shift 2
"$@" | while read -r line; do
    echo "$line"
    case "$line" in error*) rm -f "$here/ballast" ;; esac
done
exec cp -a "$here/spool" "$kept"
"""
"""In a mount namespace of its own: run a program on a disk with little room until it meets an error."""


class FullDisk(Office):
    """A file system that is full for a while."""

    @waiting
    async def test_carries_on_when_there_is_room_again(self) -> None:
        mounted = self.directory.with_name("mounted")
        mounted.mkdir()
        kept, self.directory = self.directory, mounted / "spool"
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        process = subprocess.run(
            [
                program("unshare"),
                *own,
                "--mount",
                "sh",
                "-c",
                SCRIPT,
                "sh",
                mounted,
                kept,
                *self.arguments(60),
            ],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            check=True,
        )
        self.directory = kept
        self.note(process.stdout)
        self.assertTrue(process.stdout.endswith(b"done\n"))
        self.assertIn(b"error SpoolFull", process.stdout)
        after = words(process.stdout[process.stdout.rindex(b"error") :], "stored")
        self.assertGreater(len(after), 10)
        self.refused -= self.unsure
        await self.check()


class Damage(Spools, SpoolHelpers):
    """A spool that cannot be trusted is named and left as it is."""

    async def filled(self) -> Path:
        """A closed spool with letters; the path of its database."""
        spool: Any = self.make()
        await spool.open()
        for _ in range(400):
            draft = spool.draft()
            draft.write(content_of("N0") * 3)
            await draft.commit(self.new(), False)
        await spool.close()
        return Path(self.directory, "spool.db")

    async def refuses(self, *said: str) -> None:
        """It does not open, says so, and changes nothing."""
        path = Path(self.directory, "spool.db")
        before = path.read_bytes()
        try:
            await self.make().open()
        except SpoolDamaged as error:
            for word in (str(path.absolute()), *said):
                self.assertIn(word, str(error))
        else:
            self.fail("it was opened")
        self.assertEqual(path.read_bytes(), before)

    @waiting
    async def test_flipped_bits(self) -> None:
        path = await self.filled()
        sound = path.read_bytes()
        pages = len(sound) // schema.PAGE
        for page in range(pages // 4, pages * 3 // 4, max(pages // 40, 1)):
            start, end = page * schema.PAGE, (page + 1) * schema.PAGE
            flipped = bytes(octet ^ 0x55 for octet in sound[start:end])
            path.write_bytes(sound[:start] + flipped + sound[end:])
            await self.refuses()
        path.write_bytes(sound)
        spool = self.make()
        await spool.open()
        await spool.close()

    @waiting
    async def test_cut_short(self) -> None:
        path = await self.filled()
        os.truncate(path, path.stat().st_size // 2)
        await self.refuses()

    @waiting
    async def test_empty(self) -> None:
        path = await self.filled()
        os.truncate(path, 0)
        await self.refuses("empty")

    @waiting
    async def test_not_a_database(self) -> None:
        path = await self.filled()
        path.write_bytes(b"These are not the letters you are looking for." * 100)
        await self.refuses("not an SQLite database")

    @waiting
    async def test_database_of_another_program(self) -> None:
        path = await self.filled()
        self.pragma(path, "application_id = 17")
        await self.refuses("another program")

    @waiting
    async def test_newer_tables(self) -> None:
        path = await self.filled()
        self.pragma(path, f"user_version = {schema.TABLES + 1}")
        await self.refuses("newer version")

    def pragma(self, path: Path, what: str) -> None:
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA {what}")
        connection.commit()
        connection.close()

    @waiting
    async def test_content_file_lost_or_cut_short(self) -> None:
        path = await self.filled()
        spool = self.make()
        await spool.open()
        await self.put(spool, self.new(id="LARGE22222"), bytes(200_000))
        await spool.close()
        (content,) = Path(self.directory, "content").iterdir()
        os.truncate(content, 199_999)
        await self.refuses("LARGE22222", "199999 octets, not 200000")
        content.unlink()
        await self.refuses("LARGE22222", "No such file")
        self.assertTrue(path.exists())

    @waiting
    async def test_missing_database(self) -> None:
        path = await self.filled()
        Path(f"{path}-wal").write_bytes(b"x")
        path.rename(f"{path}.old")
        await self.refused(self.make().open(), SpoolDamaged)
        self.assertFalse(path.exists())


class Versions(Spools):
    """SQLite itself."""

    def test_old_ones_are_refused(self) -> None:
        self.assertIn("SQLite 3.45.1", too_old(3045001) or "")
        self.assertIn("3.51.3", too_old(3051002) or "")
        self.assertIsNone(too_old(3051003))
        self.assertIsNone(too_old(3060000))
