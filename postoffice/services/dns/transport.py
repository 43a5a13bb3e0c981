"""How a query gets to a name server and its reply back: UDP, and TCP where the reply does not fit.

Used by the resolver only. Each query has a socket of its own, connected to the server, on a port chosen at
random by the kernel: together with the random id that is what a forger has to guess. What does not fit the
query is ignored; when that happens often, somebody is guessing, and the answer is fetched over TCP. `ask`
fails with `Silence` when the time is over and with `NoReply` when the server cannot be asked; a cancelled or
finished query leaves no port, connection or delayed call. RFC 1035 section 4.2, RFC 7766, RFC 5452.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast
from typing import Protocol as Shape

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.python.failure import Failure

from postoffice.services.dns.message import is_reply, is_truncated
from postoffice.services.dns.system import Server

_T = TypeVar("_T")

_MOST_STRAYS = 20
_LARGEST_DATAGRAM = 4096


class NoReply(Exception):
    """The server could not be asked or did not answer what was asked; the text says how."""


class Silence(NoReply):
    """The server did not answer in time."""


class Reactor(Shape):
    """What the resolver uses of a reactor: IReactorTime, IReactorUDP and IReactorTCP."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> IDelayedCall: ...

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = ..., maxPacketSize: int = ...
    ) -> IListeningPort: ...

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float = ...
    ) -> IConnector: ...


class Transport:
    """Queries under way to name servers."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._closing: set[Deferred[None]] = set()

    async def ask(self, server: Server, query: bytes, patience: float) -> bytes:
        """The reply of a server, at most 64 KiB, within `patience` seconds. Errors: `Silence`, `NoReply`."""
        deadline = self._reactor.seconds() + patience
        reply = await self._by_datagram(server, query, patience)
        if reply is None or is_truncated(reply):
            reply = await self._by_stream(server, query, deadline - self._reactor.seconds())
        return reply

    def close(self) -> Deferred[None]:
        """Fires when the sockets of finished and cancelled queries are closed."""
        return defer.DeferredList([_copy(each) for each in self._closing]).addCallback(lambda _: None)

    def _by_datagram(self, server: Server, query: bytes, patience: float) -> Deferred[bytes | None]:
        """The reply; None where too much arrived that is no reply."""
        done: Deferred[bytes | None] = Deferred()
        inquiry = _Inquiry(server, query, done)
        interface = "::" if ":" in server[0] else "0.0.0.0"
        try:
            port = self._reactor.listenUDP(0, inquiry, interface, _LARGEST_DATAGRAM)
        except CannotListenError as error:
            return defer.fail(NoReply(f"no socket to ask from ({error.socketError})"))
        try:
            inquiry.send()
        except OSError as error:
            if not done.called:
                done.errback(NoReply(f"cannot be reached ({error.strerror})"))

        def close(result: bytes | Failure | None) -> bytes | Failure | None:
            self._remember(defer.maybeDeferred(port.stopListening))
            return result

        return _within(done, patience, self._reactor).addBoth(close)

    def _by_stream(self, server: Server, query: bytes, patience: float) -> Deferred[bytes]:
        factory = _StreamFactory(query)
        if patience <= 0:
            return defer.fail(Silence("no time left for TCP"))
        connector = self._reactor.connectTCP(*server, factory, timeout=patience)
        self._remember(factory.gone)

        def close(result: bytes | Failure) -> bytes | Failure:
            if not factory.gone.called:
                connector.disconnect()
            return result

        return _within(factory.done, patience, self._reactor).addBoth(close)

    def _remember(self, closing: Deferred[Any]) -> None:
        self._closing.add(closing)
        closing.addBoth(lambda _: self._closing.discard(closing))


class _Inquiry(DatagramProtocol):
    """One query on a socket of its own. `done` gets the reply, or None after too many that are none."""

    noisy = False

    def __init__(self, server: Server, query: bytes, done: Deferred[bytes | None]) -> None:
        self._server = server
        self._query = query
        self._done = done
        self._strays = 0

    def send(self) -> None:
        assert self.transport is not None
        self.transport.connect(*self._server)
        self.transport.write(self._query, self._server)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self._done.called:
            return
        if tuple(addr) == self._server and is_reply(self._query, datagram):
            self._done.callback(datagram)
            return
        self._strays += 1
        if self._strays == _MOST_STRAYS:
            self._done.callback(None)

    def connectionRefused(self) -> None:
        if not self._done.called:
            self._done.errback(NoReply("nothing listens there"))

    def stopProtocol(self) -> None:
        # Reactors that learn of the refusal from the poll close the port instead of saying it.
        self.connectionRefused()


class _Stream(Protocol):
    """One query over a connection: two octets of length, then the message, both ways."""

    def __init__(self, query: bytes, done: Deferred[bytes]) -> None:
        self._query = query
        self._done = done
        self._received = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(len(self._query).to_bytes(2, "big") + self._query)

    def dataReceived(self, data: bytes) -> None:
        if self._done.called:
            return
        self._received += data
        size = int.from_bytes(self._received[:2], "big") + 2
        if len(self._received) < 2 or len(self._received) < size:
            return
        reply = bytes(self._received[2:size])
        if is_reply(self._query, reply):
            self._done.callback(reply)
        else:
            self._done.errback(NoReply("answered something else over TCP"))


class _StreamFactory(ClientFactory):
    """Makes one `_Stream`; `gone` fires when its connection is over or did not come about."""

    noisy = False

    def __init__(self, query: bytes) -> None:
        self.done: Deferred[bytes] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._query = query

    def buildProtocol(self, addr: IAddress | None) -> _Stream:
        return _Stream(self._query, self.done)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._over("cannot be reached over TCP")

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self._over("closed the connection without an answer")

    def _over(self, how: str) -> None:
        self.gone.callback(None)
        if not self.done.called:
            self.done.errback(NoReply(how))


def _within(done: Deferred[_T], patience: float, reactor: Reactor) -> Deferred[_T]:
    def silent(result: object, _patience: float) -> _T:
        raise Silence("did not answer in time")

    return done.addTimeout(patience, cast(IReactorTime, reactor), silent)


def _copy(of: Deferred[None]) -> Deferred[None]:
    copy: Deferred[None] = Deferred()
    of.addBoth(lambda _: copy.callback(None))
    return copy
