"""A network in memory for tests of remote delivery: a clock that connects, hosts that answer from a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from attrs import define
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, UserError
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.interfaces import IContent

EHLO = b"250-far.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n"
OK = b"250 2.0.0 Ok\r\n"
CLOSE = b"close"
SILENCE = b""


class Connection(StringTransport):
    """Our end of a connection to `host`; what it sent lies in `sent`."""

    def __init__(self, network: Network, protocol: Any, host: Host) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.1", 25))
        self.network = network
        self.protocol = protocol
        self.host = host
        self.sent = b""
        self.open = True
        self.nodelay = False
        self.aborted = False
        self.stuck = False
        self._buffer = b""
        self._in_data = False
        self._rcpt = 0

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.nodelay = enabled

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.disconnecting or not self.open:
            return
        self.sent += data
        if self.stuck and self.producer is not None:
            self.producer.pauseProducing()
        self.network.callLater(0, self._hear, data)

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self.network.callLater(0, self.drop)

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    def drop(self, why: Exception | None = None) -> None:
        """The connection ends."""
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(why or ConnectionDone()))

    def say(self, data: bytes) -> None:
        """The host says something."""
        if self.open and data == CLOSE:
            self.drop()
        elif self.open and data:
            self.protocol.dataReceived(data)

    def _hear(self, data: bytes) -> None:
        self._buffer += data
        while self.open:
            if self._in_data:
                stop = 3 if self._buffer.startswith(b".\r\n") else self._buffer.find(b"\r\n.\r\n") + 5
                if stop == 4:
                    return
                self.host.letters.append(self._buffer[: stop - 3])
                self._buffer, self._in_data = self._buffer[stop:], False
                self.say(self.host.replies.get(".", OK))
                continue
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return
            self._buffer = rest
            self._command(line.decode())

    def _command(self, line: str) -> None:
        self.host.commands.append(line)
        verb = line[:4]
        default = {"EHLO": EHLO, "DATA": b"354 go\r\n", "QUIT": b"221 2.0.0 bye\r\n"}.get(verb, OK)
        reply = self.host.replies.get(line, self.host.replies.get(verb, default))
        reply = self.host.once.pop(verb, reply)
        self._in_data = verb == "DATA" and reply.startswith(b"354")
        self.say(reply)
        if verb == "QUIT" and reply:
            self.drop()


@define(eq=False)
class Host:
    """What a host answers, by verb, by whole command, or by "." for the end of the data; and what it heard.

    A reply in `once` is given once.
    """

    replies: dict[str, bytes]
    once: dict[str, bytes]
    commands: list[str]
    letters: list[bytes]


def host(replies: Mapping[str, bytes] | None = None) -> Host:
    return Host(dict(replies or {}), {}, [], [])


class Connector:
    """A connection that is being made."""

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail = fail

    def stopConnecting(self) -> None:
        self._fail(UserError())


class Network(Clock):
    """A reactor whose connections reach the hosts it knows by (ip, port); None is one that never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[tuple[str, int], Host | None] = {}
        self.tried: list[tuple[str, int]] = []
        self.connections: list[Connection] = []

    def add(self, ip: str, port: int = 25, replies: Mapping[str, bytes] | None = None) -> Host:
        made = host(replies)
        self.hosts[ip, port] = made
        return made

    def connectTCP(self, ip: str, port: int, factory: ClientFactory, timeout: float) -> Connector:
        self.tried.append((ip, port))
        pending: list[Any] = []

        def fail(why: Exception) -> None:
            if pending[0].active():
                pending[0].cancel()
            factory.clientConnectionFailed(connector, Failure(why))  # type: ignore[arg-type]

        connector = Connector(fail)
        if (ip, port) not in self.hosts:
            pending.append(self.callLater(0, fail, error.ConnectionRefusedError()))
        elif (known := self.hosts[ip, port]) is None:
            pending.append(self.callLater(timeout, fail, error.TimeoutError()))
        else:
            pending.append(self.callLater(0, self._connect, factory, known))
        return connector

    def _connect(self, factory: ClientFactory, known: Host) -> None:
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 25))
        connection = Connection(self, protocol, known)
        self.connections.append(connection)
        protocol.makeConnection(connection)
        connection.say(known.replies.get("banner", b"220 far.test ESMTP\r\n"))

    def turn(self) -> None:
        """Everything that happens without time passing."""
        for _ in range(200):
            self.advance(0)


@implementer(IContent)
class Content:
    """Content that is in memory, or comes in pieces; a piece may be an error, or a Deferred to wait for."""

    def __init__(self, *pieces: bytes | Exception | Deferred[bytes], held: bool = False) -> None:
        self.size = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        self.held = b"".join(piece for piece in pieces if isinstance(piece, bytes)) if held else None
        self._pieces = pieces

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece if isinstance(piece, bytes) else await piece
