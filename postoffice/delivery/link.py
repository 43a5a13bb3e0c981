"""One connection to another mail server: the thin Twisted protocol around the SMTP client engine.

Made by remote delivery; between deliveries it rests in the pool (`postoffice.delivery.pool`).
It keeps the time limits of RFC 5321 section 4.5.3.2, writes content no faster than the host takes it, and
hands itself back to the pool before the result of a delivery is given out, so that the next delivery can
begin in the same turn of the reactor.

Whatever the host or the network does is a result: `connect` fails with a `Refusal` that carries the reply to
record, `run` gives outcomes. Cancelling either closes the connection at once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Protocol as Shape

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConnector, IConsumer, IDelayedCall, IPushProducer, ITCPTransport
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.delivery.route import Target
from postoffice.interfaces import IContent, SpoolDamaged, SpoolFailed, StaleClaim
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.smtp.client import NONSENSE, ClientEngine
from postoffice.smtp.client_events import Broken, Finished, Proceed, Ready

PIECE = 256 * 1024
"""The most content that is written at once, in octets."""

TIMEOUTS = {
    "greeting": 300.0,
    "EHLO": 300.0,
    "HELO": 300.0,
    "RSET": 300.0,
    "MAIL": 300.0,
    "RCPT": 300.0,
    "DATA": 120.0,
    "content": 180.0,
    "end of data": 600.0,
    "QUIT": 2.0,
}
"""Seconds to wait for the answer to a command, and for the host to take a piece of content."""

_TICK = 60.0
"""The timer of a connection is moved on at most so far, and so is not touched for each command."""

NO_ANSWER = (4, 1)
LOST = (4, 2)


class Reactor(Shape):
    """What is asked of the reactor."""

    def connectTCP(self, host: str, port: int, factory: ClientFactory, timeout: float) -> IConnector: ...

    def callLater(self, delay: float, call: Callable[[], object]) -> IDelayedCall: ...

    def seconds(self) -> float: ...


class Keeper(Shape):
    """Who owns links that have nothing to do."""

    def release(self, link: Link) -> None:
        """The link can take another letter."""

    def forget(self, link: Link) -> None:
        """The connection does not exist any more."""


Dial = Callable[[ClientFactory, float], IConnector]
"""Connects a factory within so many seconds."""


class _Transport(ITCPTransport, IConsumer):
    """What a TCP connection of Twisted provides."""


@implementer(IPushProducer)
class Link(Protocol):
    """A session with the host at `target`, begun at `since` (reactor seconds).

    With `lmtp` it is one by LMTP (RFC 2033), and that is how to get there.
    """

    transport: _Transport

    def __init__(
        self, reactor: Reactor, target: Target, name: str, keeper: Keeper, lmtp: Dial | None = None
    ) -> None:
        self.target = target
        self.since = reactor.seconds()
        self._connector: IConnector | None = None
        self._ready: Deferred[Link] | None = None
        self._reactor = reactor
        self._engine = ClientEngine(name, str(target), lmtp is not None)
        self._dial = lmtp
        self._keeper = keeper
        self._content: IContent | None = None
        self._result: Deferred[Finished] | None = None
        self._stream: Deferred[None] | None = None
        self._drained: Deferred[None] | None = None
        self._progress = self.since
        self._timer: IDelayedCall | None = None
        self._closing = False

    @property
    def usable(self) -> bool:
        """Whether `run` may be called."""
        return not self._closing and self._result is None and self._engine.reusable

    def connect(self, timeout: float) -> Deferred[Link]:
        """Connect within `timeout` seconds, and greet; fires with this link when it can take a letter.

        Errors: `Refusal` with the host's reply, or with 441 4.4.1, 442 4.4.2 or 450 4.5.0 for a host that
        cannot be reached, went away, or speaks nonsense.
        """
        ready = self._ready = Deferred(self._cancelled)
        target, factory = self.target, _LinkFactory(self)
        if self._dial is not None:
            self._connector = self._dial(factory, timeout)
        else:
            self._connector = self._reactor.connectTCP(target.ip, target.port, factory, timeout)
        return ready

    def failed(self, reason: Failure) -> None:
        """No connection was made."""
        self._keeper.forget(self)
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(Failure(Refusal(Reply(441, NO_ANSWER, f"cannot connect: {_words(reason)}"))))

    def run(self, envelope: Envelope, size: int, content: IContent) -> Deferred[Finished]:
        """Send a letter of `size` octets; its first commands are written before this returns.

        Fails only for a bug, or with `CancelledError`. Only while `usable`.
        """
        result = self._result = Deferred(self._cancelled)
        self._content = content
        self._watch()
        if out := self._engine.begin(envelope, size):
            self.transport.write(out)
        else:
            self._events()
        return result

    def leave(self) -> None:
        """Take leave of the host, and wait for its answer only a few seconds."""
        if self._closing:
            return
        self._closing = True
        if out := self._engine.quit():
            self.transport.write(out)
            self._rearm(TIMEOUTS["QUIT"])
        else:
            self.transport.abortConnection()

    def abort(self) -> None:
        """Close at once; what was not sent is not sent any more."""
        self._closing = True
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        if self.target.port:
            self.transport.setTcpNoDelay(True)
        self._watch()

    def dataReceived(self, data: bytes) -> None:
        self._progress = self._reactor.seconds()
        self._engine.receive(data)
        self._events()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost("lost the connection" if reason.check(ConnectionDone) else _words(reason))
        self._events()
        self._keeper.forget(self)

    def pauseProducing(self) -> None:
        if self._drained is None:
            self._drained = Deferred()

    def resumeProducing(self) -> None:
        self._progress = self._reactor.seconds()
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def _events(self) -> None:
        """Act on what the engine has to tell, and write what it has to say."""
        engine = self._engine
        while True:
            event = engine.next_event()
            match event:
                case Finished():
                    self._finished(event)
                case Proceed():
                    self._proceed()
                case Ready():
                    self._opened()
                case Broken(reply):
                    self._broken(reply)
                case None:
                    if not (out := engine.outgoing()):
                        return
                    if not self._closing:
                        self.transport.write(out)

    def _opened(self) -> None:
        if not self.usable:
            self._engine.lost(Reply(450, NONSENSE, "the host spoke without being asked"))
            return
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.callback(self)

    def _finished(self, finished: Finished) -> None:
        result, self._result = self._result, None
        self._content = None
        if self._stream is not None:
            self._stream.cancel()
        if self.usable:
            self._keeper.release(self)
        if result is not None:
            result.callback(finished)

    def _broken(self, reply: Reply) -> None:
        if not self._closing:
            if out := self._engine.quit():
                self.transport.write(out)
                self.transport.loseConnection()
                self._rearm(TIMEOUTS["QUIT"])
            else:
                self.transport.abortConnection()
            self._closing = True
        else:
            self.transport.loseConnection()
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(Failure(Refusal(reply)))

    def _proceed(self) -> None:
        content = self._content
        assert content is not None
        if content.held is not None and len(content.held) <= PIECE:
            self.transport.write(self._engine.content(content.held) + self._engine.end())
            return
        stream = self._stream = Deferred.fromCoroutine(self._send(content))
        stream.addErrback(self._unreadable)

    async def _send(self, content: IContent) -> None:
        """Write the content piece by piece, each when the one before has left."""
        self.transport.registerProducer(self, True)
        try:
            async for piece in _pieces(content):
                self.transport.write(self._engine.content(piece))
                if self._drained is not None:
                    await self._drained
            self._progress = self._reactor.seconds()
            self.transport.write(self._engine.end())
        finally:
            self._drained = None
            self.transport.unregisterProducer()

    def _unreadable(self, failure: Failure) -> None:
        """The content cannot be had to its end: the host must not take what it got for the letter."""
        if failure.check(CancelledError):
            return
        if not failure.check(SpoolFailed, SpoolDamaged, StaleClaim):
            result, self._result = self._result, None
            if result is not None:
                result.errback(failure)
        self.abort()
        self._engine.lost(Reply(451, (3, 0), f"the letter cannot be read: {_words(failure)}"), ours=True)
        self._events()

    def _cancelled(self, _: object) -> None:
        self._ready = self._result = None
        if self.connected:
            self.abort()
        elif self._connector is not None:
            self._connector.stopConnecting()

    def _lost(self, why: str) -> None:
        awaiting = self._engine.awaiting
        if awaiting:
            why += (
                " sending the content" if awaiting == "content" else f" waiting for the reply to {awaiting}"
            )
        self._engine.lost(Reply(442, LOST, why))

    def _watch(self) -> None:
        """Something is begun that must not take for ever."""
        self._progress = self._reactor.seconds()
        if self._timer is None:
            self._timer = self._reactor.callLater(_TICK, self._tick)

    def _rearm(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._progress = self._reactor.seconds()
        self._timer = self._reactor.callLater(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        limit = TIMEOUTS["QUIT"] if self._closing else TIMEOUTS.get(self._engine.awaiting)
        if limit is None:
            return
        left = self._progress + limit - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(min(left, _TICK), self._tick)
            return
        self._lost("timed out")
        self.abort()
        self._events()


class _LinkFactory(ClientFactory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, _: object) -> Link:
        return self._link

    def clientConnectionFailed(self, _: IConnector, reason: Failure) -> None:
        self._link.failed(reason)


async def _pieces(content: IContent) -> AsyncIterator[bytes]:
    held = content.held
    if held is None:
        async for piece in content.pieces():
            yield piece
    else:
        for start in range(0, len(held), PIECE):
            yield held[start : start + PIECE]


def _words(failure: Failure) -> str:
    """What the operating system calls it, where it has a word for it."""
    number = getattr(failure.value, "osError", None)
    text = os.strerror(number) if isinstance(number, int) else failure.getErrorMessage().strip()
    return printable(text, 200)
