"""The seams: what one stage may ask of another, and what it may rely on when things fail.

Stages import this module and never each other; `postoffice.service` hands each its neighbours.
Every seam has a contract test in `tests/contracts.py` that runs against each implementation.

Methods documented as returning a `Deferred` may be awaited in coroutines. Where `None` may stand
in for a Deferred, nothing has to be waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import Attribute, Interface

from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Copy, Destination, Explanation, Fixed
from postoffice.mail.envelope import (
    NO_REQUESTS,
    Body,
    Claim,
    Entry,
    Envelope,
    Letter,
    Recipient,
    Replacement,
    ReportRequest,
    Ret,
    Settlement,
)
from postoffice.mail.greylist import Bounds, Expiry, Record
from postoffice.mail.outcome import Outcome
from postoffice.mail.reply import Refusal, Reply
from postoffice.mail.virtual import AliasSummary, VirtualDomain
from postoffice.milter.edits import Edit, Field
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import Verdict


class SpoolFull(Exception):
    """There is no room for the letter now; nothing of it was kept. Answered with 452."""


class SpoolDamaged(Exception):
    """The spool cannot be trusted; the message names the file and what is wrong with it."""


class SpoolFailed(Exception):
    """The spool could not do what was asked (an input/output error); nothing of it was acknowledged."""


class SpoolInUse(SpoolFailed):
    """Another process uses the spool under the same node's name."""


class StaleClaim(Exception):
    """The claim is not current any more: it lapsed and was taken again, or its letter was deleted."""


@frozen
class NewLetter:
    """What `IDraft.commit` is told: everything about the letter but its content.

    `recipients` pairs each address with the time it is due (epoch seconds). `client` is in log form. A letter
    that is `held_for` a reason is set aside at once. The fields from `smtputf8` on are as in `Envelope`.
    """

    sender: Address | None
    recipients: tuple[tuple[Address, float], ...]
    body: Body
    received: float
    client: str
    id: str = ""
    held_for: str = ""
    smtputf8: bool = False
    ret: Ret = ""
    envid: str = ""
    folder: str = ""
    requests: Mapping[Address, ReportRequest] = NO_REQUESTS

    def stored(self, letter_id: str, size: int) -> Letter:
        """The letter it has become, under this id and with so many octets of content."""
        return Letter(
            letter_id,
            self.sender,
            self.body,
            size,
            self.received,
            self.client,
            self.smtputf8,
            self.ret,
            self.envid,
            self.folder,
        )


class IContent(Interface):
    """The content of one stored letter, CRLF line ends, to be read as often as needed."""

    size: int = Attribute("octets")
    held: bytes | None = Attribute("the whole content where it is in memory, else None")

    def pieces() -> AsyncIterator[bytes]:
        """Yield the content in order, in pieces of at most 256 KiB, waiting for the disk off the reactor."""


class IDraft(Interface):
    """A letter that is coming in. It vanishes on `discard`, on a crash, and when its commit fails."""

    def write(data: bytes) -> Deferred[None] | None:
        """Append content. A Deferred means: wait before writing more (back-pressure).

        Errors: `SpoolFull`, `SpoolFailed`.
        """

    def written() -> Deferred[IContent]:
        """What was written so far, to be read until the draft is written to again, committed or discarded.

        Errors: `SpoolFull`, `SpoolFailed`.
        """

    def commit(new: NewLetter, claim: bool) -> Deferred[tuple[Claim, IContent] | None]:
        """Make the draft a letter. The Deferred fires after the commit that holds all of it was synced.

        With `claim`, the recipients already due are claimed for this node in the same transaction and
        returned with the content, so that it can be relayed from memory; else None.
        Errors: `SpoolFull`, `SpoolFailed`: nothing was kept.
        """

    def discard() -> None:
        """Forget it. Harmless after `commit`."""


