"""What stands between the chain and a filter written in Python (`postoffice.filters.python` is what it sees).

The class is imported as the account that the service runs as, when it starts and when it takes over other
settings. Whatever its methods do, the chain gets a verdict: an exception, a result that is none and a method
that takes too long are `Failed`, and exceptions are logged with their tracebacks.
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

from postoffice.filters.python import Answer, Filter, Letter
from postoffice.interfaces import Draught, IFilter, IFilterSession, SpoolFailed, SpoolFull
from postoffice.milter.edits import Edit
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import Accept, Continue, Failed, Refuse, Verdict


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
    lost = ""

    def __init__(self, of: PythonFilter) -> None:
        self._of = of
        self._filter: Filter | None = None
        self.silent = False
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
        return verdict

    async def _about_letter(self, event: Callable[[Filter], Answer], until: float | None = None) -> Verdict:
        verdict = await self._ask(event, until)
        self._done_with_letter = self._done_with_letter or type(verdict) is Accept
        return verdict

    async def _ask(self, event: Callable[[Filter], Answer], until: float | None = None) -> Verdict:
        self.silent = self._filter is None or self._done_with_session or self._done_with_letter
        if self._filter is None or self.silent:
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
