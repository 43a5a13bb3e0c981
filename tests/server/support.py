"""A whole office in memory behind one SMTP door, to converse with.

`Visit` is one connection. Dialogues are texts of `C:` and `S:` lines: what the client sends (each line
ended with CRLF), and what the server answers. `S: 250 *` matches any text after the code.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import evolve
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.config.values import Rate
from postoffice.interfaces import IResolver
from postoffice.policy.access import AccessFiles, Denied
from postoffice.policy.client import Clients, ClientSettings
from postoffice.policy.greylist import Greylist
from postoffice.policy.hosts import Subject
from postoffice.policy.lists import Lists
from postoffice.policy.newcomers import Newcomers
from postoffice.policy.policy import Judges, Policy, PolicySettings
from postoffice.policy.rates import Rates
from postoffice.policy.sender import Senders, SenderSettings
from postoffice.server.intake import Intake, IntakeSettings
from postoffice.server.link import Link, Pace
from postoffice.server.listener import Doorkeeper, Limits, SmtpFactory
from postoffice.server.portal import make_authenticator
from postoffice.server.settings import SessionSettings
from postoffice.server.throttle import Throttle
from postoffice.services.tls import Certificates, Pair
from postoffice.watched import Unreadable, Watch
from tests.doubles import StaticResolver
from tests.queue.support import Directory, Office

RULES = PolicySettings("mx.example.org", forward_all=True)
ANY_SENDER = SenderSettings(verify_from=False)
OUTSIDE = "192.0.2.9"
INSIDE = "127.0.0.1"


@implementer(ICredentialsChecker)
class Accounts:
    """Accounts with their passwords, at first none. `waiting` holds up answers, `asked` keeps the names."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.passwords: dict[bytes, bytes] = {}
        self.waiting: Deferred[None] | None = None
        self.asked: list[bytes] = []

    def requestAvatarId(self, credentials: UsernamePassword) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, name: bytes, password: bytes) -> bytes | tuple[()]:
        self.asked.append(name)
        if self.waiting is not None:
            await self.waiting
        if name not in self.passwords:
            raise UnauthorizedLogin("no such user")
        if self.passwords[name] != password:
            raise UnauthorizedLogin("wrong password")
        return name


async def in_lower_case(name: str) -> str:
    """The one spelling of an account's name."""
    return name.lower()


class Door:
    """The office, and a factory that lets clients in. `free` is what the disk has left, None without one."""

    def __init__(self) -> None:
        self.office = Office()
        self.free: int | None = 10**12
        clock = self.office.clock
        self.resolver: IResolver = StaticResolver(
            addresses={"client.example": [OUTSIDE]}, reverse={OUTSIDE: "client.example"}
        )
        self.doorkeeper = Doorkeeper(Limits(100, 20), lambda: frozenset({"198.51.100.1"}), clock)
        self.access = Access()
        self.greylist: Greylist | None = None
        self.intake = Intake(
            self.office.spool,
            self.office.scheduler,
            Directory(),
            self.office.journal,
            IntakeSettings("mx.example.org", 10, 0, "/nowhere"),
            clock,
            self._left,
        )
        self.certificates = Certificates(Watch(clock.seconds, self.office.journal.warning))
        settings = SessionSettings("mx.example.org", recipients=5, errors=4, size=5000)
        self.accounts = Accounts()
        self.throttle = Throttle(clock.seconds)
        authenticator = make_authenticator(
            Directory(), [self.accounts], self.throttle, lambda: bool(self.accounts.passwords), in_lower_case
        )
        self.factory = SmtpFactory(
            settings,
            Pace(300.0, 50),
            self.doorkeeper,
            Directory(),
            self.policy(),
            self.intake,
            self.certificates,
            authenticator,
        )

    def _left(self, directory: str) -> int:
        if self.free is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        return self.free

    def policy(
        self,
        resolver: IResolver | None = None,
        *,
        rules: PolicySettings = RULES,
        senders: SenderSettings = ANY_SENDER,
        dnsbl: Sequence[tuple[str, str]] = (),
        dnswl: Sequence[tuple[str, str]] = (),
        rates: Sequence[Rate] = (),
        **settings: Any,
    ) -> Policy:
        """A policy with these settings; senders and recipients elsewhere are not looked up unless told so."""
        own, dns = self.doorkeeper.own_addresses, resolver or self.resolver
        lists = Lists(dnsbl, dnswl, dns, self.office.journal.warning, self.office.clock.seconds)
        judges = Judges(
            Clients(ClientSettings("mx.example.org", **settings), own, dns, self.access),
            Senders(senders, Directory(), dns),
            lists,
            Rates(rates, self.office.clock.seconds),
            None if self.greylist is None else Newcomers(self.greylist, lists, Directory()),
        )
        return Policy(rules, judges, dns, own)

    def judge(self, resolver: IResolver | None = None, **settings: Any) -> None:
        """Another policy, as `policy` makes it, for the sessions to come."""
        self.factory.policy = self.policy(resolver, **settings)

    def folder(self, path: str) -> IntakeSettings:
        """The settings of intake, with a folder for what marked clients send."""
        return evolve(self.intake.settings, forbidden=path)

    def change(self, **settings: object) -> None:
        """Other settings for the sessions to come."""
        self.factory.settings = evolve(self.factory.settings, **settings)

    def secure(self, *pairs: Pair) -> None:
        """Have certificates, for the sessions to come."""
        self.certificates.take(self.certificates.read(pairs))

    def visit(self, ip: str = INSIDE) -> Visit:
        """Connect."""
        return Visit(self, ip)

    def contents(self) -> list[bytes]:
        """The contents that were delivered, in order."""
        office = self.office
        return [content for content in office.local.contents + office.remote.contents if content is not None]


