"""The write-ahead log of the embedded spool: its room, and when it is copied into the database.

Used by the writer thread. Copying takes processor and disk from the commits that go on beside it, so the log
is long enough for a burst of letters, and copied when there is nothing else to do. If it becomes too long
first, a thread of its own copies it, and what was added meanwhile is copied by the writer between two groups:
then all of it is in the database for a moment, and SQLite begins the log anew. Under a load that does not end
it would else grow for ever. It keeps its length on the disk: a commit that overwrites blocks is synced in
a third of the time of one that makes the file longer, where the file system has a journal.

Several connections that write and checkpoint at a time need the SQLite that `schema.too_old` asks for.
"""

from __future__ import annotations

import threading
from contextlib import closing

import apsw

from postoffice.spool.home import Home
from postoffice.spool.schema import BUSY

LENGTH = 128 << 20
"""Octets in the log that call for a checkpoint; fewer where that is more than its share of what is free.
Letters that are gone by then never reach the database."""

ROOM = 33 << 20
"""Octets that the log of a service has from the start.

After an error, or when another node on the same spool ends, it grows to that length by itself.
"""

KEPT = LENGTH + (16 << 20)
"""Octets above which it is shortened when it begins anew."""

REST = 1 << 20
"""Octets that the writer may copy although letters may come: some milliseconds."""

PASSES = 5
"""How often the copier looks for more. SQLite syncs the database in a pass that no commit came into, and what
was not synced by then is left to the writer, for which all wait."""


class WriteAheadLog:
    """The log of the database in `home`, seen from one connection at a time."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._page = 0
        self._pages = 0
        self._copied = 0
        self._copier: threading.Thread | None = None

    @property
    def used(self) -> bool:
        """Whether anything was committed since `forget` or `begin_anew`."""
        return self._pages > 0

    def watch(self, connection: apsw.Connection) -> None:
        """From now on `connection` is the one that writes."""
        # A database keeps the size of pages it was made with.
        self._page = connection.pragma("page_size")
        connection.pragma("journal_size_limit", KEPT)
        connection.set_wal_hook(self._grown)

    def forget(self) -> None:
        """Wait until nobody copies it, and begin to count anew: the connection is about to be closed."""
        copier, self._copier = self._copier, None
        if copier is not None:
            copier.join()
        self._pages = self._copied = 0

    def keep_short(self, connection: apsw.Connection) -> None:
        """Between two commits: have it copied if it is long."""
        if self._copier is None:
            if self._left() > self._longest():
                self._copy_beside(connection)
        elif not self._copier.is_alive():
            self._copier = None
            self._copy_rest(connection)

    def begin_anew(self, connection: apsw.Connection) -> None:
        """With nothing else to do: copy all of it, so that the next commit begins at its start.

        Much is copied by the copier, and the rest at the next call: a letter may come meanwhile.
        """
        if self._copier is None and self._left() > REST:
            self._copy_beside(connection)
        elif self._copier is None or not self._copier.is_alive():
            self.forget()
            _checkpoint(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)

    def empty(self, connection: apsw.Connection) -> None:
        """Copy all of it, and leave an empty file."""
        self.forget()
        _checkpoint(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _grown(self, connection: apsw.Connection, name: str, pages: int) -> int:
        """SQLite says after a commit how long it is."""
        if pages < self._pages:
            self._copied = 0
        self._pages = pages
        return apsw.SQLITE_OK

    def _left(self) -> int:
        """Octets that nobody was told to copy yet."""
        return (self._pages - self._copied) * self._page

    def _longest(self) -> int:
        """Octets that it may have by now: what is free changes while a service runs."""
        try:
            share = self._home.share()
        except OSError:
            share = 0
        return min(LENGTH, max(REST, share))

    def _copy_beside(self, connection: apsw.Connection) -> None:
        """Let the copier begin, or copy it now where there are no more threads to be had."""
        copier = threading.Thread(target=self._copy, name="spool-copier", daemon=True)
        try:
            copier.start()
        except RuntimeError:
            self._copy_rest(connection)
        else:
            self._copier = copier

    def _copy_rest(self, connection: apsw.Connection) -> None:
        """Copy what is in it, with no commit at the same time."""
        self._copied = self._pages
        _checkpoint(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _copy(self) -> None:
        """Copy what is in it by now; in the copier."""
        database = self._home.database
        try:
            with closing(apsw.Connection(database, flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
                connection.pragma("synchronous", "FULL")
                # A connection that has not looked into the database does not know that it has a log.
                connection.pragma("schema_version")
                for _ in range(PASSES):
                    before = self._pages
                    _checkpoint(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)
                    if self._pages == before:
                        break
        except apsw.Error:
            # The writer meets the same trouble, and reports it.
            pass


def _checkpoint(connection: apsw.Connection, mode: int) -> None:
    """Copy the log into the database; what fails is tried again after a later commit."""
    try:
        # Commits may be waiting, so a checkpoint waits for nobody's reading.
        connection.set_busy_timeout(0)
        connection.wal_checkpoint(mode=mode)
    except apsw.Error:
        # Nothing is lost, it is all in the log. A commit will meet the same trouble and report it.
        pass
    connection.set_busy_timeout(BUSY)
