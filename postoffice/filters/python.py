"""Filters written in Python: the class that `filter=python:package.module:Class` names.

A filter derives from `Filter` and overrides what it wants to hear; docs/python-filters.md leads to a first
one. One object is made for each session, without arguments. A method returns None to go on, or a verdict:
`accept()`, `reject(text)`, `put_off(text)`, `discard()`. It may be a coroutine that awaits Deferreds; what
takes long without awaiting holds up every client. Changes of a letter are asked for on the `Letter`, and made
when its method has returned without a refusal.

When things fail: an exception, a result that is no verdict and a method that takes too long are failures of
the filter, and `on-error` says what comes of them. The exception is logged with its traceback.
"""

from __future__ import annotations

from collections.abc import Awaitable

from postoffice.interfaces import Draught
from postoffice.mail.address import Address
from postoffice.mail.reply import Reply, legible
from postoffice.milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Edit,
    Hold,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import Accept, Discard, Refuse, Verdict

__all__ = ["Facts", "Filter", "Letter", "Verdict", "accept", "discard", "put_off", "reject"]

Answer = Verdict | None | Awaitable[Verdict | None]


def accept() -> Verdict:
    """Ask no more about this letter, or about this client where there is none yet."""
    return Accept()


def reject(text: str) -> Verdict:
    """Refuse for good, with this text."""
    return Refuse(Reply(550, (7, 1), legible(text, 400)))


def put_off(text: str) -> Verdict:
    """Refuse for now, with this text: the sender tries again later."""
    return Refuse(Reply(451, (7, 1), legible(text, 400)))


def discard() -> Verdict:
    """Take the letter and deliver it to nobody. The sender never hears of it."""
    return Discard()


class Letter:
    """A letter that has come in, as earlier filters left it; what is asked for is done at the end."""

    def __init__(self, draught: Draught) -> None:
        self._draught = draught
        self.edits: list[Edit] = []

    @property
    def sender(self) -> Address | None:
        """The sender, None for the null sender."""
        return self._draught.envelope.sender

    @property
    def recipients(self) -> tuple[Address, ...]:
        """The recipients."""
        return self._draught.envelope.recipients

    @property
    def header(self) -> list[tuple[str, str]]:
        """The fields in order, name and unfolded value, without our own Received."""
        return [
            (field.name.decode("latin-1"), " ".join(field.value.decode("utf-8", "replace").split()))
            for field in self._draught.fields
            if not field.hidden
        ]

    def get(self, name: str) -> str | None:
        """The value of the first field of that name, in any case; None without one."""
        return next((value for one, value in self.header if one.lower() == name.lower()), None)

    async def body(self, most: int = 1 << 26) -> bytes:
        """The body, of CRLF line ends; no more of it than so many octets."""
        pieces, size = [], 0
        async for piece in self._draught.body.pieces():
            pieces.append(piece)
            size += len(piece)
            if size >= most:
                break
        return b"".join(pieces)[:most]

    async def content(self, most: int = 1 << 26) -> bytes:
        """Header and body as they would be delivered, for `email.message_from_bytes`."""
        head = b"".join(map(bytes, self._draught.fields)) + b"\r\n"
        return head + await self.body(most)

    def add_header(self, name: str, value: str) -> None:
        """Add a field at the end of the header."""
        self.edits.append(AddHeader(name.encode(), value.encode()))

    def insert_header(self, index: int, name: str, value: str) -> None:
        """Add a field in front of others: 0 is above our Received, 1 right below it."""
        self.edits.append(InsertHeader(index, name.encode(), value.encode()))

    def change_header(self, name: str, value: str, number: int = 1) -> None:
        """Give a field another value: the first of its name, or another one; add it where there is none."""
        self.edits.append(ChangeHeader(number, name.encode(), value.encode()))

    def remove_header(self, name: str, number: int = 1) -> None:
        """Remove a field; numbers stay what they were when one goes."""
        self.edits.append(ChangeHeader(number, name.encode(), b""))

    def replace_body(self, body: bytes) -> None:
        """Put another body in the place of the letter's."""
        self.edits = [edit for edit in self.edits if not isinstance(edit, ReplaceBody)]
        self.edits.append(ReplaceBody(body))

    def add_recipient(self, address: str) -> None:
        """Send it to one more."""
        self.edits.append(AddRecipient(address.encode()))

    def remove_recipient(self, address: str) -> None:
        """Send it to one less; with nobody left it is dropped."""
        self.edits.append(RemoveRecipient(address.encode()))

    def change_sender(self, address: str) -> None:
        """Let reports go to somebody else; empty for nobody."""
        self.edits.append(ChangeSender(address.encode()))

    def hold(self, reason: str) -> None:
        """Set it aside until an operator releases it."""
        self.edits.append(Hold(reason.encode()))


class Filter:
    """What Python filters derive from: each method hears of one event, and lets it pass."""

    def client(self, facts: Facts) -> Answer:
        """A client has come (`facts.client`)."""
        return None

    def helo(self, facts: Facts) -> Answer:
        """It greets (`facts.client.helo`), maybe once more."""
        return None

    def sender(self, facts: Facts) -> Answer:
        """A letter begins (`facts.sender`)."""
        return None

    def recipient(self, facts: Facts) -> Answer:
        """A recipient of it (`facts.recipient`); a refusal is for this one only."""
        return None

    def data(self, facts: Facts) -> Answer:
        """The content comes next."""
        return None

    def letter(self, facts: Facts, letter: Letter) -> Answer:
        """The whole letter."""
        return None

    def unknown(self, facts: Facts, line: bytes) -> Answer:
        """The client gave a command that nobody knows."""
        return None

    def over(self) -> None:
        """The letter is over, whatever became of it."""

    def close(self) -> None:
        """The session is over."""
