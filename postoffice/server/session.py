"""The conversation with one SMTP client: what we say to each command, and what we decide.

One coroutine a connection, made by the listener. It asks policy about everything and the directory about
recipients, has log-ins checked, gives the letter to intake and answers; the engine below it has already
refused what is malformed or out of order. RFC 5321 sections 3 and 4; enhanced codes RFC 2034.

When things fail: a `Refusal` from any stage is answered with its reply and logged with its reason;
any other exception is a bug, logged with its traceback and answered with 451 4.3.0. The session goes
on after both, and nothing of an unfinished letter is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred

from postoffice import __version__
from postoffice.config.values import Network
from postoffice.interfaces import IDirectory, IJournal, IPolicy, Turned, WrongNumber
from postoffice.mail.address import Address, path
from postoffice.mail.client import Client, Door
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.server.audit import Audit
from postoffice.server.intake import Incoming, Intake
from postoffice.server.lingering import linger
from postoffice.server.link import Disconnected, HandshakeFailed, Link, TimedOut
from postoffice.server.login import LOG_IN_FIRST, WELCOME, LogIn
from postoffice.server.portal import Authenticator
from postoffice.server.proxied import introduced, within
from postoffice.server.transaction import Transaction
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    Debug,
    EndOfChunk,
    EndOfContent,
    Etrn,
    Event,
    Expand,
    Helo,
    Help,
    Mail,
    Noop,
    Other,
    Quit,
    Rcpt,
    Refused,
    Reset,
    StartTls,
    Verify,
    Xclient,
)
from postoffice.smtp.grammar import is_domain
from postoffice.smtp.xclient import ATTRIBUTES, parse_attributes

OK = Reply(250, (0, 0), "OK")
SENDER_OK = Reply(250, (1, 0), "Sender OK")
RECIPIENT_OK = Reply(250, (1, 5), "Recipient OK")
GO_AHEAD = Reply(354, None, "End data with <CRLF>.<CRLF>")
START_TLS = Reply(220, (0, 0), "Go ahead with TLS")
BYE = Reply(221, (0, 0), "Goodbye")
RELAY_DENIED = Reply(550, (7, 1), "We do not relay mail for you to that domain")
TOO_MANY_RECIPIENTS = Reply(452, (5, 3), "Too many recipients, send the rest in another transaction")
TOO_MANY_ERRORS = Reply(421, (7, 0), "Too many errors, closing the connection")
IDLE = Reply(421, (4, 2), "Timeout, closing the connection")
SHUTDOWN = Reply(421, (3, 2), "Service shutting down, try again later")
BUG = Reply(451, (3, 0), "Something went wrong here, try again later")
UNKNOWN = Reply(500, (5, 1), "Command not recognized")
NO_EXPN = Reply(502, (5, 1), "We do not expand addresses")
VRFY = Reply(252, (1, 5), "Send some mail, we will do our best")
NO_DOMAIN = Reply(501, (5, 4), "Syntax: ETRN [@]domain")
NOT_FOR_YOU = Reply(459, (7, 1), "We do not relay mail for you")
NOTHING_WAITS = Reply(251, (0, 0), "OK, no messages waiting")
# RFC 3463 section 3.2: the mailbox does not exist.
NO_SUCH_USER = (1, 1)
HELP = Reply(
    214,
    (0, 0),
    "Commands: HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY ETRN HELP QUIT\nSee RFC 5321 for their use",
)

# With these a transaction is over when they are refused, for the engine as for us.
_ENDING = frozenset({Mail, Data, EndOfChunk, EndOfContent})


@frozen
class SessionSettings:
    """What the conversation needs to know. `size`, `recipients` and `errors` of 0 mean no limit."""

    host: str
    door: Door = "smtp"
    banner: str = ""
    size: int = 0
    recipients: int = 1000
    errors: int = 20
    open_relay: bool = False
    bare_newline: Literal["normalize", "reject"] = "normalize"
    require_helo: bool = False
    require_auth: bool = False
    auth_plaintext: bool = False
    auth_any_sender: bool = False
    lenient_order: bool = False
    # Networks whose PROXY header is required, and those whose XCLIENT is believed.
    proxy: tuple[Network, ...] = ()
    xclient: tuple[Network, ...] = ()
    # What DEBUG tells besides the envelope; without it there is no DEBUG.
    disclosure: tuple[str, ...] = ()

    @property
    def offered(self) -> frozenset[bytes]:
        """The commands of the engine's `OPTIONAL` that a session begins with."""
        return frozenset({b"ETRN", b"DEBUG"}) if self.disclosure else frozenset({b"ETRN"})

    def greeting(self, client: Client) -> str:
        """The text of the 220 banner: our name, the client's as we know it, and the configured lines."""
        first = f"{self.host} ESMTP Postoffice greets {client.name or f'[{client.ip}]'}"
        return f"{first}\n{self.banner}" if self.banner else first

    def extensions(self, offered: frozenset[bytes]) -> str:
        """The text of the answer to EHLO; `offered` are the commands that not everybody may use."""
        limits = f"\nLIMITS RCPTMAX={self.recipients}" if self.recipients else ""
        lines = (
            f"{self.host}\nPIPELINING\nSIZE {self.size}\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES"
            f"\nCHUNKING\nDSN{limits}\nETRN\nHELP"
        )
        if b"XCLIENT" in offered:
            lines += f"\nXCLIENT {ATTRIBUTES}"
        return f"{lines}\nSTARTTLS" if b"STARTTLS" in offered else lines