class ISpool(Interface):
    """Durable storage of letters until each recipient is delivered or bounced.

    A letter is there wholly or not at all. Every acknowledged letter is handed out by `claim` until
    all its recipients are settled. Two nodes never hold claims on the same recipient at the same time.
    """

    def open() -> Deferred[None]:
        """Open, check and recover: drafts vanish, claims of this node's earlier incarnations are void.

        Errors: `SpoolDamaged` with the file's name; nothing is changed then.
        """

    def close() -> Deferred[None]:
        """Finish what was handed in, then close. Live claims stay in the store; `open` voids them."""

    def draft() -> IDraft:
        """Begin a letter."""

    def new_id() -> str:
        """A fresh queue id: short, unguessable order-free text of letters and digits."""

    def claim(limit: int) -> Deferred[list[tuple[Claim, IContent]]]:
        """Claim the due, unclaimed recipients of at most `limit` letters, those due first first."""

    def renew(claims: Sequence[Claim]) -> Deferred[None]:
        """Lengthen the lease of these claims; those that are no longer current are skipped."""

    def settle(
        claim: Claim, settlements: Sequence[Settlement], bounce: tuple[NewLetter, bytes] | None = None
    ) -> Deferred[None]:
        """Record how attempts ended; recipients of the claim that are not named stay claimed.

        Delivered and failed recipients are forgotten, postponed ones become due again at their
        `due`, with attempt and reply kept with the letter. `bounce` (letter and content) is stored
        in the same transaction. The letter goes when its last recipient went. Errors: `StaleClaim`:
        nothing was recorded, nor will be; `SpoolFull`, `SpoolFailed`: not now, ask again.
        """

    def expand(claim: Claim, replacements: Sequence[Replacement], standing: Sequence[str]) -> Deferred[Claim]:
        """Put the copies that recipients stand for in their place; the claim as it is from then on.

        Copies already due are claimed with it, the others wait. `standing` are the keys (`Copy.key`) of what
        further recipients of the claim stand for. They are remembered with those of all copies as long as
        the letter is there, so that nobody gets a second one, however long after the first.
        Errors: `StaleClaim`, `SpoolFull`, `SpoolFailed`: nothing was changed.
        """

    def next_due() -> Deferred[float | None]:
        """When the earliest unclaimed recipient is due or a foreign claim lapses; None when there is none."""

    def entries() -> Deferred[list[Entry]]:
        """Every letter with its unsettled recipients, oldest first."""

    def content(letter_id: str) -> Deferred[IContent | None]:
        """The content of a letter, None if there is no such letter."""

    def attempts(letter_id: str) -> Deferred[list[tuple[float, Address, str]]]:
        """Time, recipient and reply of each attempt kept with the letter, oldest first."""

    def requeue(letter_id: str | None) -> Deferred[int]:
        """Make the waiting recipients of a letter (None: of all letters) due now; how many there were."""

    def requeue_domain(domain: str, below: bool) -> Deferred[int]:
        """Like `requeue`, for recipients at a domain (any case) and, with `below`, at all below it."""

    def hold(letter_id: str) -> Deferred[bool]:
        """Set a letter aside: it is not claimed until released. False if there is no such letter.

        Why it was set aside before, if it was, stays known.
        """

    def release(letter_id: str) -> Deferred[bool]:
        """End a hold, and forget the reason for it. False if there is no such letter."""

    def delete(letter_id: str) -> Deferred[bool]:
        """Remove a letter, whoever holds claims on it. False if there is no such letter."""


class IDelivery(Interface):
    """One way of getting a letter to a destination."""

    def deliver(
        letter: Letter, content: IContent, destination: Destination, recipients: Sequence[Recipient]
    ) -> Deferred[dict[int, Outcome]]:
        """Attempt delivery to recipients that share a destination: an outcome for each recipient's key.

        Never fails for a reason of the far end or the disk (that is an outcome); a failure of the
        Deferred is a bug, and the queue postpones.
        """

    def stop() -> Deferred[None]:
        """Close idle connections; attempts under way were already finished or cancelled by the caller."""


@frozen
class MailExchanger:
    """One MX record. The null MX of RFC 7505 has an empty `host`."""

    preference: int
    host: str


class NoSuchDomain(Exception):
    """The DNS says that the name does not exist (NXDOMAIN)."""


class ResolverFailure(Exception):
    """The DNS did not give an answer (timeout, SERVFAIL, nonsense): nothing is known. Answered with 4xx."""


class IResolver(Interface):
    """Questions to the DNS, cached by TTL. Names are text, compared without case; a final dot is ignored.

    Errors of every method: `NoSuchDomain`, `ResolverFailure`.
    """

    def exchangers(domain: str) -> Deferred[tuple[MailExchanger, ...]]:
        """The MX records of a domain, lowest preference first, CNAMEs followed; () when it has none."""

    def addresses(host: str) -> Deferred[tuple[str, ...]]:
        """The IPv4 and IPv6 addresses of a host as text, CNAMEs followed; () when it has none."""

    def reverse(ip: str) -> Deferred[str | None]:
        """The forward-confirmed name of an address (its PTR name resolves back to it), else None."""

    def pointer(ip: str) -> Deferred[str | None]:
        """The name an address claims, confirmed or not; None when it has none that could be a host's."""

    def listing(name: str) -> Deferred[tuple[str, ...]]:
        """The A records of a name in a DNS list, which it has when the subject is listed; () else."""

    def texts(name: str) -> Deferred[tuple[str, ...]]:
        """The TXT records of a name, as strangers wrote them (Latin-1); () when it has none."""


