"""Listings and contents, read beside the writer on a connection that cannot write.

Every method blocks and is called in a worker thread. What may be long is read in portions of
`PORTION` letters, each a short read transaction of its own: a letter is seen with all its
recipients or not at all, and no listing keeps the write-ahead log from being emptied.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import apsw

from postoffice.mail.address import Address
from postoffice.mail.envelope import Entry
from postoffice.spool.content import FileContent, HeldContent
from postoffice.spool.schema import PLACES
from postoffice.spool.statements import LETTER_FIELDS, LETTER_WIDTH, RECIPIENT_FIELDS, letter_of, recipient_of

PORTION = 500


def _of(table: str, fields: str) -> str:
    return ", ".join(f"{table}.{field}" for field in fields.split(", "))


_ENTRIES = f"""
SELECT l.key, {_of("l", LETTER_FIELDS)}, l.held, l.held_for, r.token IS NOT NULL AND r.ready > ?,
       {_of("r", RECIPIENT_FIELDS)}
FROM (SELECT * FROM letter WHERE key > ? ORDER BY key LIMIT {PORTION}) AS l
JOIN recipient AS r ON r.key BETWEEN l.key << {PLACES} AND ((l.key + 1) << {PLACES}) - 1
ORDER BY r.key
"""


class Reader:
    """Reads the database at `path`; `file` makes the content that is in a file."""

    def __init__(self, path: str, file: Callable[[str, int], FileContent]) -> None:
        self._path = path
        self._file = file
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None

    def close(self) -> None:
        """Close the connection; the next question would open it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _rows(self, text: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._connection is None:
                self._connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READONLY)
                self._connection.set_busy_timeout(10_000)
                self._connection.pragma("cache_size", -1024)
            return list(self._connection.execute(text, arguments))

    def entries(self, now: float) -> list[Entry]:
        """Every letter, oldest first; `now` decides which claims are live."""
        found: list[Entry] = []
        after = -1
        while rows := self._rows(_ENTRIES, (now, after)):
            start = 0
            for end in range(1, len(rows) + 1):
                if end == len(rows) or rows[end][0] != rows[start][0]:
                    found.append(_entry(rows[start:end]))
                    start = end
            after = rows[-1][0]
        found.sort(key=lambda entry: entry.letter.received)
        return found

    def content(self, letter_id: str) -> HeldContent | FileContent | None:
        """The content of a letter; a small one is read at once."""
        for file, size, data in self._rows(
            "SELECT file, size, data FROM letter LEFT JOIN content USING (key) WHERE id = ?", (letter_id,)
        ):
            return HeldContent(data) if file is None else self._file(file, size)
        return None

    def attempts(self, letter_id: str) -> list[tuple[float, Address, str]]:
        """The attempts kept with a letter, oldest first."""
        rows = self._rows(
            "SELECT at, local, domain, reply FROM attempt"
            " WHERE letter = (SELECT key FROM letter WHERE id = ?) ORDER BY number",
            (letter_id,),
        )
        return [(at, Address(local, domain), reply) for at, local, domain, reply in rows]


def _entry(rows: list[tuple[Any, ...]]) -> Entry:
    """An entry from the rows of one letter, one for each recipient."""
    held = 1 + LETTER_WIDTH
    return Entry(
        letter_of(rows[0][1:held]),
        tuple(recipient_of(row[held + 3 :]) for row in rows),
        bool(rows[0][held]),
        any(row[held + 2] for row in rows),
        rows[0][held + 1],
    )
