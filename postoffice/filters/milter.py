"""Milters: the driver that carries what the engine says over a unix or TCP socket, and waits for answers.

One connection for one SMTP session, used for all its letters. Made by the assembly, used by the chain through
`IFilter`. Each wait has a time limit; what the filter does not read is not piled up, and what it answers is
bounded by the engine. When things fail (no connection, silence, nonsense, a connection that breaks) the
verdict is `Failed` and the socket is closed at once, since answers may be under way on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from postoffice.filters.connection import Connection, connect_host, connect_tcp, connect_unix, is_address
from postoffice.interfaces import Draught, IContent, IFilter, IFilterSession
from postoffice.milter.edits import Edit
from postoffice.milter.engine import Lookup, MilterEngine
from postoffice.milter.facts import Facts
from postoffice.milter.negotiation import Offer
from postoffice.milter.packets import BODY, HEADER
from postoffice.milter.verdicts import Continue, Failed, Verdict

# Seconds for an answer to a command, to a part of the content, and for the filter to read what we say.
REPLY = 30.0
CONTENT = 300.0
WRITE = 30.0

USUAL = Offer()

# What is gathered before it is written where no answer is waited for.
_BATCH = 65536


@frozen
class MilterSettings:
    """How a milter is reached and what it may do; times in seconds.

    `path` is that of a unix socket, else `host` and `port` are where it listens. `daemon_names` is what the
    macro `daemon_name` says in the place of our host name, for filters that decide by it: by the port that
    the client came to, at 0 for all others. `oversized` is what happens to a letter with a field that fits
    into no packet: the filter fails, or does not see the field.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    daemon_names: Mapping[int, str] = field(factory=dict)
    offer: Offer = USUAL
    connect_timeout: float = 30.0
    reply_timeout: float = REPLY
    content_timeout: float = CONTENT
    oversized: Literal["fail", "skip"] = "fail"
    longest_body: int = 1 << 26

    @property
    def name(self) -> str:
        """Where it is, in the words of the configuration."""
        return self.path or f"{self.host}:{self.port}"


