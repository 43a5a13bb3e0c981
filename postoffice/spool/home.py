"""The directory of the embedded spool: what lies in it, with which modes, and who may use it.

    spool.db, -wal, -shm    the database
    content/NODE.RANDOM     contents of large letters
    NODE.lock               locked by the service of that name while it lives, and by a command while it works

Everything we make is for our account alone, whatever the umask: directories 0700, files 0600
(security checklist D6). A directory that is there already keeps its mode.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Callable, Iterable

import apsw

from postoffice.interfaces import SpoolDamaged, SpoolFailed, SpoolInUse
from postoffice.spool import schema

PAUSE = 0.1
"""Seconds between two tries to lock a node's name."""

PLENTY = 20
"""What is free is so many times the share of the write-ahead log."""

_MAGIC = b"SQLite format 3\0"


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    os.chmod(path, 0o700)


def _make_file(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _fill(descriptor: int, before: int, size: int) -> None:
    """Write zeros behind the end of a file, all of them or none."""
    try:
        # By pages, as it will be overwritten: what was written in one piece the kernel keeps in one.
        for at in range(before, size, schema.PAGE):
            os.pwrite(descriptor, bytes(schema.PAGE), at)
        os.fdatasync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def _locked(descriptor: int, how: int) -> bool:
    """Whether an open file could be locked."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_directory(path: str) -> None:
    """Make what was created in a directory durable. Errors: `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Home:
    """The directory for one node. All methods block; errors are `OSError` unless they say otherwise.

    `pause` waits for some seconds.
    """

    def __init__(self, directory: str, node: str, pause: Callable[[float], None] = time.sleep) -> None:
        if not node or not node.replace("-", "").replace("_", "").isalnum() or not node.isascii():
            raise ValueError(f"a node's name has letters, digits, - and _ only: {node!r}")
        self.directory = os.path.abspath(directory)
        self.database = os.path.join(self.directory, "spool.db")
        self.contents = os.path.join(self.directory, "content")
        self.node = node
        self._pause = pause
        self._lock = -1

    def path(self, name: str) -> str:
        """Where the content file of this name is."""
        return os.path.join(self.contents, name)

    def prepare(self, patience: float) -> None:
        """Make what is missing, and lock this node's name; a spool that is there is not touched.

        Who has the name is waited for at most `patience` seconds. Errors: `SpoolInUse`, `SpoolDamaged`,
        `SpoolFailed`.
        """
        _make_directory(self.directory)
        self._take_lock(fcntl.LOCK_EX, patience)
        try:
            _make_directory(self.contents)
            if os.path.lexists(self.database):
                self._examine()
                self._upgrade()
            else:
                self._create()
        except BaseException:
            self.leave()
            raise

    def enter(self) -> None:
        """As `prepare`, of a spool that is there, and nobody is waited for. Errors: the same."""
        self._find()
        self.prepare(0.0)

    def look(self) -> None:
        """Examine a spool that is there and will only be read; nothing in it changes. Errors: as `prepare`.

        The node's name is locked no longer than that: somebody may take any time to read.
        """
        self._find()
        self._take_lock(fcntl.LOCK_SH, 0.0)
        try:
            self._examine()
            if not schema.is_current(self.database):
                what = "its tables are of an older version, and the service upgrades them when it starts"
                raise SpoolFailed(f"{self.database}: {what}")
        finally:
            self.leave()

    def _find(self) -> None:
        if not os.path.lexists(self.database):
            raise SpoolFailed(f"{self.database}: there is none")

    def leave(self) -> None:
        """Let go of the node's name."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self, how: int, patience: float) -> None:
        """Lock the node's name, for others to share (LOCK_SH) or not (LOCK_EX)."""
        path = os.path.join(self.directory, f"{self.node}.lock")
        descriptor = _make_file(path)
        tries = round(patience / PAUSE)
        try:
            while not _locked(descriptor, how):
                if not tries:
                    pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                    raise SpoolInUse(
                        f"{self.directory}: another service uses this spool as node {self.node!r}"
                        f" (pid {pid or 'unknown'})"
                    )
                tries -= 1
                self._pause(PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        if how == fcntl.LOCK_EX:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._lock = descriptor

    def _create(self) -> None:
        """Make the database whole under another name first, so that an empty one always means damage."""
        if os.path.exists(self.database + "-wal"):
            raise SpoolDamaged(f"{self.database}: missing, but its write-ahead log is there")
        if os.listdir(self.contents):
            raise SpoolDamaged(f"{self.database}: missing, but {self.contents} has contents of letters")
        fresh = os.path.join(self.directory, f"{self.node}.new")
        for leftover in (fresh, fresh + "-wal", fresh + "-shm", fresh + "-journal"):
            if os.path.lexists(leftover):
                os.unlink(leftover)
        os.close(_make_file(fresh))
        schema.create(fresh)
        try:
            os.link(fresh, self.database)
        except FileExistsError:
            pass
        os.unlink(fresh)
        sync_directory(self.directory)
        sync_directory(os.path.dirname(self.directory))

    def _examine(self) -> None:
        """Look at a database without changing it. Errors: `SpoolDamaged`."""
        with open(self.database, "rb") as file:
            start = file.read(100)
        if not start:
            raise SpoolDamaged(f"{self.database}: empty, so its letters are lost")
        if start[:16] != _MAGIC:
            raise SpoolDamaged(f"{self.database}: not an SQLite database")
        try:
            connection = apsw.Connection(self.database, flags=apsw.SQLITE_OPEN_READONLY)
            try:
                fault = schema.fault(connection) or self._lost_content(connection)
            finally:
                connection.close()
        except apsw.Error as error:
            fault = str(error)
        if fault is not None:
            raise SpoolDamaged(f"{self.database}: {fault}")

    def _upgrade(self) -> None:
        """Make a spool of an older program one of this program. Errors: `SpoolFailed`."""
        try:
            schema.upgrade(self.database)
        except apsw.Error as error:
            raise SpoolFailed(f"{self.database}: the upgrade to this program failed: {error}") from error

    def _lost_content(self, connection: apsw.Connection) -> str | None:
        """Which content is not as it was stored; None when all are."""
        for letter_id, name, size in connection.execute(
            "SELECT id, file, size FROM letter WHERE file IS NOT NULL"
        ):
            try:
                found = os.lstat(self.path(name)).st_size
            except OSError as error:
                return f"the content of letter {letter_id}: {error}"
            if found != size:
                return f"letter {letter_id}: {self.path(name)} has {found} octets, not {size}"
        for letter_id, checksum, data in connection.execute(
            "SELECT id, checksum, data FROM letter LEFT JOIN content USING (key) WHERE file IS NULL"
        ):
            if data is None or zlib.crc32(data) != checksum:
                return f"the content of letter {letter_id} is not as it was stored"
        return None

    def share(self) -> int:
        """Octets of what is free that the write-ahead log may take. Errors: `OSError`."""
        there = os.statvfs(self.directory)
        return there.f_bavail * there.f_frsize // PLENTY

    def lengthen_log(self, size: int) -> None:
        """Make the write-ahead log at least so long, where its share allows it; for who may write to it.

        SQLite takes no notice of what lies behind the last commit. Commits do without what cannot be had.
        """
        if not size:
            return
        try:
            descriptor = os.open(self.database + "-wal", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            before = os.fstat(descriptor).st_size
            if size - before <= self.share():
                _fill(descriptor, before, size)
        except OSError:
            pass
        finally:
            os.close(descriptor)

    def sweep(self, named: Iterable[str]) -> None:
        """Remove content files of this node that no letter names: drafts that a crash left behind."""
        wanted = set(named)
        with os.scandir(self.contents) as entries:
            for entry in entries:
                if entry.name.startswith(f"{self.node}.") and entry.name not in wanted:
                    os.unlink(entry.path)

    def remove(self, names: Iterable[str]) -> None:
        """Remove content files; one that cannot be removed is left for `sweep`."""
        for name in names:
            try:
                os.unlink(self.path(name))
            except OSError:
                pass
