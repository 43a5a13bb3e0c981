"""The connection to a milter: how it is made, and the thin protocol on it.

Used by `postoffice.filters.milter`, whose sessions are told what happens (`Conversation`). Names of hosts are
looked up, and each of their addresses is tried. Errors of connecting are whatever Twisted or the system says.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any
from typing import Protocol as Form

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice import wire

# Seconds that a milter has to read the last word.
FAREWELL = 10.0

_LONGEST_PATH = 107


class Conversation(Form):
    """Whoever speaks with the milter."""

    def received(self, data: bytes) -> None:
        """Octets came."""

    def broke(self, why: str) -> None:
        """The connection is gone, and not by our doing."""

    def drained(self) -> None:
        """The milter reads again."""


@implementer(IPushProducer)
class Connection(Protocol):
    """The connection; tells the session what happens on it. There is no transport before it and after it."""

    def __init__(self, session: Conversation, clock: IReactorTime) -> None:
        self._session: Conversation | None = session
        self._clock = clock
        self._farewell: IDelayedCall | None = None
        self.choked = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._session is not None:
            self._session.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        session, self._session = self._session, None
        farewell, self._farewell = self._farewell, None
        self.transport = None
        if farewell is not None and farewell.active():
            farewell.cancel()
        if session is not None:
            done = isinstance(reason.value, ConnectionDone)
            session.broke("the connection was closed" if done else str(reason.value))

    def pauseProducing(self) -> None:
        self.choked = True

    def resumeProducing(self) -> None:
        self.choked = False
        if self._session is not None:
            self._session.drained()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    def end(self, last: bytes, at_once: bool) -> None:
        """Say the last word, if any, and close. Nobody closes twice."""
        self._session = None
        transport: Any = self.transport
        self.transport = None
        if transport is None:
            return
        transport.unregisterProducer()
        if at_once:
            transport.abortConnection()
        else:
            # The system may hold what the milter never reads, and then the connection would stay for ever.
            self._farewell = self._clock.callLater(FAREWELL, transport.abortConnection)
            transport.write(last)
            transport.loseConnection()


def is_address(host: str) -> bool:
    """Whether there is nothing to look up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def connect_unix(path: str, connection: Connection, timeout: float, reactor: Any) -> None:
    """Connect to a unix socket, whose path may be longer than the kernel takes."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        await UNIXClientEndpoint(reactor, path, timeout).connect(_Once(connection))
        return
    folder, name = os.path.split(path)
    with wire.Folder(folder) as opened:
        await UNIXClientEndpoint(reactor, opened.address(name), timeout).connect(_Once(connection))


async def connect_tcp(host: str, port: int, connection: Connection, timeout: float, reactor: Any) -> None:
    """Connect to an address."""
    endpoint = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    await endpoint(reactor, host, port, timeout).connect(_Once(connection))


async def connect_host(host: str, port: int, connection: Connection, timeout: float, reactor: Any) -> None:
    """Connect to a host by its name."""
    await HostnameEndpoint(reactor, host, port, timeout).connect(_Once(connection))


class _Once(Factory[Connection]):
    """Hands out the one connection, and keeps nothing of it."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connections = [connection]

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        return self._connections.pop() if self._connections else None
