"""What tests of the queue share: a scheduler on the in-memory spool, deliveries that answer from a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from postoffice.interfaces import IContent, IDelivery, IDirectory, IJournal, NewLetter, Steps
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Copy, Destination, Explanation, Fixed, Mailbox, OwnMailbox, Remote
from postoffice.mail.envelope import Envelope, Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Refusal, Reply
from postoffice.queue.scheduler import QueueSettings, Scheduler
from postoffice.spool.memory import MemorySpool, Shelf

SENDER = Address("sender", "example.org")
FINE = Delivered(Reply(250, (0, 0), "taken"))
LATER = Postponed(Reply(451, (4, 1), "not now"), "mx.example.net")
NEVER = Failed(Reply(550, (1, 1), "no such user"), "mx.example.net")
WAITS = (300, 900, 3600)


@implementer(IDirectory)
class Directory:
    """example.org is ours, with a Maildir for every name but `nobody`; `unknown` cannot be looked up.

    `lists` gives what some names stand for.
    """

    def __init__(self) -> None:
        self.lists: dict[str, tuple[str, ...]] = {}
        # Names that lists leave to be looked up, and whether `unknown` can be by now.
        self.onward = {"nobody", "unknown"}
        self.known = False

    async def is_local(self, domain: str) -> bool:
        return _is_local(domain)

    async def is_virtual(self, domain: str) -> bool:
        return domain.lower() == "example.org"

    async def accepts(self, domain: str) -> bool:
        return _is_local(domain)

    async def owns(self, login: str, address: Address) -> bool:
        try:
            found = await self.resolve(address)
        except Refusal as refusal:
            if refusal.reply.temporary:
                raise
            return False
        return isinstance(found, Mailbox) and found.owner.lower() == login.lower()

    async def explain(self, address: Address) -> Explanation:
        raise NotImplementedError

    async def check(self, address: Address) -> None:
        await self.resolve(address)

    async def resolve(
        self, address: Address, fixed: Fixed | None = None, path: Sequence[Address] = ()
    ) -> Destination | tuple[Copy, ...]:
        if address.local == "nobody":
            raise Refusal(Reply(550, (1, 1), "No such user here"))
        if address.local == "unknown" and not self.known:
            raise Refusal(Reply(451, (4, 3), "try again"))
        if address.local == "bug":
            raise ZeroDivisionError
        if not _is_local(address.domain):
            return Remote(address.domain)
        if fixed is None and address.local in self.lists:
            return tuple(self._copy(one, (*path, address)) for one in self.lists[address.local])
        return Mailbox("maildir", f"/mail/{address.local}", address.local)

    def _copy(self, text: str, path: tuple[Address, ...]) -> Copy:
        local, _, domain = text.partition("@")
        if domain != "example.org" or local in self.onward:
            return Copy(Address(local, domain), path)
        mailbox = Mailbox("maildir", f"/mail/{local}", local)
        return Copy(Address(local, domain), path, OwnMailbox(), mailbox)


def _is_local(domain: str) -> bool:
    return domain.lower() in ("", "example.org")


@implementer(IDelivery)
class Delivery:
    """Answers each attempt at once with `answer`, or keeps it in `open` until the test answers it."""

    def __init__(self) -> None:
        self.answer: Callable[[Recipient], Outcome] | None = lambda recipient: FINE
        self.attempts: list[tuple[str, Destination, list[str]]] = []
        self.open: list[tuple[Sequence[Recipient], Deferred[dict[int, Outcome]]]] = []
        self.contents: list[bytes | None] = []

    def deliver(
        self, letter: Letter, content: IContent, destination: Destination, recipients: Sequence[Recipient]
    ) -> Deferred[dict[int, Outcome]]:
        self.attempts.append((letter.id, destination, [str(r.address) for r in recipients]))
        self.contents.append(content.held)
        if self.answer is not None:
            answer = self.answer
            return succeed({recipient.key: answer(recipient) for recipient in recipients})
        waiting: Deferred[dict[int, Outcome]] = Deferred()
        self.open.append((recipients, waiting))
        return waiting

    def finish(self, outcome: Outcome = FINE) -> None:
        """Answer the attempt that has waited longest."""
        recipients, waiting = self.open.pop(0)
        waiting.callback({recipient.key: outcome for recipient in recipients})

    def stop(self) -> Deferred[None]:
        return succeed(None)


@implementer(IJournal)
class Journal:
    """Remembers the facts it is told."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, str]] = []
        self.auditing = False

    def named(self, fact: str) -> list[str]:
        return [text for name, text in self.facts if name == fact]

    def ready(self, what: str) -> None:
        self.facts.append(("ready", what))

    def stalled(self, seconds: float, work: float) -> None:
        self.facts.append(("stalled", str(seconds)))

    def stopped(self, longest_stall: float) -> None:
        self.facts.append(("stopped", ""))

    def admitted(self, client: Client) -> None:
        self.facts.append(("admitted", str(client)))

    def logged_in(self, client: Client, mechanism: str) -> None:
        self.facts.append(("logged in", f"{client.login} {mechanism}"))

    def refused(self, client: Client, what: str, reply: Reply, why: str) -> None:
        self.facts.append(("refused", f"{what}: {reply} ({why})"))

    def audit(self, client: Client, seconds: int, command: str, code: int, info: str) -> None:
        self.facts.append(("audit", f"{seconds} {client.ip} {command} {code} {info}"))

    def wrong_number(self, client: Client, address: Address, reply: Reply) -> None:
        self.facts.append(("wrong number", f"{address}: {reply}"))

    def secured(self, client: Client) -> None:
        self.facts.append(("secured", f"{client}: {client.tls}"))

    def handshake_failed(self, client: Client, why: str) -> None:
        self.facts.append(("handshake failed", f"{client}: {why}"))

    def accepted(self, letter_id: str, envelope: Envelope, size: int, client: Client) -> None:
        self.facts.append(("accepted", letter_id))

    def held(self, letter_id: str, reason: str) -> None:
        self.facts.append(("held", reason))

    def filtered(
        self,
        client: Client,
        name: str,
        what: str,
        letter_id: str,
        verdict: str,
        seconds: float,
        steps: Steps | None = None,
    ) -> None:
        self.facts.append(("filtered", f"{name} {what}: {verdict}"))
        self.facts.append(("took", f"{name} {what}: {seconds:g} s"))
        if steps is not None:
            self._steps(name, letter_id, steps)

    def passed(self, client: Client, name: str, letter_id: str, steps: Steps) -> None:
        self._steps(name, letter_id, steps)

    def _steps(self, name: str, letter_id: str, steps: Steps) -> None:
        whose = "letter" if letter_id else "session"
        self.facts.append(("passed", f"{name} {whose} {steps}: {steps.seconds:g} s, {steps.longest:g} s"))

    def settled(
        self, letter: Letter, recipient: Recipient, outcome: Outcome, destination: Destination | None
    ) -> None:
        self.facts.append((type(outcome).__name__.lower(), str(recipient.address)))

    def expanded(self, letter: Letter, recipient: Recipient, copies: Sequence[Copy]) -> None:
        self.facts.append(
            ("expanded", f"{recipient.address}: {', '.join(str(copy.address) for copy in copies)}")
        )

    def bounced(self, letter: Letter, bounce_id: str, recipients: Sequence[Address]) -> None:
        self.facts.append(("bounced", ", ".join(map(str, recipients))))

    def reported(self, letter: Letter, report_id: str, recipients: Sequence[Address]) -> None:
        self.facts.append(("reported", ", ".join(map(str, recipients))))

    def warning(self, text: str) -> None:
        self.facts.append(("warning", text))

    def error(self, text: str, failure: BaseException | None = None) -> None:
        self.facts.append(("error", f"{text}: {failure!r}"))


