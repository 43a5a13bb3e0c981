"""What tests of the directory share: one made from settings, in a place of its own, with a DNS of tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from postoffice.assembly.registry import Ground, registry_of
from postoffice.config.settings import Settings
from postoffice.directory.accounts import Account, AllAccounts, OneAccount
from postoffice.directory.exchange import Exchange, Machine
from postoffice.directory.homes import OwnHome
from postoffice.directory.lookup import Directory
from postoffice.interfaces import IHomes
from postoffice.mail.address import Address
from postoffice.mail.destination import Copy, Destination, Fixed, Mailbox, Remote
from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.grammar import parse_address
from postoffice.watched import Watch
from tests.doubles import StaticResolver

ANN = "ann"
HOST = "mx.example.net"


@implementer(IHomes)
class EveryHome:
    """A file of these words in every home. `asked` are the accounts it was read as."""

    def __init__(self, words: str) -> None:
        self._words = words
        self.asked: list[str] = []

    async def read(self, account: str, name: str) -> bytes | None:
        self.asked.append(account)
        return self._words.encode()


def at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Calls in another thread, as tests do them."""
    return execute(function, *arguments)


def no_exchange() -> Exchange:
    """A DNS that makes no domain ours."""
    return Exchange(StaticResolver(), Machine("", frozenset[str]), lambda: 0.0)


class DirectoryTestCase(SynchronousTestCase):
    """The machine is mx.example.net, 192.0.2.7; its one user is ann. example.org is virtual, with bob."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.warnings: list[str] = []
        self.place = os.path.abspath(self.mktemp())
        self.home = f"{self.place}/home"
        os.makedirs(self.home)
        os.chmod(self.home, 0o755)
        self.write("virtual/domains.cf", "ann:example.org:1:\n")
        self.write("virtual/example.org/passwd", "bob:x\n")
        self.resolver = StaticResolver(
            mx={"example.com": [(10, "mx.example.com")]}, addresses={"mx.example.com": ["192.0.2.99"]}
        )
        self.accounts: OneAccount | AllAccounts = OneAccount(Account(ANN, 1000, self.home))
        self.homes: IHomes = OwnHome(Account(ANN, os.geteuid(), self.home), at_once)
        self.directory = self.make()

    def write(self, name: str, text: str | bytes) -> str:
        """Write a file below the place, in one step, and let the time go by in which it may go unseen."""
        path = f"{self.place}/{name}"
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(f"{path}.new", "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        os.chmod(f"{path}.new", 0o644)
        os.replace(f"{path}.new", path)
        self.clock.advance(1)
        return path

    def make(self, *lines: str, again: bool = False) -> Directory:
        """The directory that a configuration asks for, at a start or when it is read again."""
        text = "\n".join(
            (
                f"aliases={self.place}/aliases",
                f"virtual={self.place}/virtual",
                "vmailbox=mbox:/vmail/%d",
                "mailbox=mbox:/var/mail",
                *lines,
            )
        )
        settings = Settings.from_text(text, "postoffice.cf")
        if not again:
            self.watch = Watch(self.clock.seconds, self.warnings.append, at_once)
        ground = Ground(
            Account(ANN, 1000, self.home),
            self.accounts,
            self.resolver,
            lambda: frozenset({"127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"}),
            self.homes,
            self.watch,
            self.clock,
        )
        self.directory = registry_of(settings, HOST, ground).directory
        return self.directory

    def resolved(
        self, text: str, fixed: Fixed | None = None, path: tuple[Address, ...] = ()
    ) -> Destination | tuple[Copy, ...]:
        """What the directory makes of an address."""
        work = Deferred.fromCoroutine(self.directory.resolve(parse_address(text), fixed, path))
        # Long expansions let others work.
        while not work.called:
            self.clock.advance(0)
        return self.successResultOf(work)  # type: ignore[no-any-return]

    def copies(self, text: str) -> list[str]:
        """What an address stands for, as texts: mailboxes by their path, other addresses as they are."""
        found = self.resolved(text)
        if not isinstance(found, tuple):
            return [_text(None, found)]
        return [_text(copy.address, copy.destination) for copy in found]

    def refusal(self, text: str) -> Reply:
        """How an address is refused at delivery."""
        return _refused(self, self.directory.resolve(parse_address(text)))

    def checked(self, text: str) -> str:
        """What the check at RCPT says of an address: its reply, or `fine`."""
        work = Deferred.fromCoroutine(self.directory.check(parse_address(text)))
        answers: list[str] = []
        work.addCallbacks(
            lambda _: answers.append("fine"), lambda failure: answers.append(str(failure.value.reply))
        )
        # Long expansions let others work.
        while not answers:
            self.clock.advance(0)
        return answers[0]


def _refused(case: SynchronousTestCase, work: Any) -> Reply:
    reply: Reply = case.failureResultOf(work, Refusal).value.reply
    return reply


def _text(address: Address | None, destination: Destination | None) -> str:
    match destination:
        case None:
            return str(address)
        case Mailbox(path=path):
            return path
        case Remote(domain=domain):
            return f"smtp {domain}"
        case other:
            return str(other)


def written(aliases: Mapping[str, str]) -> str:
    """The text of an alias file."""
    return "".join(f"{name}: {targets}\n" for name, targets in aliases.items())
