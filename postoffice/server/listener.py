"""The listener: who may open a session, and everything a session needs to begin.

A factory for one listening address, made by the assembly; all of them share one `Doorkeeper`, which
counts sessions. A connection is turned away here before any engine or TLS is made for it.

When things fail: too many sessions are answered with 451 4.3.2, or where a connection begins with TLS with
nothing, and closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from ipaddress import ip_address, ip_network

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from postoffice.interfaces import IDirectory, IEncryption, IPolicy
from postoffice.mail.client import Client
from postoffice.mail.reply import Reply
from postoffice.server.intake import Intake
from postoffice.server.link import Link, Pace
from postoffice.server.portal import Authenticator
from postoffice.server.session import Session, SessionSettings
from postoffice.smtp.server import ServerEngine

FULL = Reply(451, (3, 2), "Too many connections here, try again later")
# Refused clients that may stay for a while at the same time.
MOST_PAUSING = 20

CROWDED = Reply(451, (3, 2), "Too many connections from your address, try again later")


@frozen
class Limits:
    """Most sessions in all and from one address (0: no limit)."""

    clients: int
    per_client: int


class Doorkeeper:
    """Counts the sessions of all listeners, and knows who is at home."""

    def __init__(
        self,
        limits: Limits,
        own_addresses: Callable[[], frozenset[str]],
        clock: IReactorTime,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.own_addresses = own_addresses
        self.sessions: set[Session] = set()
        # Those of refused clients that may stay a while; they do not count as clients.
        self.pausing: set[Session] = set()
        self._from: Counter[str] = Counter()
        self._emptied: Deferred[None] | None = None

    def at_home(self, ip: str) -> bool:
        """Whether an address is this machine's own."""
        return ip in self.own_addresses() or is_loopback(ip)

    def admit(self, ip: str) -> Reply | None:
        """None to let a client in, else what it is told."""
        limits = self.limits
        if limits.clients and len(self.sessions) - len(self.pausing) >= limits.clients:
            return FULL
        if limits.per_client and self._from[crowd(ip)] >= limits.per_client and not self.at_home(ip):
            return CROWDED
        return None

    def enter(self, session: Session) -> None:
        """A session begins."""
        self.sessions.add(session)
        self._from[crowd(session.client.ip)] += 1

    def set_aside(self, session: Session) -> bool:
        """A client is refused; whether it may stay, from now on not counted."""
        if len(self.pausing) >= MOST_PAUSING:
            return False
        self.pausing.add(session)
        self._uncount(session.client.ip)
        return True

    def leave(self, session: Session) -> None:
        """A session ended."""
        self.sessions.discard(session)
        if session in self.pausing:
            self.pausing.discard(session)
        else:
            self._uncount(session.client.ip)
        if self._emptied is not None and not self.sessions:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    async def stop(self, bound: float) -> None:
        """End every session; those that have a letter coming in get `bound` seconds to finish it."""
        if not self.sessions:
            return
        self._emptied = Deferred()
        for session in list(self.sessions):
            session.stop()
        cut = self.clock.callLater(bound, self._cut_off)
        if self.sessions:
            await self._emptied
        if cut.active():
            cut.cancel()

    def _uncount(self, ip: str) -> None:
        near = crowd(ip)
        self._from[near] -= 1
        if self._from[near] <= 0:
            del self._from[near]

    def _cut_off(self) -> None:
        for session in list(self.sessions):
            session.link.abort()


class SmtpFactory(Factory):
    """Makes a link and a session for every connection of one listening address."""

    noisy = False

    def __init__(
        self,
        settings: SessionSettings,
        pace: Pace,
        doorkeeper: Doorkeeper,
        directory: IDirectory,
        policy: IPolicy,
        intake: Intake,
        encryption: IEncryption,
        authenticator: Authenticator,
    ) -> None:
        self.settings = settings
        self.pace = pace
        self.doorkeeper = doorkeeper
        self.directory = directory
        self.policy = policy
        self.intake = intake
        self.authenticator = authenticator
        self.clock: IReactorTime = intake.clock
        self.encryption = encryption
        self._tls = TLSMemoryBIOFactory(encryption, False, self, self.clock)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        settings = self.settings
        client = Client(peer_of(addr), getattr(addr, "port", 0), door=settings.door)
        refused = self.doorkeeper.admit(client.ip)
        if refused is not None:
            journal, why = self.intake.journal, "limit of sessions reached"
            journal.refused(client, "session", refused, why)
            if journal.auditing:
                journal.audit(client, 0, "CONN", refused.code, why)
            return _Turned(None if settings.door == "smtps" else refused)
        tls = self._tls if self.encryption.offered else None
        if tls is None and settings.door == "smtps":
            # The certificate was taken away while we run.
            return _Turned(None)
        engine = ServerEngine(
            bare_newline=settings.bare_newline,
            max_size=settings.size,
            require_helo=settings.require_helo,
            offered=settings.offered,
            lenient_order=settings.lenient_order,
        )
        link = Link(engine, self.clock, self.pace, tls)
        link.begin = partial(self._begin, link, client)
        return link

    def _begin(self, link: Link, client: Client) -> None:
        session = Session(
            link, client, self.settings, self.directory, self.policy, self.intake, self.authenticator
        )
        session.may_stay = partial(self.doorkeeper.set_aside, session)
        Deferred.fromCoroutine(self._converse(session))

    async def _converse(self, session: Session) -> None:
        self.doorkeeper.enter(session)
        try:
            await session.run()
        except Exception as error:
            self.intake.journal.error(f"the session of {session.client} failed", error)
            session.link.close()
        finally:
            self.doorkeeper.leave(session)


class Entrance(Factory):
    """What a socket is listened on with: hands every client to the factory in charge when it comes."""

    noisy = False

    def __init__(self, factory: SmtpFactory) -> None:
        self.factory = factory

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self.factory.buildProtocol(addr)


def peer_of(address: IAddress | None) -> str:
    """The address of a client as text; whoever comes without one is a stranger, but on a unix socket."""
    if isinstance(address, UNIXAddress):
        return "127.0.0.1"
    return plain_ip(getattr(address, "host", "") or "0.0.0.0")


@lru_cache(maxsize=1024)
def is_loopback(ip: str) -> bool:
    """Whether an address is of the loopback network."""
    return ip_address(ip).is_loopback


@lru_cache(maxsize=1024)
def crowd(ip: str) -> str:
    """What counts as one address: in IPv6 a host has a network of its own, 64 bits long."""
    return str(ip_network(f"{ip}/64", strict=False)) if ":" in ip else ip


@lru_cache(maxsize=1024)
def plain_ip(text: str) -> str:
    """An address as text, without a zone, and IPv4 even where it came mapped into IPv6."""
    address = ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


class _Turned(Protocol):
    """Says why, where that can be said without TLS, and closes."""

    def __init__(self, reply: Reply | None) -> None:
        self._reply = reply

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self._reply is not None:
            self.transport.write(self._reply.encode())
        self.transport.loseConnection()
