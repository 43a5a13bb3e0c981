"""Header blocks, read as bytes and never written anew.

We only ever put our own lines in front of what a client sent, so nothing here serialises a letter.
A header block is the run of header fields a content begins with; the first line that is neither a
field nor a continuation ends it, with or without the empty line that should stand there (RFC 5322
section 2.1). Content is in the form the server engine yields: CRLF line ends.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from attrs import frozen

from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import legible, printable

# Nothing is tried twice, whatever a stranger sends. Repeated groups are atomic rather than possessive:
# before Python 3.11.5 a possessive one keeps what its last, unfinished round had matched.
_BLOCK = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)")
_NAME = re.compile(rb"^([!-9;-~]++)[ \t]*+:", re.MULTILINE)
_FOLD = re.compile(rb"\r?\n[ \t]+")
_MARKS = re.compile(r'[()<>\\;"]')


@frozen
class Headers:
    """The header block of a content: `block` are its bytes, line ends included, without the empty line.

    `separated` tells whether the empty line follows.
    """

    block: bytes
    separated: bool

    def names(self) -> list[bytes]:
        """The field names in order, lower case, one for each field."""
        return [name.lower() for name in _NAME.findall(self.block)]

    def count(self, name: bytes) -> int:
        """How many fields of that name (any case) there are."""
        return len(_field(name).findall(self.block))

    def values(self, name: bytes) -> list[bytes]:
        """The unfolded values of every field of that name (any case), in order."""
        value = rb"[ \t]*+:([^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))"
        field = re.compile(rb"^" + re.escape(name) + value, re.M | re.I)
        return [_FOLD.sub(b" ", found.rstrip(b"\r\n")).strip() for found in field.findall(self.block)]


@lru_cache(maxsize=32)
def _field(name: bytes) -> re.Pattern[bytes]:
    """What a field of that name (any case) begins with."""
    return re.compile(rb"^" + re.escape(name) + rb"[ \t]*+:", re.M | re.I)


def read_headers(content: bytes, *, final: bool) -> Headers | None:
    """Find the header block at the start of `content`; None while it may still go on.

    `final` says that nothing follows `content`, so that the answer is never None.
    """
    found = _BLOCK.match(content)
    end = found.end() if found else 0
    if content.startswith(b"\r\n", end):
        # A header that ends exactly here could be continued only by a line that begins with a blank.
        return Headers(content[:end], True)
    if final or content.find(b"\n", end) >= 0:
        return Headers(content[:end], False)
    return None


@lru_cache(maxsize=8)
def date(seconds: int) -> str:
    """The time in the form of RFC 5322 section 3.3, in this machine's time zone."""
    return formatdate(seconds, localtime=True)


def _comment(text: str) -> str:
    """Text that can stand inside a comment or as a clause value: no parentheses, quotes or controls."""
    return _MARKS.sub("?", printable(text, 255))


def received(client: Client, host: str, letter_id: str, envelope: Envelope, now: float) -> bytes:
    """The trace field of RFC 5321 section 4.4; `for` only when there is exactly one recipient."""
    recipients, keyword = envelope.recipients, client.keyword
    if envelope.smtputf8 and client.ip:
        # RFC 6531 section 4.3.
        keyword = f"UTF8{keyword.removeprefix('E')}"
    if client.ip:
        literal = f"[IPv6:{client.ip}]" if ":" in client.ip else f"[{client.ip}]"
        name = f"{_comment(client.name)} {literal}" if client.name else literal
        tls = f"(using {client.tls})\r\n\t" if client.tls else ""
        origin = f"from {_comment(client.helo or 'unknown')} ({name})\r\n\t{tls}"
    else:
        origin = f"(from {_comment(client.user or 'unknown')} on this machine)\r\n\t"
    clause = f"\r\n\tfor <{legible(str(recipients[0]), 320)}>" if len(recipients) == 1 else ""
    return (
        f"Received: {origin}by {host} (Postoffice) with {keyword} id {letter_id}{clause};\r\n"
        f"\t{date(int(now))}\r\n"
    ).encode("utf-8", "replace")
