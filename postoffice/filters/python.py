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

import importlib
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from postoffice.interfaces import Draught, IFilter, IFilterSession, SpoolFailed, SpoolFull
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
from postoffice.milter.verdicts import Accept, Continue, Discard, Failed, Refuse, Verdict

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


@implementer(IFilter)
class PythonFilter:
    """A filter class, named `package.module:Class`. `report` is told of exceptions, for the log."""

    def __init__(
        self, name: str, timeout: float, report: Callable[[str, BaseException], None], clock: IReactorTime
    ) -> None:
        self.name = f"python:{name}"
        self.timeout = timeout
        self.report = report
        self.clock = clock
        self._made: Callable[[], Filter] | None = None

    def load(self) -> None:
        """Import the class. Errors: `LookupError` that says what is wrong."""
        module, _, name = self.name.removeprefix("python:").partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except Exception as error:
            # Whatever a stranger's module does when it is imported.
            raise LookupError(f"filter {self.name}: {type(error).__name__}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, Filter)):
            raise LookupError(f"filter {self.name}: it is no subclass of postoffice.filters.python.Filter")
        self._made = found

    def make(self) -> Filter:
        """One of them."""
        if self._made is None:
            self.load()
        assert self._made is not None
        return self._made()

    def session(self) -> IFilterSession:
        return PythonSession(self)


@implementer(IFilterSession)
class PythonSession:
    """One object of the class, and what it has said."""

    hears_refused = False
    with_blank = False

    def __init__(self, of: PythonFilter) -> None:
        self._of = of
        self._filter: Filter | None = None
        self._done_with_session = False
        self._done_with_letter = False
        self._edits: Sequence[Edit] = ()
        self._asked: Deferred[Any] | None = None
        self._in_letter = False

    async def open(self) -> Verdict:
        try:
            self._filter = self._of.make()
        except Exception as error:
            return self._failed(error)
        return Continue()

    async def client(self, facts: Facts) -> Verdict:
        return await self._about_client(lambda one: one.client(facts))

    async def helo(self, facts: Facts) -> Verdict:
        return await self._about_client(lambda one: one.helo(facts))

    async def sender(self, facts: Facts) -> Verdict:
        self._in_letter = True
        return await self._about_letter(lambda one: one.sender(facts))

    async def recipient(self, facts: Facts) -> Verdict:
        return await self._about_letter(lambda one: one.recipient(facts))

    async def data(self, facts: Facts) -> Verdict:
        return await self._about_letter(lambda one: one.data(facts))

    async def content(self, facts: Facts, draught: Draught, until: float) -> Verdict:
        letter = Letter(draught)
        verdict = await self._about_letter(lambda one: one.letter(facts, letter), until)
        if type(verdict) in (Continue, Accept):
            self._edits = tuple(letter.edits)
        return verdict

    async def unknown(self, facts: Facts, line: bytes) -> Verdict:
        verdict = await self._ask(lambda one: one.unknown(facts, line))
        return verdict if isinstance(verdict, Refuse | Failed) else Continue()

    def edits(self) -> Sequence[Edit]:
        return self._edits

    def abort(self) -> None:
        self._edits, self._done_with_letter = (), False
        if self._in_letter:
            self._in_letter = False
            self._tell(lambda one: one.over())

    def close(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()
        self.abort()
        self._tell(lambda one: one.close())
        self._filter = None

    async def _about_client(self, event: Callable[[Filter], Answer]) -> Verdict:
        verdict = await self._ask(event)
        self._done_with_session = self._done_with_session or type(verdict) is Accept
        return Continue() if type(verdict) is Discard else verdict

    async def _about_letter(self, event: Callable[[Filter], Answer], until: float | None = None) -> Verdict:
        verdict = await self._ask(event, until)
        self._done_with_letter = self._done_with_letter or type(verdict) is Accept
        return verdict

    async def _ask(self, event: Callable[[Filter], Answer], until: float | None = None) -> Verdict:
        if self._filter is None or self._done_with_session or self._done_with_letter:
            return Continue()
        try:
            answer = event(self._filter)
            if isawaitable(answer):
                answer = await self._waited(answer, until)
        except (SpoolFull, SpoolFailed):
            # The letter cannot be read, which is no fault of the filter's.
            raise
        except (TooLate, CancelledError):
            return Failed("it does not answer" if self._filter is not None else "the session is over")
        except Exception as error:
            return self._failed(error)
        if answer is None:
            return Continue()
        return answer if isinstance(answer, Verdict) else Failed(f"its answer is no verdict: {answer!r:.80}")

    async def _waited(self, answer: Awaitable[Verdict | None], until: float | None) -> Verdict | None:
        async def wait() -> Verdict | None:
            return await answer

        clock, timeout = self._of.clock, self._of.timeout
        if until is not None:
            timeout = max(0.0, min(timeout, until - clock.seconds()))
        self._asked = Deferred.fromCoroutine(wait())
        try:
            return await self._asked.addTimeout(timeout, clock)
        finally:
            self._asked = None

    def _failed(self, error: BaseException) -> Failed:
        self._of.report(f"filter {self._of.name} failed", error)
        return Failed(f"{type(error).__name__}: {error}")

    def _tell(self, event: Callable[[Filter], None]) -> None:
        if self._filter is not None:
            try:
                event(self._filter)
            except Exception as error:
                self._failed(error)
