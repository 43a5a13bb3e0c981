"""The conversation with one SMTP client: what we say to each command, and what we decide.

One coroutine a connection, made by the listener. It asks policy about everything and the directory about
recipients, has log-ins checked, gives the letter to intake and answers; the engine below it has already
refused what is malformed or out of order. RFC 5321 sections 3 and 4; enhanced codes RFC 2034.

When things fail: a `Refusal` from any stage is answered with its reply and logged with its reason;
any other exception is a bug, logged with its traceback and answered with 451 4.3.0. The session goes
on after both, and nothing of an unfinished letter is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from postoffice.interfaces import IDirectory, IJournal, IPolicy, IScreening, Turned, WrongNumber
from postoffice.mail.address import path
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.server.audit import Audit
from postoffice.server.intake import Intake
from postoffice.server.lingering import BYE, TOO_MANY_ERRORS, linger, refuse_all
from postoffice.server.link import Disconnected, HandshakeFailed, Link, TimedOut
from postoffice.server.login import LOG_IN_FIRST, WELCOME, LogIn
from postoffice.server.portal import Authenticator
from postoffice.server.proxied import introduced, within
from postoffice.server.reception import BUG, Reception
from postoffice.server.settings import SessionSettings
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
from postoffice.smtp.xclient import parse_attributes

OK = Reply(250, (0, 0), "OK")
START_TLS = Reply(220, (0, 0), "Go ahead with TLS")
NO_TLS = Reply(454, (7, 0), "TLS is not available now")
IDLE = Reply(421, (4, 2), "Timeout, closing the connection")
SHUTDOWN = Reply(421, (3, 2), "Service shutting down, try again later")
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

# What a client may do whose greeting was refused.
_NEVER_REFUSED = frozenset({Helo, Quit})


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
        screening: IScreening | None = None,
    ) -> None:
        self.link = link
        self.client = client
        # The client as we know it without having heard anything of it.
        self.met = client
        self.settings = settings
        self.policy = policy
        self.queue = intake.queue
        self.journal: IJournal = intake.journal
        self.log_in = LogIn(authenticator, settings.auth_plaintext)
        self.audit = Audit(intake.journal, link.clock)
        self.reception = Reception(link, settings, directory, policy, intake, screening)
        self.screening = screening
        if screening is not None:
            # Nobody waits for filters whose client has gone.
            link.on_lost = screening.close
        # The answer to everything but QUIT and another greeting, where filters refused the last one.
        self.refused: Reply | None = None
        self.errors = 0
        self.stopping = False
        # Whether a client that is turned away may stay for a while; set by the listener.
        self.may_stay: Callable[[Session], bool] = lambda session: False
        # What `run` is held by, to end it wherever it waits; as well.
        self.conversation: Deferred[None] | None = None
        # Whether it may turn out to be another client; as well.
        self.may_be: Callable[[Session, Client], Reply | None] = lambda session, client: None
        # How many sessions its address has, or would have as another client; as well.
        self.connections: Callable[[Session, Client], int] = lambda session, client: 0
        # Each filter of the service and its state; as well.
        self.filters: Callable[[], Sequence[str]] = tuple
        self._believed = (
            bool(settings.xclient) and not client.announced and within(client.ip, settings.xclient)
        )
        # Whether XCLIENT named another client, which could not be forgotten when TLS begins.
        self._named = False

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
            while not (link.engine.closing or (self.stopping and not self.reception.busy)):
                event = await link.next_event()
                if type(event) is Content:
                    # The bulk of the bytes: not a command, and it has no answer.
                    await self.reception.content(event.data)
                elif type(event) is Chunk:
                    await self._chunk(event)
                else:
                    reply = await self._reply(event)
                    if self.journal.auditing:
                        self._record(event, reply)
                    link.answer(reply)
                    if self.reception.stored:
                        # Only now, so that no client waits for what the queue begins at once.
                        link.flush()
                        self.reception.pass_on()
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
            self.reception.drop()
            if self.screening is not None:
                self.screening.close()
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
        if not self.reception.busy:
            self.link.push(SHUTDOWN)
            self.link.close()
            self._give_up()

    def cut_off(self) -> None:
        """End the conversation now; only a letter that is complete is stored."""
        self.link.abort()
        if not self.reception.busy:
            self._give_up()

    def _give_up(self) -> None:
        """Whatever is being asked does not matter any more, and the DNS may take its time to answer it."""
        if self.conversation is not None and not self.link.waited_for:
            self.conversation.cancel()

    async def _meet(self) -> bool:
        """Find out who the client is; false for one that is turned away, which is all done then."""
        try:
            self.client = self.met = await self._introduce(self.client)
        except Turned as turned:
            await self._turn_away(turned)
            return False
        self._offer()
        return True

    async def _introduce(self, client: Client) -> Client:
        """What policy and filters say of a client. Errors: `Turned`."""
        client = await self.policy.client(client)
        if self.screening is not None:
            await self.screening.client(client, self.connections(self, client))
        return client

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
        tls = self.link.tls
        may_encrypt = tls is not None and tls.usable and self.client.tls is None and not self._named
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
        if self.screening is not None:
            # They are done with it, however long it stays.
            self.screening.close()
        if turned.stay and self.may_stay(self):
            await linger(self.link, turned.reply, self._record)
        elif turned.reply.code == 554:
            await refuse_all(self.link, turned.reply, self.settings.errors, self._record)
        else:
            self.link.greet(turned.reply)

    async def _reply(self, event: Event) -> Reply:
        """Find the answer to an event, whatever goes wrong while looking for it."""
        try:
            if self.refused is not None and type(event) not in _NEVER_REFUSED:
                self.link.content_ended()
                raise Refusal(self.refused, "its greeting was refused")
            handler = _HANDLERS.get(type(event))
            reply = _FIXED[type(event)] if handler is None else await handler(self, event)
        except Refusal as refusal:
            reply = refusal.reply
            if type(event) in _ENDING:
                self.reception.drop()
            if type(event) is Mail or (type(event) is Refused and event.verb == "MAIL"):
                self.link.hurry(True)
            if type(event) is Rcpt and reply.code == 550 and reply.enhanced == NO_SUCH_USER:
                self.journal.wrong_number(self.client, event.recipient, reply)
            elif type(event) is Mail and event.sender is not None and isinstance(refusal, WrongNumber):
                self.journal.wrong_number(self.client, event.sender, reply)
            else:
                self.journal.refused(self.client, self._what(event), reply, refusal.why)
        except CancelledError:
            raise
        except Exception as error:
            self.journal.error(f"{type(event).__name__} of {self.client} failed", error)
            if type(event) in _ENDING:
                self.reception.drop()
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
            case Helo(name=name):
                return f"HELO {name}"
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

    # What each event is answered with.

    async def _helo(self, event: Helo) -> Reply:
        self.reception.drop()
        client = evolve(self.client, helo=event.name, protocol="ESMTP" if event.extended else "SMTP")
        await self.policy.helo(client)
        if self.screening is not None:
            self.refused = None
            try:
                await self.screening.helo(client)
            except Refusal as refusal:
                self.refused = refusal.reply
                raise
        self.client = client
        if not event.extended:
            return Reply(250, None, self.settings.host)
        extensions = self.settings.extensions(self.link.engine.offered)
        return Reply(250, None, extensions + self.log_in.announced(client))

    async def _mail(self, event: Mail) -> Reply:
        self.reception.drop()
        if self.settings.require_auth and self.client.login is None:
            raise Refusal(LOG_IN_FIRST)
        if self.client.login is not None and not self.settings.auth_any_sender:
            await self.log_in.check_sender(self.client, event.sender)
        return await self.reception.mail(self.client, event)

    async def _rcpt(self, event: Rcpt) -> Reply:
        return await self.reception.rcpt(self.client, event)

    async def _data(self, event: Data) -> Reply:
        return await self.reception.data(self.client)

    async def _chunk(self, event: Chunk) -> None:
        if self.refused is not None:
            # The answer comes at its end.
            self.link.content_began()
            return
        try:
            await self.reception.chunk(self.client, event)
        except CancelledError:
            raise
        except Exception as error:
            self.journal.error(f"the first chunk of {self.client} failed", error)

    async def _end_of_chunk(self, event: EndOfChunk) -> Reply:
        return await self.reception.end_of_chunk(event)

    async def _end_of_content(self, event: EndOfContent) -> Reply:
        return await self.reception.end_of_content(self.client, event)

    async def _reset(self, event: Reset) -> Reply:
        self.reception.drop()
        return OK

    async def _auth(self, event: Auth | AuthResponse) -> Reply:
        result = await self.log_in.step(self.client, event)
        if isinstance(result, Reply):
            return result
        self.client = evolve(
            self.client, login=result.login, may_relay=True, marked="", mechanism=self.log_in.mechanism
        )
        self.journal.logged_in(self.client, self.log_in.mechanism)
        return WELCOME

    async def _start_tls(self, event: StartTls) -> Reply:
        self.reception.drop()
        assert self.link.tls is not None, "the engine lets no STARTTLS through that is not offered"
        if not self.link.tls.usable:
            self._offer()
            raise Refusal(NO_TLS, "there is no certificate any more")
        return START_TLS

    async def _debug(self, event: Debug) -> Reply:
        lines = (*self.settings.disclosed(self.reception.envelope()), *self.filters())
        return Reply(250, (0, 0), "\n".join(map(printable, lines)))

    async def _etrn(self, event: Etrn) -> Reply:
        """Queued mail for a domain is asked for (RFC 1985), which is for those to whom we relay."""
        below, domain = event.argument.startswith("@"), event.argument.removeprefix("@")
        if not is_domain(domain.encode("ascii")):
            raise Refusal(NO_DOMAIN)
        if not (self.client.may_relay or self.settings.open_relay):
            raise Refusal(NOT_FOR_YOU)
        count = await self.queue.run_domain(domain, below)
        if not count:
            return NOTHING_WAITS
        return Reply(253, (0, 0), f"OK, {count} pending messages started")

    async def _xclient(self, event: Xclient) -> Reply:
        """Our peer speaks for somebody else: judge him as if he had just come."""
        self.reception.drop()
        client = introduced(self.met, parse_attributes(event.attributes))
        try:
            client = await self._introduce(client)
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

    async def _other(self, event: Other) -> Reply:
        if self.screening is not None:
            await self.screening.unknown(self.client, self.link.engine.line)
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
    Etrn: Session._etrn,
    Xclient: Session._xclient,
    Debug: Session._debug,
    StartTls: Session._start_tls,
    Other: Session._other,
    Refused: Session._refused,
}

_FIXED: dict[type, Reply] = {
    Noop: OK,
    Verify: VRFY,
    Expand: NO_EXPN,
    Help: HELP,
    Quit: BYE,
}
"""What is answered the same whoever asks."""