class IHomes(Interface):
    """Files in the homes of the system's accounts, read as their owners."""

    def read(account: str, name: str) -> Awaitable[bytes | None]:
        """What a file says, named by its path below the account's home; None where there is none.

        Its owner is the account or root, nobody else may write to it, nor to the directories that lead to it
        from the home on. Errors: `postoffice.home_file.Unsafe`; `OSError` where it could not be read now.
        """


class IDirectory(Interface):
    """Which addresses are ours and where they are delivered. Nothing here waits where the answer is known.

    Errors of every awaitable: `Refusal`, with 451 while the answer cannot be found out.
    """

    def is_local(domain: str) -> Awaitable[bool]:
        """Whether we are the final destination of a domain; a bare name ("") is always ours."""

    def accepts(domain: str) -> Awaitable[bool]:
        """Whether everybody may send to a domain through us: it is ours, or we are one of its exchangers."""

    def is_virtual(domain: str) -> Awaitable[bool]:
        """Whether a domain of ours has users of its own, who are not the system's."""

    def owns(login: str, address: Address) -> Awaitable[bool]:
        """Whether an address is that of an account: mail for it ends in the account's mailbox.

        What users made of their own mail (`.forward`) does not count.
        """

    def check(address: Address) -> Awaitable[None]:
        """Whether a letter for an address of ours would go to anybody; any other address passes.

        Errors: `Refusal` with 550 5.1.1 for what does not exist, 550 5.2.4 and 554 5.4.6 for what stands for
        too many, leads on and on, or in circles.
        """

    def resolve(
        address: Address, fixed: Fixed | None = None, path: Sequence[Address] = ()
    ) -> Awaitable[Destination | tuple[Copy, ...]]:
        """Where a letter for an address goes: one destination, or the copies it stands for, at least one.

        `fixed` is what an earlier answer said of a copy, `path` the addresses by which it was found.
        Errors: `Refusal` with 550 5.1.1 for what does not exist, 554 5.4.6 for what leads back to itself.
        """

    def explain(address: Address) -> Awaitable[Explanation]:
        """How an address comes to what it stands for, the DNS of other domains included."""


class Turned(Refusal):
    """A client is turned away: `reply` stands in for the banner, and the connection closes.

    With `stay` it may stay for a while, in which every command is refused after a pause, so that it does not
    come back at once. One that gets a 554 stays until it quits, and every command is refused.
    """

    def __init__(self, reply: Reply, why: str = "", stay: bool = False) -> None:
        super().__init__(reply, why)
        self.stay = stay


class WrongNumber(Refusal):
    """The client named a user of ours who does not exist."""


class IPolicy(Interface):
    """Whom we talk to, and what we take from them. Asked by the session, which has checked the syntax.

    Nothing here waits where the answer is known. Errors of every awaitable: `Refusal`.
    """

    def client(client: Client) -> Awaitable[Client]:
        """Who a client is, told when it connects: its name, whether it may relay, whether it is marked.

        Errors: `Turned`.
        """

    def helo(client: Client) -> Awaitable[None]:
        """Judge the name a client gave itself (`client.helo`)."""

    def sender(client: Client, sender: Address | None) -> Awaitable[Refusal | None]:
        """Judge the sender of a letter.

        What is returned is the answer to DATA: the letter is put off, but its recipients are heard first.
        """

    def recipient(client: Client, sender: Address | None, address: Address) -> Awaitable[None]:
        """Judge a recipient elsewhere that the client may have mail relayed to."""

    def content(client: Client, sender: Address | None, recipients: Sequence[Address]) -> Awaitable[None]:
        """Judge the whole envelope, before the content is asked for."""

    def wrong_number(client: Client, sender: Address | None) -> None:
        """The client named a recipient of ours that does not exist."""

    def rejected(client: Client, sender: Address | None) -> None:
        """A filter wanted no letter of this sender, whatever comes of that."""

    def accepted(client: Client, envelope: Envelope) -> None:
        """A letter of the client was stored. What is learned from it is found out behind its back."""