class Office:
    """A scheduler with everything around it in memory; `restart` begins again on the same spool."""

    def __init__(self, immediate: bool = True, lifetime: float = 259200.0, run_period: float = 900.0) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.shelf = Shelf()
        self.directory = Directory()
        self.settings = QueueSettings("mx.example.org", WAITS, lifetime, run_period, immediate)
        self.begin()

    def begin(self) -> None:
        self.spool = MemorySpool(self.clock, shelf=self.shelf)
        self.spool.open()
        self.remote, self.local, self.journal = Delivery(), Delivery(), Journal()
        self.scheduler = Scheduler(
            self.spool,
            self.directory,
            {Remote: self.remote, Mailbox: self.local},
            self.journal,
            self.settings,
            self.clock,
            Random(1),
        )

    def post(
        self, *recipients: str, sender: Address | None = SENDER, content: bytes = b"Subject: s\r\n\r\nx\r\n"
    ) -> str:
        """Store a letter as intake does and hand it over; its id."""
        addresses = [Address(*recipient.split("@")) for recipient in recipients]
        draft = self.spool.draft()
        draft.write(content)
        due = [self.scheduler.first_due(_is_local(address.domain)) for address in addresses]
        new = NewLetter(
            sender,
            tuple(zip(addresses, due, strict=True)),
            "7BIT",
            self.clock.seconds(),
            "client",
            self.spool.new_id(),
        )
        claimed: list[object] = []
        draft.commit(new, self.scheduler.has_room()).addCallback(claimed.append)
        claim = claimed[0]
        if claim is not None:
            self.scheduler.take(*claim)  # type: ignore[misc]
        if claim is None or len(claim[0].recipients) < len(due):  # type: ignore[index]
            self.scheduler.wake(max(due) if claim else min(due))
        return new.id

    def entries(self) -> dict[str, list[str]]:
        """What is in the spool: recipients by queue id."""
        found: list[dict[str, list[str]]] = []
        self.spool.entries().addCallback(
            lambda entries: found.append(
                {entry.letter.id: [str(r.address) for r in entry.recipients] for entry in entries}
            )
        )
        return found[0]
