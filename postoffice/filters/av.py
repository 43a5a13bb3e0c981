"""The AV program: a command that reads each letter and may refuse it (`av=|command`).

Run by the helper as `nobody` where it may be somebody, with the letter on standard input, sender and first
recipient in the environment. Exit status 0 lets the letter pass; any other refuses it, and what the command
said is the reason. A command that cannot be run, dies of a signal or takes longer than `av-timeout` has
failed, and the letter is put off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from postoffice.interfaces import Draught, IFilter, IFilterSession, SpoolFailed, SpoolFull
from postoffice.mail.reply import Reply, printable
from postoffice.milter.edits import Edit
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import Continue, Failed, Refuse, Verdict

Check = Callable[
    [dict[str, str], AsyncIterator[bytes], float, Callable[[Deferred[Any]], None]], Awaitable[dict[str, Any]]
]
"""Runs the command: environment, the letter, seconds it may take, and who is told what ends it if cancelled.
How it ended is as `postoffice.delivery.helper` tells it.
"""

UNSAID = "The message was refused by the scanner"
# The shell's: it may not be run, or is not there.
_NOT_RUN = (126, 127)


@implementer(IFilter)
class Scanner:
    """The command, for all sessions. A `timeout` of 0 is none of its own."""

    name = "av"

    def __init__(self, check: Check, timeout: float, clock: IReactorTime) -> None:
        self.check = check
        self.timeout = timeout
        self.clock = clock

    def load(self) -> None:
        """The shell finds it, or says that it does not."""

    def session(self) -> IFilterSession:
        return ScannerSession(self)


@implementer(IFilterSession)
class ScannerSession:
    """One session; only whole letters matter."""

    hears_refused = False
    with_blank = False
    lost = ""

    def __init__(self, of: Scanner) -> None:
        self._of = of
        self.silent = True
        self._running: Deferred[Any] | None = None
        self._closed = False

    async def open(self) -> Verdict:
        return Continue()

    async def client(self, facts: Facts) -> Verdict:
        return Continue()

    async def helo(self, facts: Facts) -> Verdict:
        return Continue()

    async def sender(self, facts: Facts) -> Verdict:
        self.silent = True
        return Continue()

    async def recipient(self, facts: Facts) -> Verdict:
        return Continue()

    async def data(self, facts: Facts) -> Verdict:
        return Continue()

    async def unknown(self, facts: Facts, line: bytes) -> Verdict:
        return Continue()

    async def content(self, facts: Facts, draught: Draught, until: float) -> Verdict:
        self.silent = False
        left = max(1.0, until - self._of.clock.seconds())
        timeout = min(self._of.timeout or left, left)
        envelope = draught.envelope
        environment = {
            "SENDER": str(envelope.sender or ""),
            "RECIPIENT": str(envelope.recipients[0]) if envelope.recipients else "",
        }
        try:
            end = await self._of.check(environment, _whole(draught), timeout, self._began)
        except (SpoolFull, SpoolFailed):
            raise
        except CancelledError:
            return Failed("the session is over")
        except Exception as error:
            # Nobody to run it as, no helper, no descriptor.
            return Failed(str(error) or type(error).__name__)
        finally:
            self._running = None
        return _verdict(end)

    def edits(self) -> Sequence[Edit]:
        return ()

    def abort(self) -> None:
        """Nothing is kept of a letter."""

    def close(self) -> None:
        self._closed = True
        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def _began(self, running: Deferred[Any]) -> None:
        self._running = running
        if self._closed:
            running.cancel()


def _verdict(end: dict[str, Any]) -> Verdict:
    lines = (line.strip() for line in str(end.get("output", "")).splitlines())
    said = printable(" / ".join(line for line in lines if line))
    if end.get("timeout"):
        return Failed("the command took too long")
    if "signal" in end:
        return Failed(f"the command was ended by signal {end['signal']}")
    status = int(end["status"])
    if status in _NOT_RUN:
        return Failed(f"the command cannot be run: {said}")
    return Refuse(Reply(550, (7, 1), said or UNSAID)) if status else Continue()


async def _whole(draught: Draught) -> AsyncIterator[bytes]:
    yield b"".join((*map(bytes, draught.fields), b"\r\n"))
    async for piece in draught.body.pieces():
        yield piece
