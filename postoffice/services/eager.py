"""Connections that are written to at the end of the reactor's turn, and read in large pieces if much comes.

Twisted keeps what is written until the reactor finds the connection writable, which costs two changes
of the epoll set and a turn of the reactor for each reply. A reply is small and the socket nearly
always has room, so it is sent without asking; what the kernel does not take goes the usual road. Counted
on letters of 4 KiB that came in, one a session, and went on: 8 changes of the epoll set each instead of 20.

Replies are sent together behind everything else that is ready, since each may wake whom it is for, and he
take the processor from us (docs/notes/speed.md has the figures). What is not small is sent at once, so that
the transport's producer hears in time that the peer does not keep up.

What is read at a time grows while the kernel has more than that waiting, and is small again behind it:
a turn of the engine costs the same for any size, but a large buffer is of no use for a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from socket import socket
from typing import Any, cast
from weakref import WeakKeyDictionary

from twisted.internet import unix
from twisted.internet.interfaces import IConnector
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.tcp import Client, Connection, Connector, Port, Server

READ = 96 * 1024
"""Octets read at a time, below the size at which the C library maps pages for each allocation."""

READ_MORE = 256 * 1024
"""Octets read at a time from a connection on which more was waiting than `READ`."""


SMALL = 4096
"""Octets of a connection from which on what was written does not wait for the end of the turn."""


class _Turn:
    """The connections of a reactor on which something waits for the end of its turn."""

    def __init__(self) -> None:
        self._waiting: list[_Eager] = []

    def add(self, connection: _Eager) -> None:
        if not self._waiting:
            cast(Any, connection.reactor).callLater(0, self._end)
        self._waiting.append(connection)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.send_kept()


_turns: WeakKeyDictionary[Any, _Turn] = WeakKeyDictionary()


class _Eager(Connection):
    """`write` sends by itself while nothing waits for the kernel; `doRead` chooses how much it reads."""

    _read_size = READ
    # What waits for the end of the turn, None where nothing does.
    _kept: list[bytes] | None = None
    _kept_size = 0
    _turn: _Turn | None = None

    def write(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept.append(data)
            self._kept_size += len(data)
            if self._kept_size >= SMALL:
                self.send_kept()
        elif not self._is_free():
            super().write(data)
        elif len(data) >= SMALL:
            self._send(data)
        else:
            self._kept, self._kept_size = [data], len(data)
            if self._turn is None:
                self._turn = _turns.setdefault(self.reactor, _Turn())
            self._turn.add(self)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self, *arguments: Any) -> None:
        self.send_kept()
        super().loseConnection(*arguments)

    def send_kept(self) -> None:
        """Send what waits for the end of the turn, if anything does."""
        kept, self._kept = self._kept, None
        if kept:
            self._send(kept[0] if len(kept) == 1 else b"".join(kept))

    def _send(self, data: bytes) -> None:
        if self._is_free():
            sent = self.writeSomeData(data)
            # An error comes up again on the usual road, which knows how to end a connection.
            if isinstance(sent, int) and sent > 0:
                if sent == len(data):
                    return
                data = data[sent:]
        super().write(data)

    def _is_free(self) -> bool:
        """Whether nothing is in the way of writing to the socket itself."""
        return bool(
            self.connected
            and not (self.disconnecting or self.TLS)
            and not (self.dataBuffer or self._tempDataBuffer)
        )

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        self._read_size = READ if len(data) < self._read_size else READ_MORE
        return self._dataReceived(data)


class EagerServer(_Eager, Server):
    """An accepted connection."""


class EagerPort(Port):
    """A listening socket whose connections are `EagerServer`s."""

    transport = EagerServer

    @classmethod
    def adopt(cls, reactor: Any, listening: socket, factory: Factory) -> EagerPort:
        """What `IReactorSocket.adoptStreamPort` does, with this class; the socket is duplicated."""
        port = cls._fromListeningDescriptor(reactor, listening.fileno(), listening.family, factory)
        port.startListening()
        return cast(EagerPort, port)


class EagerClient(_Eager, Client):
    """A connection that we made."""


class EagerUnixClient(_Eager, unix.Client):
    """A connection that we made to a unix socket, which carries no file descriptors."""


class _EagerConnector(Connector):
    def _makeTransport(self) -> EagerClient:
        return EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)


class _EagerUnixConnector(unix.Connector):
    # It inherits an annotation that is of TCP alone.
    def _makeTransport(self) -> Any:
        return EagerUnixClient(self.address, self, self.reactor, self.checkPID)


class EagerReactor:
    """A reactor as remote delivery and the endpoints of filters want one, whose connections are eager."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """What `IReactorTCP.connectTCP` does."""
        connector = _EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector

    def connectUNIX(
        self, address: str, factory: ClientFactory, timeout: float = 30, checkPID: bool = False
    ) -> IConnector:
        """What `IReactorUNIX.connectUNIX` does."""
        connector = _EagerUnixConnector(address, factory, timeout, self._reactor, checkPID)
        connector.connect()
        return connector