@frozen
class Draught:
    """A letter as filters see it: all of the header, our own fields included, and the body behind it."""

    envelope: Envelope
    fields: tuple[Field, ...]
    body: IContent


class IFilterSession(Interface):
    """One filter's part in one session with a client. Trouble is a verdict (`Failed`): nothing here raises.

    After `Failed` only `close` is called. `facts` are up to date with the event.
    """

    hears_refused: bool = Attribute("whether it wants to know of recipients that we refused ourselves")

    with_blank: bool = Attribute("whether values in its edits bring the blank behind the colon themselves")

    lost: str = Attribute("why it could not be asked any more, though nobody asked; empty while it could")

    silent: bool = Attribute("whether the last `Continue` is ours: it was not asked, or does not answer")

    def open() -> Awaitable[Verdict]:
        """Get ready: `Continue`, or `Failed`."""

    def client(facts: Facts) -> Awaitable[Verdict]:
        """A client has come."""

    def helo(facts: Facts) -> Awaitable[Verdict]:
        """It greets, maybe once more."""

    def sender(facts: Facts) -> Awaitable[Verdict]:
        """A letter begins; we would take it."""

    def recipient(facts: Facts) -> Awaitable[Verdict]:
        """A recipient; we would take it unless `facts.refused` says otherwise."""

    def data(facts: Facts) -> Awaitable[Verdict]:
        """The content comes next."""

    def content(facts: Facts, draught: Draught, until: float) -> Awaitable[Verdict]:
        """The whole letter, with what earlier filters changed. By `until` (epoch seconds) it must be over.

        Errors: `SpoolFailed`, when the letter cannot be read.
        """

    def unknown(facts: Facts, line: bytes) -> Awaitable[Verdict]:
        """The client gave a command that we do not know."""

    def edits() -> Sequence[Edit]:
        """What it wants changed in the letter, in order; to be asked once its last word on it is said."""

    def abort() -> None:
        """The letter is over, or comes to nothing. Harmless without one."""

    def close() -> None:
        """The session is over. Who waits for a verdict gets `Failed`."""


class IFilter(Interface):
    """A filter: a milter, a Python filter, the AV program."""

    name: str = Attribute("what logs and DEBUG call it")

    def load() -> None:
        """Make sure that it is there, as far as that can be known. Errors: `LookupError`."""

    def session() -> IFilterSession:
        """Its part in one more session."""


@frozen
class Screened:
    """What the filters made of a letter: with `discard` it goes nowhere, with a reason in `hold` not yet.

    `body` is None where it is as it was; `folder` is as in `Envelope`.
    """

    envelope: Envelope
    fields: tuple[Field, ...]
    body: bytes | None = None
    discard: bool = False
    hold: str = ""


@frozen
class Steps:
    """Events that a filter let go on: how often each, the seconds of all, and those of the longest."""

    counts: Mapping[str, int]
    seconds: float
    longest: float

    def __str__(self) -> str:
        """The events, in their order: `MAIL, 2 RCPT, DATA`."""
        return ", ".join(name if count == 1 else f"{count} {name}" for name, count in self.counts.items())


class IScreening(Interface):
    """All filters' part in one session. Errors of every awaitable: `Refusal`, which is the answer then.

    Where a method was called and refused, the letter is over for the filters, but for a refused recipient.
    """

    def client(client: Client, connections: int = 0) -> Awaitable[None]:
        """Told when a client has come, and when it turns out to be another one. Errors: `Turned`.

        `connections` are those its address has with us now, this one included; 0 where nobody counts.
        """

    def helo(client: Client) -> Awaitable[None]:
        """The client greets."""

    def sender(client: Client, sender: Address | None, line: bytes) -> Awaitable[None]:
        """A letter begins that we would take; `line` is the command. It gets its queue id here."""

    def recipient(address: Address, line: bytes) -> Awaitable[None]:
        """A recipient we would take."""

    def refused_recipient(address: Address, line: bytes, reply: Reply) -> Awaitable[None]:
        """A recipient we refuse; this changes nothing about it."""

    def data(recipients: int) -> Awaitable[None]:
        """So many recipients were taken, and the content comes next."""

    letter_id: str = Attribute("the queue id of the letter that began")

    def content(draught: Draught) -> Awaitable[Screened]:
        """The whole letter. Errors: also `SpoolFull`, `SpoolFailed`."""

    def unknown(client: Client, line: bytes) -> Awaitable[None]:
        """A command that we do not know."""

    def abort() -> None:
        """The letter is over, or comes to nothing. Harmless without one."""

    def close() -> None:
        """The session is over; who waits for filters is refused."""


