"""The tables of the embedded spool, and which rows stand for which state of a letter.

Used by the writer (`store`) and by the reader. Every record carries the version of its layout;
`PRAGMA application_id` says that a file is ours, `PRAGMA user_version` which set of tables it holds.

State of a letter       rows
---------------------   ---------------------------------------------------------------------------
coming in               none: content in memory, or in a file that no row names (swept at the start)
small, stored           letter (file NULL), content, at least one recipient
large, stored           letter (file = its name in content/, synced before the row), recipients
set aside               as stored, held = 1 in letter and in each of its recipients, held_for says why
gone                    none; a file that no row names may be left by a crash until the next start

State of a recipient    token   node    ready            in the index `ready`
---------------------   -----   -----   --------------   -----------------------------------------
waiting                 NULL    NULL    = due            unless held
claimed, lease live     set     set     end of lease     unless held; claimable from `ready` on
claim lapsed            set     set     end of lease     the same row, read after `ready`: waiting
settled                 no row; the letter goes with the last one

`ready` is the one time at which anybody may take a recipient next, so that waiting ones and lapsed
claims are found by one index. The key of a recipient is that of its letter times 2**20 plus its
place: the recipients of a letter are one range of the table and need no second index.

A letter has at most `ATTEMPTS` rows in attempt, the latest. Where recipients were expanded, `copy` names
whatever the letter was or will be delivered to, so that nobody gets it twice; it goes with the letter.

A spool of an older program is upgraded when it is opened. Columns are only ever added, at the end and with a
default that says of a row what the older program meant, so rows stay as they are and keep their version.
"""

from __future__ import annotations

import apsw

APPLICATION = 0x506F7374
TABLES = 4
RECORD = 4
PAGE = 16 * 1024
PLACES = 20
ATTEMPTS = 50
OLDEST_SQLITE = 3051003
BUSY = 10_000
"""Milliseconds to wait for another process that writes (a tool, another node)."""

_COPY = """
CREATE TABLE copy (
    letter INTEGER NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (letter, name)
) STRICT, WITHOUT ROWID;
"""

_CREATE = f"""
CREATE TABLE letter (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,
    sender_local TEXT, sender_domain TEXT, body TEXT NOT NULL, size INTEGER NOT NULL,
    received REAL NOT NULL, client TEXT NOT NULL, held INTEGER NOT NULL, file TEXT,
    smtputf8 INTEGER NOT NULL DEFAULT 0, ret TEXT NOT NULL DEFAULT '', envid TEXT NOT NULL DEFAULT '',
    folder TEXT NOT NULL DEFAULT '', held_for TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE content (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE TABLE recipient (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, local TEXT NOT NULL, domain TEXT NOT NULL,
    due REAL NOT NULL, attempts INTEGER NOT NULL, last TEXT NOT NULL, held INTEGER NOT NULL,
    ready REAL NOT NULL, node INTEGER, token INTEGER,
    notify TEXT NOT NULL DEFAULT '', orcpt TEXT NOT NULL DEFAULT '',
    fixed TEXT NOT NULL DEFAULT '', path TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX ready ON recipient (ready) WHERE held = 0;
CREATE TABLE attempt (
    letter INTEGER NOT NULL, number INTEGER NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL,
    local TEXT NOT NULL, domain TEXT NOT NULL, reply TEXT NOT NULL, PRIMARY KEY (letter, number)
) STRICT, WITHOUT ROWID;
{_COPY}
CREATE TABLE node (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL UNIQUE, incarnation INTEGER NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {TABLES};
"""

_UPGRADES = {
    1: """
ALTER TABLE letter ADD COLUMN smtputf8 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE letter ADD COLUMN ret TEXT NOT NULL DEFAULT '';
ALTER TABLE letter ADD COLUMN envid TEXT NOT NULL DEFAULT '';
ALTER TABLE letter ADD COLUMN folder TEXT NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN notify TEXT NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN orcpt TEXT NOT NULL DEFAULT '';
""",
    2: f"""
ALTER TABLE recipient ADD COLUMN fixed TEXT NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN path TEXT NOT NULL DEFAULT '';
{_COPY}
""",
    3: "ALTER TABLE letter ADD COLUMN held_for TEXT NOT NULL DEFAULT '';",
}
"""What makes tables of each older version those of the next."""


def span(letter: int) -> tuple[int, int]:
    """The first and last key that recipients of a letter can have."""
    return letter << PLACES, ((letter + 1) << PLACES) - 1


def create(path: str) -> None:
    """Make an empty spool in an existing empty file and leave it synced and closed. Errors: `apsw.Error`."""
    connection = apsw.Connection(path)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE}").close()
        connection.execute("PRAGMA synchronous = FULL").close()
        connection.execute(f"BEGIN; {_CREATE} COMMIT").close()
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        connection.close()


def upgrade(path: str) -> None:
    """Bring a sound database up to the tables of this program, all or nothing. Errors: `apsw.Error`."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY)
        connection.execute("PRAGMA synchronous = FULL").close()
        if connection.pragma("user_version") != TABLES:
            # Looked at again behind the lock, so that two nodes that start together do it once.
            connection.execute("BEGIN IMMEDIATE").close()
            while (tables := connection.pragma("user_version")) != TABLES:
                connection.execute(f"{_UPGRADES[tables]} PRAGMA user_version = {tables + 1}").close()
            connection.execute("COMMIT").close()
    finally:
        connection.close()


def is_current(path: str) -> bool:
    """Whether a sound database has the tables of this program. Errors: `apsw.Error`."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return bool(connection.pragma("user_version") == TABLES)
    finally:
        connection.close()


def fault(connection: apsw.Connection) -> str | None:
    """What is wrong with an open database, as SQLite or we say it; None when it can be trusted."""
    try:
        application = connection.pragma("application_id")
        tables = connection.pragma("user_version")
        if application != APPLICATION:
            return f"it is the database of another program (application_id {application:#x})"
        if tables != TABLES and tables not in _UPGRADES:
            age = "newer" if tables > TABLES else "older"
            return f"its tables are of a {age} version ({tables}; this program knows {TABLES})"
        answer = connection.execute("PRAGMA quick_check(3)").fetchall()
    except apsw.Error as error:
        return str(error)
    lines = [str(row[0]) for row in answer]
    return None if lines == ["ok"] else "; ".join(lines)


def too_old(version: int) -> str | None:
    """Why a version of SQLite (as in `SQLITE_VERSION_NUMBER`) must not be used, None when it may.

    Before 3.51.3 two connections that write and checkpoint at the same moment can reset the
    write-ahead log under a commit and lose it: an acknowledged letter would be gone.
    """
    if version >= OLDEST_SQLITE:
        return None
    have = f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"
    return f"SQLite {have} can lose commits (WAL reset); 3.51.3 or newer is needed: install a newer apsw"