@implementer(IFilter)
class Milter:
    """One milter, for all sessions. `reactor` keeps time and looks up names, `connector` connects."""

    def __init__(
        self, settings: MilterSettings, reactor: Any, connector: Any, note: Callable[[str], None]
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.reactor = reactor
        self._connector = connector
        self.note = note
        self._noted: set[str] = set()

    def load(self) -> None:
        """It may be started after us."""

    def session(self) -> IFilterSession:
        return MilterSession(self)

    def note_once(self, text: str) -> None:
        """Tell an operator something that would be said in every session."""
        if text not in self._noted and len(self._noted) < 100:
            self._noted.add(text)
            self.note(f"filter {self.name}: {text}")

    async def connect(self, connection: Connection) -> None:
        """Connect. Errors: whatever Twisted or the system says."""
        settings = self.settings
        timeout = settings.connect_timeout
        if settings.path:
            await connect_unix(settings.path, connection, timeout, self._connector)
        elif is_address(settings.host):
            await connect_tcp(settings.host, settings.port, connection, timeout, self._connector)
        else:
            await connect_host(settings.host, settings.port, connection, timeout, self.reactor)


@implementer(IFilterSession)
class MilterSession:
    """One connection to a milter, and who waits for it."""

    def __init__(self, milter: Milter) -> None:
        settings = milter.settings
        self._milter = milter
        self._clock = milter.reactor
        self._engine = MilterEngine(settings.offer, settings.longest_body)
        self._wire = Connection(self, self._clock)
        self._connecting: Deferred[None] | None = None
        self._unsent: list[bytes] = []
        self._gathered = 0
        self._waiter: Deferred[Verdict] | None = None
        self._room: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._due: float | None = None
        self._until = 0.0
        self._patience = 0.0
        self.silent = False

    # What the chain asks.

    @property
    def hears_refused(self) -> bool:
        return self._engine.hears_refused

    @property
    def with_blank(self) -> bool:
        return self._engine.with_blank

    @property
    def lost(self) -> str:
        # Who wants to hear no more may go.
        return "" if self._engine.done else self._engine.failure or ""

    async def open(self) -> Verdict:
        self._connecting = Deferred.fromCoroutine(self._milter.connect(self._wire))
        try:
            await self._connecting
        except Exception as error:
            return self._failed(f"cannot connect: {error}")
        finally:
            self._connecting = None
        if self._engine.failure is not None:
            self.close()
            return Failed(self._engine.failure)
        verdict = await self._say(self._engine.negotiate(), self._milter.settings.reply_timeout)
        for note in self._engine.agreed.notes:
            self._milter.note_once(note)
        return verdict

    def client(self, facts: Facts) -> Awaitable[Verdict]:
        return self._short(lambda: self._engine.connect(*facts.peer, self._macros(facts)))

    def helo(self, facts: Facts) -> Awaitable[Verdict]:
        return self._short(lambda: self._engine.helo(facts.greeting or "", self._macros(facts)))

    def sender(self, facts: Facts) -> Awaitable[Verdict]:
        return self._short(lambda: self._engine.mail(list(facts.arguments), self._macros(facts)))

    def recipient(self, facts: Facts) -> Awaitable[Verdict]:
        return self._short(lambda: self._engine.rcpt(list(facts.arguments), self._macros(facts)))

    def data(self, facts: Facts) -> Awaitable[Verdict]:
        return self._short(lambda: self._engine.data(self._macros(facts)))

    def unknown(self, facts: Facts, line: bytes) -> Awaitable[Verdict]:
        return self._short(lambda: self._engine.unknown(line))

    async def content(self, facts: Facts, draught: Draught, until: float) -> Verdict:
        engine, patience = self._engine, self._milter.settings.content_timeout
        self.silent = engine.done
        if self.silent:
            return Continue()
        self._until = until
        try:
            for field in draught.fields:
                if not engine.wants(HEADER):
                    break
                if field.hidden:
                    continue
                if not engine.takes(field):
                    if self._milter.settings.oversized == "skip":
                        continue
                    return self._failed("a header field is larger than a packet may be")
                verdict = await self._say(engine.header(field), patience)
                if type(verdict) is not Continue:
                    return verdict
            verdict = await self._say(engine.end_of_header(self._macros(facts)), patience)
            if type(verdict) is Continue:
                verdict = await self._body(draught.body, patience)
            if type(verdict) is Continue:
                verdict = await self._say(engine.end_of_message(self._macros(facts)), patience)
            return verdict
        finally:
            self._until = 0.0

    def edits(self) -> list[Edit]:
        if self._engine.dropped:
            self._milter.note_once("it asked for changes that it may not make")
        if self._engine.unannounced:
            self._milter.note_once("it makes changes that it did not say it might")
        return self._engine.edits

    def abort(self) -> None:
        if self._engine.waiting:
            # An answer is under way that would be taken for that to the next command.
            self._failed("broken off")
        else:
            self._unsent.append(self._engine.abort())
            self._write_all()

    def close(self) -> None:
        last = b"".join(self._unsent) + self._engine.quit()
        self._unsent.clear()
        if self._connecting is not None:
            self._connecting.cancel()
        self._wire.end(last, at_once=self._wire.choked)
        self._engine.fail("the session is over")
        self._settle(Failed("the session is over"))

    # What the connection tells.

    def received(self, data: bytes) -> None:
        """Octets came."""
        heard = self._engine.heard
        verdict = self._engine.receive(data)
        if self._engine.failure is not None:
            self._wire.end(b"", at_once=True)
        if verdict is not None:
            self._settle(verdict)
        elif self._engine.heard != heard and self._due is not None:
            self._watch(self._patience)

    def broke(self, why: str) -> None:
        """The connection is gone."""
        self._settle(self._engine.fail(why))

    def drained(self) -> None:
        """The filter reads again."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    # Inside.

    def _macros(self, facts: Facts) -> Lookup:
        names = self._milter.settings.daemon_names
        own = names.get(facts.place.port) or names.get(0) if names else None
        return (lambda name: own if name == "daemon_name" else facts.value(name)) if own else facts.value

    async def _short(self, command: Callable[[], bytes]) -> Verdict:
        """One event, which the filter may have no interest in."""
        self.silent = True
        if self._engine.done:
            return Continue()
        data = command()
        self.silent = not self._engine.waiting
        verdict = await self._say(data, self._milter.settings.reply_timeout)
        return await self._flush() if self._unsent and type(verdict) is Continue else verdict

    async def _body(self, body: IContent, patience: float) -> Verdict:
        engine, room = self._engine, self._engine.agreed.room
        if not engine.wants(BODY):
            return Continue()
        async for piece in body.pieces():
            for start in range(0, len(piece), room):
                verdict = await self._say(engine.body(piece[start : start + room]), patience)
                if type(verdict) is not Continue:
                    return verdict
                if not engine.wants(BODY):
                    return verdict
        return Continue()

    async def _say(self, data: bytes, patience: float) -> Verdict:
        """Say something, and wait for the answer where there will be one."""
        engine = self._engine
        if data:
            self._unsent.append(data)
            self._gathered += len(data)
        if engine.failure is not None:
            return self._failed(engine.failure)
        if not engine.waiting:
            if self._gathered < _BATCH:
                return Continue()
            return await self._flush()
        waiter: Deferred[Verdict] = Deferred()
        self._waiter = waiter
        failed = await self._flush()
        if type(failed) is Failed:
            return failed
        if self._waiter is not None:
            self._watch(patience)
        return await waiter

    async def _flush(self) -> Verdict:
        """Write what was gathered, as soon as the filter reads."""
        if self._wire.choked:
            self._room = Deferred()
            self._watch(WRITE)
            await self._room
            self._due = None
            if self._engine.failure is not None:
                return self._failed(self._engine.failure)
        self._write_all()
        return Continue()

    def _write_all(self) -> None:
        unsent, self._unsent, self._gathered = b"".join(self._unsent), [], 0
        if unsent and self._wire.transport is not None:
            self._wire.transport.write(unsent)

    def _watch(self, patience: float) -> None:
        """From now on there is so much time for the next thing to happen.

        The timer stays between waits, of which a letter has dozens, and looks at what is due when it rings.
        """
        self._patience = patience
        now = self._clock.seconds()
        if self._until:
            patience = max(0.0, min(patience, self._until - now))
        self._due = now + patience
        if self._timer is not None and self._timer.getTime() > self._due:
            self._still()
        if self._timer is None:
            self._timer = self._clock.callLater(patience, self._ring)

    def _still(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        if self._due is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._ring)
        else:
            self._late()

    def _late(self) -> None:
        self._failed("it does not answer" if self._room is None else "it does not read")

    def _failed(self, why: str) -> Failed:
        """Give it up."""
        failed = self._engine.fail(why)
        self._wire.end(b"", at_once=True)
        self._settle(failed)
        return failed

    def _settle(self, verdict: Verdict) -> None:
        self._due = None
        if self._engine.failure is not None:
            self._still()
        self.drained()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(verdict)