class IFilters(Interface):
    """The filters of the service."""

    def begin(client: Client, address: str, port: int) -> IScreening | None:
        """Their part in a session at this address and port of ours; None where none has one."""

    def described() -> Sequence[str]:
        """Each filter and its state, for operators."""


class IPasswordHashes(Interface):
    """What can be said of a password by its hash. Never raises for what a file may hold."""

    def usable(stored: str) -> bool:
        """Whether it is a hash of a known form, which a password may fit."""

    def verify(stored: str, password: bytes) -> bool:
        """Whether the password, without NULs, fits the hash. Takes up to seconds: call it in a thread."""

    def make(password: bytes) -> str:
        """A new hash for a password. Takes as long as `verify`."""


class Declined(Exception):
    """What was asked of the files of a virtual domain is not done; the text is for who asked.

    `exit_code` is one of sysexits(3). Nothing was changed.
    """

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class IVirtualFiles(Interface):
    """The passwd and alias files of virtual domains, and the alias file of the system.

    Changes are whole or not at all, and none is lost, whoever else makes one at the same time. What they do
    not concern stays as it is. Errors of every awaitable: `Declined`.
    """

    def find(domain: str) -> Awaitable[VirtualDomain | None]:
        """A virtual domain, active or not, as domains.cf has it now."""

    def users(domain: VirtualDomain) -> Awaitable[list[tuple[str, bool]]]:
        """The users in the order of the file, and whether each has a password that can be checked."""

    def set_password(domain: VirtualDomain, user: str, password: bytes, new: bool) -> Awaitable[None]:
        """Give a user another password; or with `new`, add one who is not there yet."""

    def remove_user(domain: VirtualDomain, user: str) -> Awaitable[None]:
        """Remove a user; the mailbox stays."""

    def aliases(domain: VirtualDomain) -> Awaitable[list[tuple[str, str]]]:
        """Names and targets in the order of the file."""

    def set_alias(domain: VirtualDomain, name: str, targets: Sequence[str]) -> Awaitable[None]:
        """Have a name stand for these targets, whatever it stood for."""

    def remove_alias(domain: VirtualDomain, name: str) -> Awaitable[None]:
        """Remove an alias."""

    def summary(domain: VirtualDomain | None) -> Awaitable[AliasSummary]:
        """Read an alias file, and the lists it includes, as delivery does; None means the system's."""


class StoreFailed(Exception):
    """The store of the policy's memory cannot be used now. Mail is let through, and an error logged."""


class IGreylistStore(Interface):
    """The greylist's records by key, bounded: what must go goes by itself, without anybody waiting.

    Where there are more than it may hold, the longest unseen go first of those that never passed, down to a
    quarter of the room, then the longest unseen of the others. The same holds for the share of a network, so
    that one network cannot push out everybody else's. What was not seen for the time it is kept goes too.
    Records an operator made stay, and take no room. A crash may lose the last seconds.
    """

    def open() -> Deferred[None]:
        """Open what is there. Does not fail: what is damaged is set aside, what cannot be used is logged."""

    def close() -> Deferred[None]:
        """Write what is not written yet, then close."""

    def adapt(bounds: Bounds) -> None:
        """Take over other bounds; they hold from the next time something is written."""

    def get(key: str) -> Record | None:
        """The record, at once. Errors: `StoreFailed`."""

    def put(key: str, record: Record, network: str) -> None:
        """Set a record. `network` says whose share it counts to (the first time it is set), "" nobody's.

        Errors: `StoreFailed` when too much waits to be written.
        """

    def remove(key: str) -> None:
        """Forget a record; harmless if there is none. Errors: as for `put`."""

    def flush() -> Deferred[None]:
        """Fires when everything that was put is written, and what must go has gone. Errors: `StoreFailed`."""

    def records() -> AsyncIterator[list[tuple[str, Record]]]:
        """Everything, in portions of at most a thousand, in no order. Errors: `StoreFailed`."""


class IGreylist(Interface):
    """What operators ask of the greylist. Errors: `StoreFailed`."""

    def records() -> AsyncIterator[list[tuple[str, Record]]]:
        """All records with their keys, in portions."""

    def approve(name: str) -> None:
        """Let a record's mail in. Errors: `ValueError` for what names none, with a text for the operator."""

    def forbid(name: str) -> None:
        """Never let a record's mail in. Errors: as for `approve`."""

    def expire(which: Expiry, dry: bool) -> AsyncIterator[tuple[int, list[str]]]:
        """Remove records, with `dry` only tell: for each portion its size and the keys of those that go."""