class Access(AccessFiles):
    """Access files as a table of who is denied, by address or name."""

    def __init__(self) -> None:
        super().__init__("/nowhere", "/nowhere", Watch(lambda: 0.0, str))
        self.denied: dict[str, Denied] = {}
        self.broken = False

    def decide(self, subject: Subject) -> Denied | None:
        if self.broken:
            raise Unreadable("/etc/hosts.deny")
        return self.denied.get(subject.ip) or self.denied.get(subject.name or "UNKNOWN")

    def by_name(self) -> bool:
        return any(not key[0].isdigit() for key in self.denied)


class Visit:
    """One connection: `send` bytes, read what came back with `heard`."""

    def __init__(self, door: Door, ip: str) -> None:
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", ip, 1234))
        protocol = door.factory.buildProtocol(self.transport.getPeer())
        self.protocol = protocol
        self.clock = door.office.clock
        # As a connection has it: whom the bytes go to, which STARTTLS changes.
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    @property
    def link(self) -> Link:
        assert isinstance(self.protocol, Link)
        return self.protocol

    def send(self, data: bytes) -> bytes:
        """Send bytes; what came back at once."""
        self.transport.protocol.dataReceived(data)
        return self.heard()

    def turns(self) -> None:
        """Let the reactor come round until nothing waits for its next turn."""
        self.clock.advance(0)

    def heard(self) -> bytes:
        """What the server said since it was asked last."""
        value: bytes = self.transport.value()
        self.transport.clear()
        return value

    @property
    def closed(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def leave(self) -> None:
        """Close the connection from the client's side, and let go of what the server keeps for it."""
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))

    def play(self, dialogue: str) -> None:
        """Hold a dialogue; the first answer that differs is an AssertionError with both texts."""
        waiting = self.heard().decode("ascii").split("\r\n")[:-1]
        for number, line in enumerate(dialogue.strip().splitlines(), 1):
            side, text = line.strip()[:2], line.strip()[3:]
            if not side:
                continue
            if side == "C:":
                if waiting:
                    raise AssertionError(f"line {number}: not expected: {waiting}")
                waiting = self.send(text.encode("latin-1") + b"\r\n").decode("ascii").split("\r\n")[:-1]
            else:
                said = waiting.pop(0) if waiting else "(nothing)"
                if not (said == text or ("*" in text and fnmatchcase(said, text))):
                    raise AssertionError(f"line {number}: expected {text!r}, got {said!r}")
        if waiting:
            raise AssertionError(f"said more than expected: {waiting}")
