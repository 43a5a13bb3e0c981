"""The one thread that changes the database, committing in groups.

Whatever is handed in while a commit is being synced is done by the next transaction, so that fifty
sessions pay for one sync; what comes alone waits for nothing. One call into the reactor answers a
whole group, and only after COMMIT returned, which with `synchronous=FULL` is after the sync.

An error of SQLite or the disk fails the whole group: nothing of it is acknowledged, the connection
is closed, and the database is checked and opened again before the next group. If a COMMIT failed
half-way the letters of its group are taken back then, so that a refused letter does not turn up.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import apsw

from postoffice.interfaces import SpoolFailed, SpoolFull
from postoffice.spool import schema
from postoffice.spool.content import trouble
from postoffice.spool.home import Home, sync_directory
from postoffice.spool.store import Place, Store
from postoffice.spool.wal import WriteAheadLog
from postoffice.spool.work import Insert, Work
from postoffice.spool.workers import Clockwork

GROUP = 256
"""Things in a transaction from which on it takes no more: bounds how long the last waits for the first, to
twice as many."""

IDLE = 1.0
"""Seconds without work after which the write-ahead log is copied and begun anew."""

CACHE = 4 * 1024
"""KiB of database pages kept in memory."""


class Writer:
    """The thread. `discard` is called in it with the names of content files that may be removed."""

    def __init__(
        self, reactor: Clockwork, home: Home, place: Place, discard: Callable[[list[str]], None]
    ) -> None:
        self._reactor = reactor
        self._home = home
        self._place = place
        self._discard = discard
        self._queue: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._kept: list[Work] = []
        self._thread: threading.Thread | None = None
        self._connection: apsw.Connection | None = None
        self._store: Store | None = None
        self._node = 0
        self._log = WriteAheadLog(home)
        self._taken_back: list[Insert] = []
        self._damage: str | None = None

    def open(self, room: int) -> None:
        """Open the database and recover; called in a thread, before `start`. Errors: `SpoolFailed`.

        The write-ahead log gets so many octets of room.
        """
        try:
            self._connect()
            self._recover(room)
        except (apsw.Error, OSError) as error:
            meaning = self._meaning(error)
            self._disconnect()
            raise meaning from error

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def put(self, work: Work) -> None:
        """Hand something in; in the reactor. What comes in one turn of the reactor goes together."""
        if not self._kept:
            self._reactor.callLater(0, self.flush)
        self._kept.append(work)

    def flush(self) -> None:
        """Begin with what was handed in; in the reactor."""
        kept, self._kept = self._kept, []
        for begin in range(0, len(kept), GROUP):
            self._queue.put(kept[begin : begin + GROUP])

    def stop(self) -> None:
        """Finish what was flushed, close the database and end the thread; waits for it."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    # The rest runs in the thread.

    def _run(self) -> None:
        ending = False
        while not ending:
            try:
                first = self._queue.get(timeout=IDLE if self._log.used else None)
            except Empty:
                if self._connection is not None:
                    self._log.begin_anew(self._connection)
                continue
            ending = first is None
            group = first or []
            while not self._queue.empty() and len(group) < GROUP and not ending:
                more = self._queue.get()
                ending = more is None
                group += more or []
            if group:
                self._do(group)
        if self._connection is not None:
            self._log.empty(self._connection)
        self._disconnect()

    def _do(self, group: list[Work]) -> None:
        """Do a group, answer it, and clear up behind it."""
        try:
            store = self._ready()
            if any(isinstance(work, Insert) and work.file is not None for work in group):
                sync_directory(self._home.contents)
            self._commit(store, group)
            unused, store.unused = store.unused, []
            unused += [work.file for work in group if isinstance(work, Insert) and work.file and work.error]
        except Exception as error:
            self._failed(group, error)
            unused = []
        self._reactor.callFromThread(_answer, group)
        if unused:
            self._discard(unused)
        if self._connection is not None:
            self._log.keep_short(self._connection)

    def _commit(self, store: Store, group: list[Work]) -> None:
        several = not store.is_one_statement(group)
        if several:
            store.execute("BEGIN IMMEDIATE")
        try:
            store.apply(group)
        except Exception as error:
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
                raise
            # One of them cannot be done: find out which, and do the others.
            if several:
                store.execute("ROLLBACK")
            store.unused = []
            several = True
            store.execute("BEGIN IMMEDIATE")
            store.apply_apart(group)
        if several:
            store.execute("COMMIT")

    def _failed(self, group: list[Work], error: Exception) -> None:
        """Acknowledge nothing of a group, and have its letters taken back."""
        meaning = self._meaning(error)
        self._disconnect()
        self._taken_back += [work for work in group if isinstance(work, Insert)]
        for work in group:
            work.value = None
            work.error = work.error or meaning
        try:
            self._ready(check=not isinstance(meaning, SpoolFull))
        except Exception:
            # The next group tries again, and is told what it meets.
            self._disconnect()

    def _meaning(self, error: Exception) -> SpoolFull | SpoolFailed:
        if isinstance(error, apsw.Error):
            number = self._connection.system_errno if self._connection is not None else 0
            if isinstance(error, apsw.FullError) or (
                isinstance(error, apsw.IOError | apsw.CantOpenError)
                and number in (errno.ENOSPC, errno.EDQUOT)
            ):
                return SpoolFull(f"{self._home.database}: {error}")
            return SpoolFailed(f"{self._home.database}: {error}")
        return trouble(error)

    def _ready(self, check: bool = True) -> Store:
        """The store, opened again where an error closed it."""
        if self._damage is not None:
            raise SpoolFailed(self._damage)
        if self._connection is None:
            connection = self._connect()
            fault = schema.fault(connection) if check else None
            if fault is not None:
                self._damage = f"{self._home.database}: {fault}"
                raise SpoolFailed(self._damage)
        assert self._store is not None
        if self._taken_back:
            self._store.execute("BEGIN IMMEDIATE")
            self._store.take_back(work.stored for work in self._taken_back if work.stored is not None)
            self._store.execute("COMMIT")
            unused, self._store.unused = self._store.unused, []
            unused += [work.file for work in self._taken_back if work.file is not None]
            self._taken_back = []
            self._discard(unused)
        return self._store

    def _connect(self) -> apsw.Connection:
        self._connection = connection = apsw.Connection(
            self._home.database, flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=128
        )
        connection.set_busy_timeout(schema.BUSY)
        # A copy that somebody made of a spool may have lost its mode.
        connection.pragma("journal_mode", "WAL")
        connection.pragma("synchronous", "FULL")
        connection.pragma("mmap_size", 0)
        connection.pragma("cache_size", -CACHE)
        connection.pragma("temp_store", "MEMORY")
        self._log.watch(connection)
        self._store = Store(connection, self._place, self._node)
        return connection

    def _disconnect(self) -> None:
        self._log.forget()
        connection, self._connection, self._store = self._connection, None, None
        if connection is not None:
            try:
                connection.close(True)
            except apsw.Error:
                # It is forgotten anyway; what it did not say before it cannot acknowledge now.
                pass

    def _recover(self, room: int) -> None:
        """Begin a new incarnation of this node: its old claims are void, its old drafts are removed."""
        assert self._store is not None
        execute = self._store.execute
        execute("BEGIN IMMEDIATE")
        self._home.lengthen_log(room)
        ((self._node,),) = execute(
            f"INSERT INTO node (version, name, incarnation) VALUES ({schema.RECORD}, ?, 1)"
            " ON CONFLICT (name) DO UPDATE SET incarnation = incarnation + 1 RETURNING key",
            (self._home.node,),
        )
        execute("UPDATE recipient SET node = NULL, token = NULL, ready = due WHERE node = ?", (self._node,))
        execute("COMMIT")
        self._home.sweep(row[0] for row in execute("SELECT file FROM letter WHERE file IS NOT NULL"))
        self._store.node = self._node


def _answer(group: list[Work]) -> None:
    for work in group:
        work.answer()