class IQueue(Interface):
    """What the doors through which letters come need to know of the queue."""

    immediate: bool = Attribute("whether mail for other hosts is due at once, as local mail is")

    def first_due(local: bool) -> float:
        """When the first attempt for a local or a remote recipient of a new letter is due, epoch seconds."""

    def has_room() -> bool:
        """Whether a new letter may be handed over at once; else the queue fetches it from the spool later."""

    def take(claim: Claim, content: IContent) -> None:
        """Deliver what was just committed and claimed."""

    def wake(due: float) -> None:
        """Something was stored without being claimed that is due then (epoch seconds)."""

    def run(letter_id: str | None) -> Awaitable[int]:
        """Make a letter (None: everything that waits) due now; how many recipients that were."""

    def run_domain(domain: str, below: bool) -> Awaitable[int]:
        """Make recipients at a domain, or with `below` at those below it too, due now; how many they were."""


class IEncryption(IOpenSSLServerConnectionCreator):
    """What our side of an encrypted connection is made with. Sessions under way keep what they have."""

    offered: bool = Attribute("whether there is a certificate, so that clients may ask for TLS")


class IJournal(Interface):
    """What happened, one method per fact an operator asks about. Never raises; keeps no secret."""

    def ready(what: str) -> None:
        """The service listens on `what`."""

    def stalled(seconds: float, work: float) -> None:
        """The reactor was held up for so long, `work` seconds of it by its own work, and all clients too."""

    def stopped(longest_stall: float) -> None:
        """The service ended; the longest time in seconds that the reactor was held up."""

    def admitted(client: Client) -> None:
        """A session begins: the client is greeted next."""

    def refused(client: Client, what: str, reply: Reply, why: str) -> None:
        """A client was refused `what` (a session, a command, a letter)."""

    def secured(client: Client) -> None:
        """A session was encrypted half-way."""

    def handshake_failed(client: Client, why: str) -> None:
        """A client that wanted TLS and we could not agree on it."""

    def accepted(letter_id: str, envelope: Envelope, size: int, client: Client) -> None:
        """A letter of `size` octets was durably stored; its acknowledgement goes out next."""

    def held(letter_id: str, reason: str) -> None:
        """A letter was stored, and set aside."""

    def filtered(
        client: Client,
        name: str,
        what: str,
        letter_id: str,
        verdict: str,
        seconds: float,
        steps: Steps | None = None,
    ) -> None:
        """A filter has said something about `what` (an event), after so many seconds.

        `steps` are events of the letter that it let go on before.
        """

    def passed(client: Client, name: str, letter_id: str, steps: Steps) -> None:
        """Events that a filter let go on, of a letter that came to nothing or of no letter."""

    def settled(
        letter: Letter, recipient: Recipient, outcome: Outcome, destination: Destination | None
    ) -> None:
        """An attempt for one recipient ended."""

    def expanded(letter: Letter, recipient: Recipient, copies: Sequence[Copy]) -> None:
        """A recipient of a letter stands for others, which are its recipients from now on."""

    def bounced(letter: Letter, bounce_id: str, recipients: Sequence[Address]) -> None:
        """The sender of a letter is told that recipients failed."""

    def reported(letter: Letter, report_id: str, recipients: Sequence[Address]) -> None:
        """The sender of a letter is told that recipients were served, as it was asked for."""

    def logged_in(client: Client, mechanism: str) -> None:
        """A client has logged in to the account `client.login`."""

    def managed(client: Client, what: str) -> None:
        """Somebody on this machine has changed a file of a virtual domain, or what becomes of a letter."""

    auditing: bool = Attribute("whether audit records are wanted; ask before making one")

    def audit(client: Client, seconds: int, command: str, code: int, info: str) -> None:
        """A command (`CONN`: the connection) was answered with `code`, so many seconds after the session
        began. `info` is the command with its arguments, or a reason; no secret is in it.
        """

    def wrong_number(client: Client, address: Address, reply: Reply) -> None:
        """A client named an address of ours that does not exist, as a sender or a recipient."""

    def warning(text: str) -> None:
        """Something an operator should look at; the service goes on."""

    def error(text: str, failure: BaseException | None = None) -> None:
        """A bug or a broken part, with its traceback."""
