"""What final delivery puts in front of a letter, and how it finds loops by it.

`Return-Path:` and a `Delivered-To:` for each recipient go in front (RFC 5321 section 4.4); a letter that
already carries our `Delivered-To:` for a recipient is looping (section 6.3).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from postoffice.interfaces import IContent, SpoolFailed
from postoffice.mail.address import Address, path
from postoffice.mail.envelope import Recipient
from postoffice.mail.header import read_headers
from postoffice.mail.outcome import Failed, Outcome, Postponed
from postoffice.mail.reply import Reply, legible, printable

HEADER_LIMIT = 1 << 20

Pieces = AsyncIterator[bytes]


@frozen
class Prepared:
    """A letter for `recipients`: it begins with `begin`, and goes on with `rest` where that is not None.

    `settled` are the outcomes of the other recipients.
    """

    begin: bytes
    rest: Pieces | None
    recipients: Sequence[Recipient]
    settled: dict[int, Outcome]


async def prepare(sender: Address | None, content: IContent, recipients: Sequence[Recipient]) -> Prepared:
    """The letter as these recipients get it."""
    first, rest = content.held, None
    if first is None:
        rest = content.pieces()
        try:
            first = await _beginning(rest)
        except SpoolFailed as error:
            return Prepared(
                b"", None, (), dict.fromkeys((recipient.key for recipient in recipients), unread(error))
            )
    seen = _delivered_to(first)
    settled: dict[int, Outcome] = {}
    if seen:
        looping = [recipient for recipient in recipients if _key(recipient.address) in seen]
        settled = {recipient.key: _loop(recipient.address) for recipient in looping}
        recipients = [recipient for recipient in recipients if recipient.key not in settled]
    return Prepared(
        _trace(sender, [recipient.address for recipient in recipients]) + first, rest, recipients, settled
    )


def unread(error: SpoolFailed) -> Outcome:
    """The outcome where the spool does not give the letter."""
    return Postponed(Reply(451, (3, 0), f"the letter cannot be read: {printable(str(error))}"))


async def _beginning(pieces: Pieces) -> bytes:
    """The pieces up to the one that holds the end of the header block."""
    begin = b""
    async for piece in pieces:
        begin += piece
        if len(begin) > HEADER_LIMIT or read_headers(begin, final=False) is not None:
            break
    return begin


def _key(address: Address) -> bytes:
    """An address in the form it is compared in to find loops."""
    return legible(str(address)).lower().encode()


def _delivered_to(begin: bytes) -> set[bytes]:
    """Whom the letter was delivered to before, as `_key` writes them."""
    headers = read_headers(begin, final=True)
    if headers is None or b"delivered-to" not in headers.block.lower():
        return set()
    return {value.lower() for value in headers.values(b"Delivered-To")}


def _trace(sender: Address | None, addresses: Sequence[Address]) -> bytes:
    lines = [f"Return-Path: {legible(path(sender))}\r\n"]
    lines.extend(f"Delivered-To: {legible(str(address))}\r\n" for address in addresses)
    return "".join(lines).encode()


def _loop(address: Address) -> Outcome:
    return Failed(
        Reply(554, (4, 6), f"The letter is looping: it was delivered to {printable(str(address))} before")
    )