class Session:
    """One conversation: `run` it once; it returns when the connection is to be closed or is lost."""

    def __init__(
        self,
        link: Link,
        client: Client,
        settings: SessionSettings,
        directory: IDirectory,
        policy: IPolicy,
        intake: Intake,
        authenticator: Authenticator,
    ) -> None:
        self.link = link
        self.client = client
        # The client as we know it without having heard anything of it.
        self.met = client
        self.settings = settings
        self.directory = directory
        self.policy = policy
        self.intake = intake
        self.journal: IJournal = intake.journal
        self.log_in = LogIn(authenticator, settings.auth_plaintext)
        self.audit = Audit(intake.journal, link.clock)
        self.errors = 0
        self.transaction: Transaction | None = None
        self.incoming: Incoming | None = None
        self.stored: Incoming | None = None
        self.stopping = False
        # Whether a client that is turned away may stay for a while; set by the listener.
        self.may_stay: Callable[[Session], bool] = lambda session: False
        # Whether it may turn out to be another client; as well.
        self.may_be: Callable[[Session, Client], Reply | None] = lambda session, client: None
        self._believed = (
            bool(settings.xclient) and not client.announced and within(client.ip, settings.xclient)
        )
        # Whether XCLIENT named another client, which could not be forgotten when TLS begins.
        self._named = False
        self._meeting: Deferred[Client] | None = None

    async def run(self) -> None:
        """Hold the conversation until it ends, whichever way it ends."""
        link = self.link
        how = "closed"
        try:
            if self.settings.door == "smtps":
                await self._secure()
            if not await self._meet():
                return
            self._welcome()
            while not (link.engine.closing or (self.stopping and self.incoming is None)):
                event = await link.next_event()
                if type(event) is Content:
                    # The bulk of the bytes: not a command, and it has no answer.
                    await self._content(event)
                elif type(event) is Chunk:
                    await self._chunk(event)
                else:
                    reply = await self._reply(event)
                    if self.journal.auditing:
                        self._record(event, reply)
                    link.answer(reply)
                    if self.stored is not None:
                        # Only now, so that no client waits for what the queue begins at once.
                        link.flush()
                        stored, self.stored = self.stored, None
                        stored.pass_on()
                    elif link.engine.securing:
                        await self._secure()
            if self.stopping and not link.engine.closing:
                link.push(SHUTDOWN)
                how = "shutdown"
        except TimedOut as timeout:
            how = "timeout"
            self.journal.refused(self.client, "session", IDLE, f"timed out: {timeout}")
            link.push(IDLE)
        except HandshakeFailed as failure:
            how = "no TLS"
            self.journal.handshake_failed(self.client, str(failure))
        except (Disconnected, CancelledError):
            how = "shutdown" if self.stopping else "EOF"
        finally:
            if self.journal.auditing:
                self.audit.ended(self.client, how)
            self._drop_transaction()
            link.close()

    def _welcome(self) -> None:
        """Let the client in."""
        self.journal.admitted(self.client)
        if self.journal.auditing:
            self.audit.connected(self.client, 220, "")
        self.link.greet(Reply(220, None, self.settings.greeting(self.client)))

    def stop(self) -> None:
        """End the conversation; a letter that is coming in is finished first."""
        self.stopping = True
        if self.incoming is None:
            self.link.push(SHUTDOWN)
            self.link.close()
        if self._meeting is not None:
            # Who the client is does not matter any more, and the DNS may take its time to say.
            self._meeting.cancel()

    async def _meet(self) -> bool:
        """Find out who the client is; false for one that is turned away, which is all done then.

        Errors: `CancelledError` when we are stopped meanwhile.
        """
        self._meeting = Deferred.fromCoroutine(self.policy.client(self.client))
        try:
            self.client = self.met = await self._meeting
            self._offer()
            return True
        except Turned as turned:
            await self._turn_away(turned)
            return False
        finally:
            self._meeting = None

    async def _secure(self) -> None:
        """Encrypt the session, and forget all that the client said (RFC 3207 section 4.2).

        Errors: `HandshakeFailed`.
        """
        tls = await self.link.start_tls()
        self.link.engine.secured()
        self.client = self.met = evolve(self.met, tls=tls)
        if self.settings.door != "smtps":
            # There it is told when the client is let in.
            self.journal.secured(self.client)
        self.log_in = self.log_in.anew()
        self._offer()

    def _offer(self) -> None:
        """Tell the engine which of the commands that are not for everybody this client may use now."""
        may_encrypt = self.link.tls is not None and self.client.tls is None and not self._named
        offered = self.settings.offered
        if may_encrypt:
            offered |= {b"STARTTLS"}
        if self.log_in.offered:
            offered |= {b"AUTH"}
        if self._believed:
            offered |= {b"XCLIENT"}
        self.link.engine.offered = offered

    async def _turn_away(self, turned: Turned) -> None:
        self.journal.refused(self.client, "session", turned.reply, turned.why)
        if self.journal.auditing:
            self.audit.connected(self.client, turned.reply.code, turned.why)
        if turned.stay and self.may_stay(self):
            await linger(self.link, turned.reply, self._record)
        else:
            self.link.greet(turned.reply)

    async def _reply(self, event: Event) -> Reply:
        """Find the answer to an event, whatever goes wrong while looking for it."""
        try:
            reply = await _HANDLERS[type(event)](self, event)
        except Refusal as refusal:
            reply = refusal.reply
            if type(event) is Mail or (type(event) is Refused and event.verb == "MAIL"):
                self.link.hurry(True)
            if type(event) is Rcpt and reply.code == 550 and reply.enhanced == NO_SUCH_USER:
                self.journal.wrong_number(self.client, event.recipient, reply)
            elif type(event) is Mail and event.sender is not None and isinstance(refusal, WrongNumber):
                self.journal.wrong_number(self.client, event.sender, reply)
            else:
                self.journal.refused(self.client, self._what(event), reply, refusal.why)
        except Exception as error:
            self.journal.error(f"{type(event).__name__} of {self.client} failed", error)
            if type(event) in _ENDING:
                self._drop_transaction()
            reply = BUG
        if reply.code >= 500 and self.settings.errors and not (type(event) is Refused and not event.error):
            self.errors += 1
            if self.errors >= self.settings.errors:
                self.journal.refused(
                    self.client, "session", TOO_MANY_ERRORS, f"{self.errors} refused commands"
                )
                return TOO_MANY_ERRORS
        return reply

    def _record(self, event: Event, reply: Reply) -> None:
        """The audit record of a command, where it is wanted."""
        if self.journal.auditing:
            known = type(event) is not Other and (type(event) is not Refused or event.verb != "")
            self.audit.answered(self.client, self.link.engine.line, known, reply)

    def _what(self, event: Event) -> str:
        """The command of an event with its argument, for the log."""
        match event:
            case Mail(sender=sender):
                return f"MAIL FROM:{path(sender)}"
            case Rcpt(recipient=recipient):
                return f"RCPT TO:{path(recipient)}"
            case EndOfContent():
                return "DATA"
            case EndOfChunk():
                return "BDAT"
            case Auth() | AuthResponse():
                return str(self.log_in)
            case Refused(verb=verb):
                return verb or "command"
            case _:
                return type(event).__name__.upper()

    def _drop_transaction(self) -> None:
        self.transaction = None
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            incoming.abort()

    # What each event is answered with.

    async def _helo(self, event: Helo) -> Reply:
        self._drop_transaction()
        client = evolve(self.client, helo=event.name, protocol="ESMTP" if event.extended else "SMTP")
        await self.policy.helo(client)
        self.client = client
        if not event.extended:
            return Reply(250, None, self.settings.host)
        extensions = self.settings.extensions(self.link.engine.offered)
        return Reply(250, None, extensions + self.log_in.announced(client))

    async def _mail(self, event: Mail) -> Reply:
        self._drop_transaction()
        if self.settings.require_auth and self.client.login is None:
            raise Refusal(LOG_IN_FIRST)
        if self.client.login is not None and not self.settings.auth_any_sender:
            await self.log_in.check_sender(self.client, event.sender)
        self.intake.check_room(event.size)
        put_off = await self.policy.sender(self.client, event.sender)
        self.transaction = Transaction(event, put_off)
        self.link.hurry(False)
        return SENDER_OK

    async def _rcpt(self, event: Rcpt) -> Reply:
        transaction = self.transaction
        assert transaction is not None, "the engine lets no RCPT through before MAIL"
        address = event.recipient
        limit = self.settings.recipients
        if limit and len(transaction.recipients) >= limit:
            transaction.over += 1
            if transaction.over == 1:
                raise Refusal(TOO_MANY_RECIPIENTS, f"more than {limit} in one transaction")
            # A client may send all it has before it hears of the limit, but not without end.
            return TOO_MANY_RECIPIENTS if transaction.over <= limit else TOO_MANY_ERRORS
        if await self.directory.accepts(address.domain):
            await self._check(transaction, address)
        elif self.client.may_relay or self.settings.open_relay:
            await self.policy.recipient(self.client, transaction.sender, address)
        else:
            raise Refusal(RELAY_DENIED)
        transaction.add(event, self.client.may_relay)
        return RECIPIENT_OK

    async def _check(self, transaction: Transaction, address: Address) -> None:
        """An address of ours: does it exist?"""
        try:
            await self.directory.check(address)
        except Refusal as refusal:
            if refusal.reply.permanent:
                self.policy.wrong_number(self.client, transaction.sender)
            raise

    async def _data(self, event: Data) -> Reply:
        await self._begin()
        return GO_AHEAD

    async def _begin(self) -> None:
        """The letter's content comes next: may it, and where does it go?"""
        transaction = self.transaction
        assert transaction is not None, "the engine lets no content through without a recipient"
        if transaction.put_off is not None:
            raise transaction.put_off
        envelope = transaction.envelope()
        await self.policy.content(self.client, envelope.sender, envelope.recipients)
        self.incoming = self.intake.begin(self.client, envelope)

    async def _content(self, event: Content) -> None:
        if self.incoming is not None:
            waiting = self.incoming.write(event.data)
            if waiting is not None:
                await waiting

    async def _chunk(self, event: Chunk) -> None:
        """What is wrong with the letter is said at the end of the chunk, as it would be at DATA."""
        self.link.content_began()
        transaction = self.transaction
        assert transaction is not None, "the engine lets no chunk through without a recipient"
        if self.incoming is None:
            try:
                await self._begin()
            except Refusal as refusal:
                transaction.put_off = refusal
            except Exception as error:
                self.journal.error(f"the first chunk of {self.client} failed", error)
                transaction.put_off = Refusal(BUG)

    def _arrived(self, defect: Reply | None) -> Incoming:
        """The letter, or the chunks of it that have come. Errors: `Refusal`."""
        self.link.content_ended()
        transaction, incoming = self.transaction, self.incoming
        if incoming is None:
            assert transaction is not None and transaction.put_off is not None, "content was not begun"
            raise transaction.put_off
        if defect is not None:
            raise Refusal(defect)
        return incoming

    async def _end_of_chunk(self, event: EndOfChunk) -> Reply:
        try:
            self._arrived(event.defect).check()
        except Refusal:
            self._drop_transaction()
            raise
        return Reply(250, (0, 0), f"{event.size} octets received")

    async def _end_of_content(self, event: EndOfContent) -> Reply:
        try:
            incoming = self._arrived(event.defect)
            letter_id = await incoming.finish()
            self.stored = incoming
            await self.policy.accepted(self.client, incoming.envelope)
        finally:
            self._drop_transaction()
        return Reply(250, (0, 0), f"OK, queued as {letter_id}")

    async def _reset(self, event: Reset) -> Reply:
        self._drop_transaction()
        return OK

    async def _auth(self, event: Auth | AuthResponse) -> Reply:
        result = await self.log_in.step(self.client, event)
        if isinstance(result, Reply):
            return result
        self.client = evolve(self.client, login=result.login, may_relay=True, marked="")
        self.journal.logged_in(self.client, self.log_in.mechanism)
        return WELCOME

    async def _noop(self, event: Noop) -> Reply:
        return OK

    async def _verify(self, event: Verify) -> Reply:
        return VRFY

    async def _expand(self, event: Expand) -> Reply:
        return NO_EXPN

    async def _help(self, event: Help) -> Reply:
        return HELP

    async def _start_tls(self, event: StartTls) -> Reply:
        self._drop_transaction()
        return START_TLS

    async def _debug(self, event: Debug) -> Reply:
        settings, transaction = self.settings, self.transaction
        lines = [f"Version: Postoffice {__version__}", f"Host: {settings.host}", *settings.disclosure]
        if transaction is not None:
            recipients = (f"To: {path(address)}" for address in transaction.recipients.values())
            lines[:0] = [f"From: {path(transaction.sender)}", *recipients]
        return Reply(250, (0, 0), "\n".join(map(printable, lines)))

    async def _etrn(self, event: Etrn) -> Reply:
        """Queued mail for a domain is asked for (RFC 1985), which is for those to whom we relay."""
        below, domain = event.argument.startswith("@"), event.argument.removeprefix("@")
        if not is_domain(domain.encode("ascii")):
            raise Refusal(NO_DOMAIN)
        if not (self.client.may_relay or self.settings.open_relay):
            raise Refusal(NOT_FOR_YOU)
        count = await self.intake.queue.run_domain(domain, below)
        if not count:
            return NOTHING_WAITS
        return Reply(253, (0, 0), f"OK, {count} pending messages started")

    async def _xclient(self, event: Xclient) -> Reply:
        """Our peer speaks for somebody else: judge him as if he had just come."""
        self._drop_transaction()
        client = introduced(self.met, parse_attributes(event.attributes))
        try:
            client = await self.policy.client(client)
        except Turned as turned:
            reply = turned.reply
            raise Refusal(evolve(reply, code=521 if reply.permanent else 421), turned.why) from None
        crowded = self.may_be(self, client)
        if crowded is not None:
            raise Refusal(evolve(crowded, code=421), "limit of sessions reached")
        self.client = self.met = client
        self._named = True
        self.log_in = self.log_in.anew()
        self._offer()
        self.journal.admitted(client)
        return Reply(220, None, self.settings.greeting(client))

    async def _quit(self, event: Quit) -> Reply:
        return BYE

    async def _other(self, event: Other) -> Reply:
        return UNKNOWN

    async def _refused(self, event: Refused) -> Reply:
        raise Refusal(event.reply)


_HANDLERS: dict[type, Callable[[Session, Any], Awaitable[Reply]]] = {
    Helo: Session._helo,
    Mail: Session._mail,
    Rcpt: Session._rcpt,
    Data: Session._data,
    EndOfChunk: Session._end_of_chunk,
    EndOfContent: Session._end_of_content,
    Reset: Session._reset,
    Auth: Session._auth,
    AuthResponse: Session._auth,
    Noop: Session._noop,
    Etrn: Session._etrn,
    Xclient: Session._xclient,
    Verify: Session._verify,
    Expand: Session._expand,
    Help: Session._help,
    Debug: Session._debug,
    StartTls: Session._start_tls,
    Quit: Session._quit,
    Other: Session._other,
    Refused: Session._refused,
}
