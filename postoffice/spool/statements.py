"""The statements of the transactions, as constant texts so that SQLite prepares each once.

Statements that many letters need come in several lengths, for 1 to 8, 16 and 32 rows; `portions` cuts rows
to fit. A statement that was prepared keeps what it was last carried out with, so there are no more of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from postoffice.mail.address import Address
from postoffice.mail.destination import read_fixed
from postoffice.mail.envelope import Letter, Recipient
from postoffice.spool import shortcuts
from postoffice.spool.schema import RECORD

T = TypeVar("T")
Row = tuple[Any, ...]

STEPS = (32, 16, *range(8, 0, -1))

LETTER_FIELDS = "id, sender_local, sender_domain, body, size, received, client, smtputf8, ret, envid, folder"
LETTER_WIDTH = LETTER_FIELDS.count(",") + 1
RECIPIENT_FIELDS = "key, local, domain, due, attempts, last, notify, orcpt, fixed, path"


def texts(head: str, row: str, steps: Sequence[int] = STEPS) -> dict[int, str]:
    """A statement in its lengths, by the number of rows, longest first."""
    return {count: head + ", ".join([row] * count) for count in steps}


LETTER = texts("INSERT INTO letter VALUES ", f"(?, {RECORD}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
CONTENT = texts("INSERT INTO content VALUES ", f"(?, {RECORD}, ?, ?)", steps=(1,))
RECIPIENT = texts("INSERT INTO recipient VALUES ", f"(?, {RECORD}, ?, ?, ?, 0, '', ?, ?, ?, ?, ?, ?, '', '')")
EXPANDED = texts("INSERT INTO recipient VALUES ", f"(?, {RECORD}, ?, ?, ?, 0, '', ?, ?, ?, ?, ?, ?, ?, ?)")
COPY = texts("INSERT OR IGNORE INTO copy VALUES ", f"(?, {RECORD}, ?)")
STORED = texts("INSERT INTO stored VALUES ", f"({', '.join('?' * len(shortcuts.STORED))})")
SERVED = texts("INSERT INTO served VALUES ", "(?, ?)")
SETTLED = "DELETE FROM recipient WHERE key = ? AND token = ?"
EMPTY = f"DELETE FROM letter WHERE key = ? AND {shortcuts.NOBODY_LEFT}"
POSTPONE = (
    "UPDATE recipient SET due = ?1, ready = ?1, attempts = attempts + ?2, last = coalesce(?3, last),"
    " node = NULL, token = NULL WHERE key = ?4 AND token = ?5 RETURNING local, domain"
)
DUE = "SELECT key FROM recipient WHERE held = 0 AND ready <= ? ORDER BY ready"
TAKE = (
    "UPDATE recipient SET ready = ?, node = ?, token = ? WHERE key BETWEEN ? AND ? AND held = 0"
    f" AND ready <= ? RETURNING {RECIPIENT_FIELDS}"
)
READ = f"SELECT {LETTER_FIELDS}, file, data FROM letter LEFT JOIN content USING (key) WHERE key = ?"


def letter_of(row: Row) -> Letter:
    """The letter whose `LETTER_FIELDS` a row begins with."""
    letter_id, local, domain, body, size, received, client, smtputf8, ret, envid, folder = row[:LETTER_WIDTH]
    sender = None if local is None else Address(local, domain)
    return Letter(letter_id, sender, body, size, received, client, bool(smtputf8), ret, envid, folder)


def recipient_of(row: Row) -> Recipient:
    """The recipient whose `RECIPIENT_FIELDS` a row is."""
    key, local, domain, due, attempts, last, notify, orcpt, fixed, way = row
    address = Address(local, domain)
    if not fixed and not way:
        return Recipient(key, address, due, attempts, last, notify, orcpt)
    return Recipient(key, address, due, attempts, last, notify, orcpt, read_fixed(fixed), read_way(way))


def way_text(path: Sequence[Address]) -> str:
    """The addresses by which a recipient was found, in the form the spool keeps them."""
    return json.dumps([[address.local, address.domain] for address in path]) if path else ""


def read_way(text: str) -> tuple[Address, ...]:
    """What `way_text` wrote."""
    return tuple(Address(local, domain) for local, domain in json.loads(text)) if text else ()


def portions(rows: Sequence[T], lengths: Iterable[int]) -> Iterator[tuple[int, Sequence[T]]]:
    """Cut rows into portions for which there are statements of these lengths, longest first."""
    start, left = 0, len(rows)
    for step in lengths:
        while left >= step:
            yield step, rows[start : start + step]
            start += step
            left -= step
