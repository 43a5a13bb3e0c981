"""The sockets the service listens on.

They are bound while we may still be root (ports below 1024), and listened on only when everything
behind them is ready, so that nobody is let in who cannot be served.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from postoffice.config.places import Endpoint, Listen, Tcp
from postoffice.services.eager import EagerPort

# Connections that may wait for us to accept them while we are busy.
BACKLOG = 1024


class Sockets:
    """Places, and the factory of each. `bind` first, `listen` when ready, `close` at the end."""

    def __init__(self, places: Iterable[tuple[Sequence[Listen], Factory]], reactor: Any) -> None:
        self._places = [(place, factory) for group, factory in places for place in group]
        self._reactor = reactor
        self._bound: list[tuple[socket.socket, Factory]] = []
        self._ports: list[IListeningPort] = []

    def bind(self) -> None:
        """Take the addresses. Errors: OSError that names the address.

        Where every address is meant, a machine without IPv6 does with its others.
        """
        for place, factory in self._places:
            if isinstance(place, Tcp):
                try:
                    self._bound.append((_bind(place), factory))
                except OSError as error:
                    every = place.host == "::" and (Tcp("0.0.0.0", place.port), factory) in self._places
                    if not every or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise

    async def listen(self) -> str:
        """Let clients in; says where, for the log. Errors: OSError that names the address, or whatever an
        endpoint cannot do.
        """
        for bound, factory in self._bound:
            try:
                bound.listen(BACKLOG)
            except OSError as error:
                # Two of us may bind the same address, but only one can listen there.
                host, port = bound.getsockname()[:2]
                raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from None
            self._ports.append(EagerPort.adopt(self._reactor, bound, factory))
            bound.close()
        self._bound.clear()
        for place, factory in self._places:
            if isinstance(place, Endpoint):
                endpoint = serverFromString(self._reactor, place.description)
                self._ports.append(await endpoint.listen(factory))
        return ", ".join(_name(port) for port in self._ports)

    def close(self) -> Deferred[Any]:
        """Let nobody in any more."""
        for bound, _ in self._bound:
            bound.close()
        self._bound.clear()
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])


def _bind(place: Tcp) -> socket.socket:
    bound = None
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise OSError(error.errno, f"cannot listen on {place.host}:{place.port}: {error.strerror}") from None
    bound.setblocking(False)
    return bound


def _name(port: IListeningPort) -> str:
    address = port.getHost()
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return str(getattr(address, "name", address))
