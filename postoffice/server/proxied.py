"""Clients that come through a proxy: who they are is what the proxy says of them.

`Proxied` stands in front of a connection out of the networks of `proxy` until the PROXY header is read, and
then makes room for the session; `introduced` applies what XCLIENT said. Whoever is announced so is never at
home: the proxy's word that a client has an address of this machine makes nobody one of us.

When things fail: a header that is malformed or does not come in time ends the connection without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from postoffice.config.values import Network
from postoffice.mail.client import Client
from postoffice.server.link import Link
from postoffice.smtp.proxy import Announced, BadHeader, read_header

PATIENCE = 10.0
"""Seconds a proxy may take for its header."""


class Proxied(Protocol):
    """Waits for the header. `open` makes the protocol for whom it announces, `turned` is told what was wrong.

    `expected` has every one of these that waits. With `encrypted` what follows is TLS.
    """

    def __init__(
        self,
        open: Callable[[Announced], Protocol],
        turned: Callable[[str], None],
        expected: set[Proxied],
        clock: IReactorTime,
        encrypted: bool,
    ) -> None:
        self._open = open
        self._turned = turned
        self._expected = expected
        self._clock = clock
        self._encrypted = encrypted
        self._data = b""
        self._late: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._expected.add(self)
        self._late = self._clock.callLater(PATIENCE, self._fail, "no PROXY header in time")

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            found = read_header(self._data)
        except BadHeader as error:
            self._fail(str(error))
            return
        if found is not None:
            self._hand_over(*found)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()

    def abort(self) -> None:
        """Cut the connection off at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def _leave(self) -> None:
        self._expected.discard(self)
        if self._late is not None and self._late.active():
            self._late.cancel()

    def _fail(self, why: str) -> None:
        self._turned(why)
        self._leave()
        self.abort()

    def _hand_over(self, announced: Announced, rest: bytes) -> None:
        self._leave()
        transport: Any = self.transport
        protocol = transport.protocol = self._open(announced)
        if rest and isinstance(protocol, Link) and not self._encrypted:
            # It came before our banner.
            protocol.engine.receive(rest)
        protocol.makeConnection(transport)
        if rest and self._encrypted:
            # TLS has taken its place by now.
            transport.protocol.dataReceived(rest)


@lru_cache(maxsize=1024)
def within(ip: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks."""
    address = ip_address(ip)
    return any(address in network for network in networks)


def introduced(client: Client, attributes: dict[str, str | None]) -> Client:
    """The client as XCLIENT describes it; what is left out stays as it was."""
    changes: dict[str, Any] = {"here": False, "may_relay": False, "marked": "", "nameless": False}
    # Nor is it known by the names of the proxy's address.
    changes["claimed"] = None
    if "ADDR" in attributes or not client.announced:
        changes["anonymous"] = attributes.get("ADDR") is None
    if "ADDR" in attributes:
        changes["ip"] = attributes["ADDR"] or client.ip
        # A name belongs to an address.
        changes["name"] = None
        changes["port"] = 0
    if "NAME" in attributes:
        changes["name"] = attributes["NAME"]
    if "PORT" in attributes:
        changes["port"] = int(attributes["PORT"] or 0)
    if "HELO" in attributes:
        changes["helo"] = attributes["HELO"]
    if "PROTO" in attributes:
        changes["protocol"] = attributes["PROTO"] or "SMTP"
    if "LOGIN" in attributes:
        changes["login"] = attributes["LOGIN"]
    return evolve(client, announced=True, **changes)
