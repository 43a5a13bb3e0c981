"""The greylist's table in the policy database, and how it is kept in bounds.

Used by `postoffice.policy.greylist_store` alone, in its thread; all methods block. The row of a record is
found by a hash of its key, so that a look-up reads a handful of pages however many there are; the key
stands in it, readable. Rows lie in the order in which they came, so that those that come lie together, and
those that go. Triggers count the records of each rank.

    rank    record
    0       never passed: the first to go
    1       passed
    2       made by an operator: stays

Who is let in is worth no loss of a disk's time: `synchronous=NORMAL`, a crash loses the last commits. A
database that is damaged, or of another program or version, is moved to `….damaged`, in the place of an
earlier one, and a new one is made: the greylist begins anew.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any

import apsw

from postoffice.mail.greylist import Bounds, Record

APPLICATION = 0x506F506F
TABLES = 2
RECORD = 1
PORTION = 500
WAITING, PASSED, KEPT = range(3)

Changes = Mapping[str, tuple[Record | None, str]]
"""By key: the record, or None for what goes, and its network."""

_AT_ONCE = 5000
"""Records changed by one transaction, which bounds the write-ahead log."""

_LOG_LIMIT = 16 << 20
_BUSY = 5000
_SPARE_PAGES = 1000
_GIVEN_BACK = 500

_CREATE = f"""
CREATE TABLE record (
    place INTEGER PRIMARY KEY, version INTEGER NOT NULL, hash INTEGER NOT NULL UNIQUE, key TEXT NOT NULL,
    network INTEGER, accepted INTEGER, seen INTEGER NOT NULL, rank INTEGER NOT NULL
) STRICT;
CREATE INDEX age ON record (rank, seen);
CREATE INDEX share ON record (network, rank, seen) WHERE network IS NOT NULL;
CREATE TABLE number (rank INTEGER PRIMARY KEY, records INTEGER NOT NULL) STRICT;
INSERT INTO number VALUES ({WAITING}, 0), ({PASSED}, 0), ({KEPT}, 0);
CREATE TRIGGER come AFTER INSERT ON record BEGIN
    UPDATE number SET records = records + 1 WHERE rank = new.rank;
END;
CREATE TRIGGER gone AFTER DELETE ON record BEGIN
    UPDATE number SET records = records - 1 WHERE rank = old.rank;
END;
CREATE TRIGGER changed AFTER UPDATE OF rank ON record WHEN new.rank <> old.rank BEGIN
    UPDATE number SET records = records + (rank = new.rank) - (rank = old.rank)
    WHERE rank IN (new.rank, old.rank);
END;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {TABLES};
"""

_PUT = f"""
INSERT INTO record (version, hash, key, network, accepted, seen, rank) VALUES ({RECORD}, ?, ?, ?, ?, ?, ?)
ON CONFLICT (hash) DO UPDATE SET
    key = excluded.key, accepted = excluded.accepted, seen = excluded.seen, rank = excluded.rank
