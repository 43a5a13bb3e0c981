"""Small questions about a letter that is among filters, and the marks that it gets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from zope.interface import implementer

from postoffice.interfaces import Draught, IContent
from postoffice.mail.reply import Reply, printable
from postoffice.milter.edits import Field, Hold

PIECE = 256 * 1024

_BLANKS = re.compile(rb"\s+")
_path = re.compile(rb"(?:FROM|TO):[ \t]*", re.IGNORECASE).search


@implementer(IContent)
class Replaced:
    """A body that a filter gave."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.held: bytes | None = data

    async def pieces(self) -> AsyncIterator[bytes]:
        data = self.held or b""
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]


def octets_of(draught: Draught) -> int:
    """How long the letter would be as it is."""
    return sum(len(bytes(field)) for field in draught.fields) + 2 + draught.body.size


def message_id(fields: Sequence[Field]) -> str:
    """The Message-ID, with its angle brackets; empty where there is none."""
    for field in fields:
        if field.name.lower() == b"message-id":
            return _BLANKS.sub(b" ", field.value).strip().decode("utf-8", "replace")
    return ""


def mark_of(reply: Reply) -> str:
    """What a filter said against a letter, on one line."""
    return printable(" ".join(reply.text.split()))


def hold_reason(hold: Hold, name: str) -> str:
    """Why a filter wants a letter set aside, and which does, on one line."""
    reason = printable(hold.reason.decode("utf-8", "replace")).strip()
    return f"{reason} (filter {name})" if reason else f"held by filter {name}"


def with_marks(fields: Sequence[Field], marks: Sequence[str]) -> tuple[Field, ...]:
    """The fields with X-Spam for each mark below our trace field, in front of any it came with."""
    marked = [Field(b"X-Spam", b"", b" " + mark.encode("ascii", "replace")) for mark in marks]
    at = next((place + 1 for place, field in enumerate(fields) if field.hidden), 0)
    return (*fields[:at], *marked, *fields[at:])


def arguments_of(line: bytes) -> list[bytes]:
    """The path of a MAIL or RCPT command, in its angle brackets, and its parameters, as they were written."""
    found = _path(line)
    rest = line[found.end() :].strip() if found else line.strip()
    end = _end_of_path(rest)
    written, parameters = rest[:end], rest[end:].split()
    return [written if written.startswith(b"<") else b"<%b>" % written, *parameters]


def _end_of_path(text: bytes) -> int:
    """Where a path ends: at its bracket, or where it has none at a blank, but for those inside of quotes."""
    closes, quoted, place = text.startswith(b"<"), False, 0
    while place < len(text):
        sign = text[place : place + 1]
        if sign == b"\\" and quoted:
            place += 1
        elif sign == b'"':
            quoted = not quoted
        elif sign == b">" and closes and not quoted:
            return place + 1
        elif sign == b" " and not closes and not quoted:
            return place
        place += 1
    return len(text)
