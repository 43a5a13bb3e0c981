"""The link: a thin protocol around the SMTP server engine.

Made by the listener for every connection; the session talks to it and to nothing else of the
network. It turns bytes into events one at a time, gathers the replies of a pipelined group into one
write, stops reading when the peer runs ahead of us and stops answering when the peer does not read,
so that the memory of a session is bounded, serves others in between, and ends sessions that are idle or
too slow. It puts TLS between itself and the connection when the session asks for it.

When things fail: a lost connection and an expired time limit are raised in the session, at the
place where it waits for the next event (`Disconnected`, `TimedOut`). RFC 5321 section 4.5.3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.mail.client import Tls
from postoffice.mail.reply import Reply, printable
from postoffice.server.turnstile import Encrypted, EncryptedFactory
from postoffice.smtp.events import Event
from postoffice.smtp.server import ServerEngine

# Bytes that may wait to be parsed; with more the client is not read until they are used up. What one read
# of the socket brings comes on top.
READ_AHEAD = 128 * 1024
# Events of one client that are served before it is others' turn. What a client may send at once has hundreds
# of times as many, and in the memory of their replies it could have a hundred times what it sent.
AT_ONCE = 100
# The period, in seconds, after which a client inside DATA is held to the least rate.
GRACE = 60.0
# How long, in seconds, a peer may take to read our last reply once we close.
LINGER = 10.0
# How long, in seconds, a client may take to agree on TLS.
HANDSHAKE = 30.0


class Disconnected(Exception):
    """The connection is gone."""


class TimedOut(Exception):
    """The client was idle, or slower than the least rate, for too long; the connection is still there."""


class HandshakeFailed(Exception):
    """The client and we did not come to agree on TLS; the connection is closing."""


_End = tuple[type[Disconnected] | type[TimedOut], str]
"""How a wait ended that brought nothing: the exception to raise, and why."""


@frozen
class Pace:
    """The patience of a link: seconds for each command and of idleness inside DATA, and bytes a second there
    after the first minute.

    0 means no limit.
    """

    idle: float
    least_rate: int


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Link(Protocol):
    """One connection. The session calls `next_event`, `answer`, `greet`, `start_tls` and `close`.

    `tls` is what TLS is made with, `None` where there is none to be had.
    """

    def __init__(
        self, engine: ServerEngine, clock: IReactorTime, pace: Pace, tls: EncryptedFactory | None = None
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.pace = pace
        self.tls = tls
        self._replies: list[bytes] = []
        self._waiting: Deferred[_End | None] | None = None
        self._choked = False
        self._paused = False
        self._lost = False
        self._ended = False
        # While client and we agree on TLS.
        self.agreeing = False
        self._closing = False
        self._watch: IDelayedCall | None = None
        self._pause: tuple[Deferred[None], IDelayedCall] | None = None
        self._idle = pace.idle
        # How many events the session had since it last waited, and what brings the next ones.
        self._served = 0
        self._turn: IDelayedCall | None = None
        # When the session last asked for the next event, or content last came.
        self.heard = 0.0
        self._content_since = 0.0
        self._heard_octets = 0
        # zope.interface has no intersection of ITCPTransport, IConsumer and IPushProducer.
        self._transport: Any = None
        self.begin: Callable[[], None] = _nobody
        # Told when the connection is gone, whoever waits for what then.
        self.on_lost: Callable[[], None] = _nobody

    # What the session calls.

    @property
    def waited_for(self) -> bool:
        """Whether the session waits for it, and so hears when the connection is lost."""
        return self._waiting is not None or self._pause is not None

    def here(self) -> IAddress:
        """The address of ours that the client came to."""
        address: IAddress = self._transport.getHost()
        return address

    async def next_event(self) -> Event:
        """The next event; what was answered before is written as soon as nothing else is ready.

        The client's time begins anew. Errors: `Disconnected`, `TimedOut`.
        """
        self.heard = self.clock.seconds()
        while True:
            tired = self._served >= AT_ONCE
            event = None if tired or self._choked or self._lost else self.engine.next_event()
            if event is not None:
                self._served += 1
                return event
            self.flush()
            if self._ended and not (tired or self._choked):
                raise Disconnected("the client has no more to say")
            _raise(await self._more(tired))

    def answer(self, reply: Reply) -> None:
        """Answer the last event. It is written with the replies of the group it belongs to."""
        data = self.engine.answer(reply)
        self._replies.append(data)
        if reply.code == 354:
            self.content_began()

    def greet(self, reply: Reply, stay: bool = False) -> None:
        """Send the banner; a client that gets no positive one may yet `stay`."""
        self._replies.append(self.engine.greet(reply, stay))
        self.flush()

    def push(self, reply: Reply) -> None:
        """Say something that answers no event: why we end the session (RFC 5321 section 3.8)."""
        self._replies.append(reply.encode())

    def content_began(self) -> None:
        """Content is coming: the least rate is asked for."""
        self._content_since, self._heard_octets = self.clock.seconds(), 0

    def content_ended(self) -> None:
        """The data is over: the least rate is not asked for any more."""
        self._content_since = 0.0

    def hurry(self, hurried: bool) -> None:
        """From now on the client may be idle for a tenth of the time, or no longer so."""
        idle = self.pace.idle / 10 if hurried else self.pace.idle
        if idle != self._idle and self._watch is not None:
            self._watch.reset(self._interval(idle))
        self._idle = idle

    def pause(self, seconds: float) -> Deferred[None]:
        """Fires after so many seconds. Errors: `Disconnected`, as soon as the connection is lost."""
        self.flush()
        paused: Deferred[None] = Deferred()
        if self._lost:
            paused.errback(Disconnected("connection lost"))
        else:
            self._pause = paused, self.clock.callLater(seconds, self._resume)
        return paused

    def flush(self) -> None:
        """Write the replies that were gathered."""
        if self._replies and not self._lost:
            replies, self._replies = self._replies, []
            self._transport.write(replies[0] if len(replies) == 1 else b"".join(replies))

    async def start_tls(self) -> Tls:
        """Encrypt the connection from here on, and tell what with. Errors: `HandshakeFailed`."""
        assert self.tls is not None, "nobody is offered TLS where there is none"
        self.flush()
        plain, secure = self._transport, Encrypted(self.tls, self, False)
        plain.unregisterProducer()
        self.transport = self._transport = plain.protocol = secure
        self.agreeing, self._choked = True, False
        late = self.clock.callLater(min(HANDSHAKE, self.pace.idle or HANDSHAKE), self._give_up)
        secure.makeConnection(plain)
        secure.registerProducer(self, True)
        try:
            # What else may wake us (the 220 was read at last) is no handshake.
            while self.agreeing:
                _raise(await self._more())
        except (Disconnected, TimedOut) as error:
            self.abort()
            raise HandshakeFailed(str(error)) from None
        finally:
            self.agreeing = False
            if late.active():
                late.cancel()
        self.heard = self.clock.seconds()
        return _facts(secure.getHandle())

    def close(self) -> None:
        """Write what is left and close; a peer that does not read it is cut off after `LINGER`."""
        if self.agreeing:
            self.abort()
            return
        self.flush()
        if self._lost or self._closing:
            return
        self._closing = True
        # TLS says goodbye only when nobody registered is left that might write.
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        self._cancel_watch()
        self._watch = self.clock.callLater(LINGER, self._transport.abortConnection)

    def abort(self) -> None:
        """Cut the connection off at once."""
        if not self._lost:
            self._transport.abortConnection()

    # What Twisted calls.

    def connectionMade(self) -> None:
        self._transport = self.transport
        self._transport.registerProducer(self, True)
        self.heard = self.clock.seconds()
        if self.pace.idle or self.pace.least_rate:
            self._watch = self.clock.callLater(self._interval(self._idle), self._look)
        # Not kept, or nothing but a garbage collection would end the circle in which it holds the link.
        begin, self.begin = self.begin, _nobody
        begin()

    def dataReceived(self, data: bytes) -> None:
        if self._content_since:
            # Of a command, single octets count for nothing, or it could take hours.
            self.heard = self.clock.seconds()
            self._heard_octets += len(data)
        self.engine.receive(data)
        if self._waiting is not None and not self._choked and self._turn is None:
            self._wake()
        elif not self._paused and self.engine.buffered > READ_AHEAD:
            self._paused = True
            self._transport.pauseProducing()

    def handshakeCompleted(self) -> None:
        self.agreeing = False
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        # TLS knows us as its producer.
        self.transport = self._transport = None
        self._cancel_watch()
        self._cancel_turn()
        on_lost, self.on_lost = self.on_lost, _nobody
        on_lost()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback((Disconnected, _why(reason)))
        if self._pause is not None:
            (paused, end), self._pause = self._pause, None
            end.cancel()
            paused.errback(Disconnected(_why(reason)))

    def readConnectionLost(self) -> None:
        """The client has closed its side: what it sent before is still answered."""
        self._ended = True
        if self._waiting is not None:
            self._wake()

    def writeConnectionLost(self) -> None:
        """We never close our side alone."""

    def pauseProducing(self) -> None:
        """The transport's buffer is full: the peer does not read its replies."""
        self._choked = True

    def resumeProducing(self) -> None:
        """The transport's buffer has room again."""
        self._choked = False
        if self._waiting is not None:
            self._wake()

    def stopProducing(self) -> None:
        """The transport gave up; `connectionLost` follows."""

    # Inside.

    def _more(self, tired: bool = False) -> Deferred[_End | None]:
        """Fires when there may be another event; for one who is `tired` in the next turn of the reactor."""
        self._waiting = Deferred()
        self._served = 0
        if self._lost:
            waiting, self._waiting = self._waiting, None
            waiting.callback((Disconnected, "connection lost"))
            return waiting
        if tired:
            self._turn = self.clock.callLater(0, self._next_turn)
        elif self._paused and not (tired or self._choked):
            self._paused = False
            self._transport.resumeProducing()
        return self._waiting

    def _next_turn(self) -> None:
        self._turn = None
        self._wake()

    def _cancel_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def _wake(self) -> None:
        self._cancel_turn()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _give_up(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback((TimedOut, "the handshake took too long"))

    def _resume(self) -> None:
        assert self._pause is not None, "the call is cancelled with the pause"
        (paused, _), self._pause = self._pause, None
        paused.callback(None)

    def _interval(self, idle: float) -> float:
        return min(idle or GRACE, GRACE)

    def _look(self) -> None:
        """Has the client been idle or slow for too long? Only a session that waits for it is ended."""
        self._watch = None
        now = self.clock.seconds()
        left = self.heard + (self._idle or inf) - now
        if self._waiting is not None and not self.agreeing and (left <= 0 or self._slow(now)):
            waiting, self._waiting = self._waiting, None
            waiting.callback((TimedOut, "idle" if left <= 0 else "too slow"))
            return
        self._watch = self.clock.callLater(max(min(left, self._interval(self._idle)), 1.0), self._look)

    def _slow(self, now: float) -> bool:
        elapsed = now - self._content_since
        return (
            bool(self._content_since)
            and elapsed >= GRACE
            and self._heard_octets < self.pace.least_rate * elapsed
        )

    def _cancel_watch(self) -> None:
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._watch = None


def _raise(end: _End | None) -> None:
    """Raise how a wait ended, if it was not by what was waited for.

    An exception that went through a Deferred is held by its own traceback (since Python 3.12), and with it
    the session that is over, until the garbage collector comes.
    """
    if end is not None:
        kind, why = end
        raise kind(why)


def _nobody() -> None:
    """Stands where the factory puts what begins the conversation."""


def _facts(connection: SSL.Connection) -> Tls:
    name = connection.get_servername()
    return Tls(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        connection.get_cipher_bits() or 0,
        None if name is None else printable(name.decode("latin-1"), 255),
    )


def _why(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, ConnectionDone):
        return "connection closed"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        # The queue of OpenSSL: library, function and reason of each error, the first of them the cause.
        return str(error.args[0][0][2])
    return str(error)