"""
_GET = "SELECT key, accepted, seen, rank FROM record WHERE hash = ?"
_PAGE = f"SELECT place, key, accepted, seen, rank FROM record WHERE place > ? ORDER BY place LIMIT {PORTION}"
_NUMBERS = "SELECT rank, records FROM number"
# No more are counted than make a difference.
_NUMBER_OF_SHARE = """
SELECT count(*) FROM (SELECT 1 FROM record INDEXED BY share WHERE network = ? AND rank = ? LIMIT ?)
"""


class Damaged(Exception):
    """The database cannot be trusted."""


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def _network(network: str) -> int | None:
    """A network in the table: a short hash. Two of one hash share a share."""
    return zlib.crc32(network.encode()) if network else None


def look_up(connection: apsw.Connection, key: str) -> Record | None:
    """The record under a key. Errors: `apsw.Error`."""
    rows: list[Any] = connection.execute(_GET, (_hash(key),)).fetchall()
    # Two keys may have one hash, once in a very long time.
    return _record(*rows[0][1:]) if rows and rows[0][0] == key else None


class Table:
    """The table in the database at `path`. Errors of every method: `apsw.Error`, `OSError`.

    `trouble` is what was wrong with a database that was set aside, for whoever asks next.
    `opened` counts how often a database was opened: other connections to an earlier one are of no use.
    """

    def __init__(self, path: str, bounds: Bounds) -> None:
        self.path = path
        self.opened = 0
        self.trouble = ""
        self.bounds = bounds
        self._connection: apsw.Connection | None = None

    def open(self) -> None:
        """Open the database, a new one if there is none or it is damaged."""
        self._ready()

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)

    def mend(self) -> None:
        """After an error: look at the database closely, and open it again."""
        self.close()
        try:
            connection = self._connect()
            answer = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
            if answer != ["ok"]:
                raise Damaged("; ".join(answer))
        except (Damaged, apsw.CorruptError, apsw.NotADBError) as error:
            self._begin_anew(error)

    def write(self, changes: Changes, now: int) -> None:
        """Make changes, and let go what must go."""
        try:
            self._write(changes, now)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._begin_anew(error)
            self._write(changes, now)

    def page(self, after: int) -> list[tuple[int, str, Record]]:
        """Records behind the place `after`, a portion in the order in which they came, with their places."""
        rows: list[Any] = self._ready().execute(_PAGE, (after,)).fetchall()
        return [(place, key, _record(*columns)) for place, key, *columns in rows]

    # The database.

    def _ready(self) -> apsw.Connection:
        if self._connection is None:
            try:
                self._connect()
            except (Damaged, apsw.CorruptError, apsw.NotADBError) as error:
                self._begin_anew(error)
        assert self._connection is not None
        return self._connection

    def _connect(self) -> apsw.Connection:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        empty = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(_BUSY)
            if empty:
                connection.pragma("auto_vacuum", "INCREMENTAL")
                connection.pragma("journal_mode", "WAL")
                connection.execute(f"BEGIN; {_CREATE} COMMIT").close()
            marks = connection.pragma("application_id"), connection.pragma("user_version")
            if marks != (APPLICATION, TABLES):
                raise Damaged(f"it is of another program or version (marks {marks[0]:#x}, {marks[1]})")
            connection.pragma("synchronous", "NORMAL")
            connection.pragma("temp_store", "MEMORY")
            connection.pragma("cache_size", -8192)
            connection.pragma("journal_size_limit", _LOG_LIMIT)
        except BaseException:
            connection.close(True)
            raise
        self._connection = connection
        self.opened += 1
        return connection

    def _begin_anew(self, error: Exception) -> None:
        """Set the database aside, and make a new one."""
        self.close()
        aside = self.path + ".damaged"
        self.trouble = f"{self.path}: {error}; it was moved to {aside}, and the greylist begins anew"
        for end in ("-wal", "-shm"):
            if os.path.lexists(self.path + end):
                os.unlink(self.path + end)
        os.replace(self.path, aside)
        self._connect()

    # Changes.

    def _write(self, changes: Changes, now: int) -> None:
        connection = self._ready()
        rest = iter(changes.items())
        while True:
            part = dict(islice(rest, _AT_ONCE))
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._change(connection, part)
                self._bound(connection, {network for _, network in part.values()}, now)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if len(part) < _AT_ONCE:
                break
        if connection.pragma("freelist_count") > _SPARE_PAGES:
            connection.execute(f"PRAGMA incremental_vacuum({_GIVEN_BACK})").fetchall()

    def _change(self, connection: apsw.Connection, changes: Changes) -> None:
        connection.executemany(
            _PUT,
            (
                (_hash(key), key, _network(network), record.accepted, record.seen, _rank(record))
                for key, (record, network) in changes.items()
                if record is not None
            ),
        )
        connection.executemany(
            "DELETE FROM record WHERE hash = ? AND key = ?",
            ((_hash(key), key) for key, (record, _) in changes.items() if record is None),
        )

    def _bound(self, connection: apsw.Connection, networks: Iterable[str], now: int) -> None:
        bounds = self.bounds
        if bounds.keep:
            for rank in (WAITING, PASSED):
                connection.execute(
                    "DELETE FROM record WHERE place IN"
                    f" (SELECT place FROM record WHERE rank = ? AND seen < ? LIMIT {_AT_ONCE})",
                    (rank, now - bounds.keep),
                )
        for network in map(_network, networks) if bounds.share else ():
            if network is not None:
                numbers = {rank: self._number(connection, network, rank) for rank in (WAITING, PASSED)}
                for rank, excess in _excess(numbers, bounds.share):
                    connection.execute(
                        "DELETE FROM record WHERE place IN (SELECT place FROM record INDEXED BY share"
                        " WHERE network = ? AND rank = ? ORDER BY seen LIMIT ?)",
                        (network, rank, excess),
                    )
        rows: list[Any] = connection.execute(_NUMBERS).fetchall()
        for rank, excess in _excess(dict(rows), bounds.most) if bounds.most else ():
            connection.execute(
                "DELETE FROM record WHERE place IN"
                " (SELECT place FROM record INDEXED BY age WHERE rank = ? ORDER BY seen LIMIT ?)",
                (rank, excess),
            )

    def _number(self, connection: apsw.Connection, network: int, rank: int) -> int:
        most = self.bounds.share + _AT_ONCE
        rows: list[Any] = connection.execute(_NUMBER_OF_SHARE, (network, rank, most)).fetchall()
        number: int = rows[0][0]
        return number


def _excess(numbers: Mapping[int, int], limit: int) -> list[tuple[int, int]]:
    """How many of each rank must go.

    A quarter of the room is for those that wait: else, with the room full of those that passed, nobody new
    would be remembered, and nobody new could pass.
    """
    waiting, passed = numbers[WAITING], numbers[PASSED]
    excess = waiting + passed - limit
    if excess <= 0:
        return []
    first = min(excess, max(0, waiting - limit // 4))
    return [(WAITING, first), (PASSED, excess - first)]


def _rank(record: Record) -> int:
    return KEPT if record.kept else PASSED if record.passed else WAITING


def _record(accepted: int | None, seen: int, rank: int) -> Record:
    return Record(accepted, seen, rank == KEPT)
