"""The listener: who may open a session, and everything a session needs to begin.

A factory for one listening address, made by the assembly; all of them share one `Doorkeeper`, which
counts sessions. A connection is turned away here before any engine or TLS is made for it.

When things fail: too many sessions are answered with 451 4.3.2, or where a connection begins with TLS with
nothing, and closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from attrs import evolve, frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from postoffice.interfaces import IDirectory, IEncryption, IFilters, IPolicy
from postoffice.mail.client import Client, is_loopback, network_of, plain_ip
from postoffice.mail.reply import Reply
from postoffice.server.commands import Commands
from postoffice.server.intake import Intake
from postoffice.server.link import Link, Pace
from postoffice.server.portal import Authenticator
from postoffice.server.proxied import Proxied, within
from postoffice.server.session import Session
from postoffice.server.settings import SessionSettings
from postoffice.server.turnstile import EncryptedFactory, Turnstile
from postoffice.smtp.proxy import Announced
from postoffice.smtp.server import ServerEngine

FULL = Reply(451, (3, 2), "Too many connections here, try again later")
# Refused clients that may stay for a while at the same time.
MOST_PAUSING = 20

BUSY = Reply(451, (3, 2), "This machine has too much to do, try again later")
CROWDED = Reply(451, (3, 2), "Too many connections from your address, try again later")

# For the log alone: a proxy that does not keep to its protocol is told nothing.
NOT_ANNOUNCED = Reply(421, (5, 0), "The connection began without a PROXY header")


@frozen
class Limits:
    """Most sessions in all and from one address (0: no limit); `busy` tells when no more may come."""

    clients: int
    per_client: int
    busy: Callable[[], bool] = lambda: False


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
        self.turnstile = Turnstile(clock)
        self.sessions: set[Session] = set()
        # Those of refused clients that may stay a while; they do not count as clients.
        self.pausing: set[Session] = set()
        # Connections that wait for a proxy to say who comes.
        self.expected: set[Proxied] = set()
        self._from: Counter[str] = Counter()
        self._emptied: Deferred[None] | None = None

    def at_home(self, ip: str) -> bool:
        """Whether an address is this machine's own."""
        return ip in self.own_addresses() or is_loopback(ip)

    def admit(self, client: Client) -> Reply | None:
        """None to let a client in, else what it is told."""
        if self.full():
            return FULL
        return BUSY if self.limits.busy() else self._crowded(client)

    def full(self) -> bool:
        """Whether nobody is let in now."""
        inside = len(self.sessions) - len(self.pausing) + len(self.expected)
        return 0 < self.limits.clients <= inside

    def _crowded(self, client: Client) -> Reply | None:
        most = self.limits.per_client
        if not 0 < most <= self._from[network_of(client.ip)]:
            return None
        return None if self.at_home(client.ip) and not client.announced else CROWDED

    def enter(self, session: Session) -> None:
        """A session begins."""
        self.sessions.add(session)
        self._from[network_of(session.client.ip)] += 1

    def rename(self, known: Client, client: Client) -> Reply | None:
        """The client of a session turns out to be another: None to let that in, else what it is told."""
        self._uncount(known.ip)
        refused = self._crowded(client)
        self._from[network_of(known.ip if refused else client.ip)] += 1
        return refused

    def connections(self, known: Client, client: Client) -> int:
        """How many sessions a client's address has, one that was `known` as another's counted as his."""
        near = network_of(client.ip)
        return self._from[near] + (near != network_of(known.ip))

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
        for proxied in list(self.expected):
            proxied.abort()
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
        near = network_of(ip)
        self._from[near] -= 1
        if self._from[near] <= 0:
            del self._from[near]

    def _cut_off(self) -> None:
        for session in list(self.sessions):
            session.cut_off()


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
        filters: IFilters | None = None,
    ) -> None:
        self.settings = settings
        self.pace = pace
        self.doorkeeper = doorkeeper
        self.directory = directory
        self.policy = policy
        self.intake = intake
        self.authenticator = authenticator
        self.filters = filters
        self.clock: IReactorTime = intake.clock
        self.encryption = encryption
        self._tls = EncryptedFactory(encryption, doorkeeper.turnstile, self.clock)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        settings = self.settings
        client = Client(peer_of(addr), getattr(addr, "port", 0), door=settings.door)
        if not settings.proxy or not within(client.ip, settings.proxy):
            return self._receive(client)
        if self.doorkeeper.full():
            return self._turn_away(client, FULL, "limit of sessions reached")
        return Proxied(
            partial(self._announced, client),
            partial(self.intake.journal.refused, client, "session", NOT_ANNOUNCED),
            self.doorkeeper.expected,
            self.clock,
            settings.door == "smtps",
        )

    def _announced(self, proxy: Client, who: Announced) -> Protocol:
        """A proxy has said for whom it speaks."""
        ip = plain_ip(who.ip) if who.ip else proxy.ip
        client = evolve(proxy, ip=ip, port=who.port, announced=True, anonymous=not who.ip)
        return self._receive(client)

    def _turn_away(self, client: Client, reply: Reply, why: str) -> Protocol:
        journal = self.intake.journal
        journal.refused(client, "session", reply, why)
        if journal.auditing:
            journal.audit(client, 0, "CONN", reply.code, why)
        return _Turned(None if self.settings.door == "smtps" else reply)

    def _receive(self, client: Client) -> Protocol:
        settings = self.settings
        refused = self.doorkeeper.admit(client)
        if refused is not None:
            return self._turn_away(client, refused, "limit of sessions reached")
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
        screening, filters = None, self.filters
        if filters is not None:
            here = link.here()
            screening = filters.begin(
                client, plain_ip(getattr(here, "host", "") or "127.0.0.1"), getattr(here, "port", 0)
            )
        commands = Commands(
            link,
            client,
            self.settings,
            self.directory,
            self.policy,
            self.intake,
            self.authenticator,
            screening,
        )
        session = Session(link, commands, self.settings, self.intake.journal, screening)
        if filters is not None:
            commands.filters = filters.described
        commands.may_be = self.doorkeeper.rename
        commands.connections = self.doorkeeper.connections
        session.may_stay = self.doorkeeper.set_aside
        session.conversation = Deferred.fromCoroutine(self._converse(session))

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


class _Turned(Protocol):
    """Says why, where that can be said without TLS, and closes."""

    def __init__(self, reply: Reply | None) -> None:
        self._reply = reply

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self._reply is not None:
            self.transport.write(self._reply.encode())
        self.transport.loseConnection()
