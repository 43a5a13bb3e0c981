"""What each command of one SMTP client is answered with, and who the client is.

Made by the session, which holds the conversation. Policy, filters and the directory are asked here or, about
a letter, in `postoffice.server.reception`; log-ins are checked by `postoffice.server.login`. RFC 5321
section 4; enhanced codes RFC 2034.

Errors: `Refusal` for what is refused; any other exception is a bug, and the session's to answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError

from postoffice.interfaces import IDirectory, IJournal, IPolicy, IScreening, Turned
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.server.intake import Intake
from postoffice.server.lingering import BYE
from postoffice.server.link import Link
from postoffice.server.login import LOG_IN_FIRST, WELCOME, LogIn
from postoffice.server.portal import Authenticator
from postoffice.server.proxied import introduced, within
from postoffice.server.reception import Reception
from postoffice.server.settings import SessionSettings
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
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
from postoffice.smtp.server import NOT_OFFERED
from postoffice.smtp.xclient import parse_attributes

OK = Reply(250, (0, 0), "OK")
START_TLS = Reply(220, (0, 0), "Go ahead with TLS")
NO_TLS = Reply(454, (7, 0), "TLS is not available now")
UNKNOWN = Reply(500, (5, 1), "Command not recognized")
NO_EXPN = Reply(502, (5, 1), "We do not expand addresses")
VRFY = Reply(252, (1, 5), "Send some mail, we will do our best")
NO_DOMAIN = Reply(501, (5, 4), "Syntax: ETRN [@]domain")
NOT_FOR_YOU = Reply(459, (7, 1), "We do not relay mail for you")
NOTHING_WAITS = Reply(251, (0, 0), "OK, no messages waiting")
HELP = Reply(
    214,
    (0, 0),
    "Commands: HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY ETRN HELP QUIT\nSee RFC 5321 for their use",
)

# What a client may do whose greeting was refused.
_NEVER_REFUSED = frozenset({Helo, Quit})


class Commands:
    """Our side of the commands. `client` is who asks, as far as we know him now."""

    def __init__(
        self,
        link: Link,
        client: Client,
        settings: SessionSettings,
        directory: IDirectory,
        policy: IPolicy,
        intake: Intake,
        authenticator: Authenticator,
        screening: IScreening | None,
    ) -> None:
        self.client = client
        self.log_in = LogIn(authenticator, settings.auth_plaintext)
        self.reception = Reception(link, settings, directory, policy, intake, screening)
        # Whether it may turn out to be another client; set by the listener.
        self.may_be: Callable[[Client, Client], Reply | None] = lambda known, client: None
        # How many sessions its address has, or would have as another client; as well.
        self.connections: Callable[[Client, Client], int] = lambda known, client: 0
        # Each filter of the service and its state; as well.
        self.filters: Callable[[], Sequence[str]] = tuple
        self._link = link
        # The client as we know it without having heard anything of it.
        self._met = client
        self._settings = settings
        self._policy = policy
        self._queue = intake.queue
        self._journal: IJournal = intake.journal
        self._screening = screening
        # The answer to everything but QUIT and another greeting, where filters refused the last one.
        self._refused_greeting: Reply | None = None
        self._believed = (
            bool(settings.xclient) and not client.announced and within(client.ip, settings.xclient)
        )
        # Whether XCLIENT named another client, which could not be forgotten when TLS begins.
        self._named = False

    async def meet(self) -> None:
        """Find out who the client is. Errors: `Turned`."""
        self.client = self._met = await self._introduce(self.client)
        self._offer()

    async def secure(self) -> None:
        """Encrypt the session, and forget all that the client said (RFC 3207 section 4.2).

        Errors: `HandshakeFailed`.
        """
        tls = await self._link.start_tls()
        self._link.engine.secured()
        self.client = self._met = evolve(self._met, tls=tls)
        if self._settings.door != "smtps":
            # There it is told when the client is let in.
            self._journal.secured(self.client)
        self.log_in = self.log_in.anew()
        self._offer()

    async def answer(self, event: Event) -> Reply:
        """The answer to an event that has one. Errors: `Refusal`."""
        if self._refused_greeting is not None and type(event) not in _NEVER_REFUSED:
            self._link.content_ended()
            raise Refusal(self._refused_greeting, "its greeting was refused")
        handler = _HANDLERS.get(type(event))
        return _FIXED[type(event)] if handler is None else await handler(self, event)

    async def chunk(self, event: Chunk) -> None:
        """A chunk begins; it is answered at its end."""
        if self._refused_greeting is not None:
            # The answer comes at its end.
            self._link.content_began()
            return
        try:
            await self.reception.chunk(self.client, event)
        except CancelledError:
            raise
        except Exception as error:
            self._journal.error(f"the first chunk of {self.client} failed", error)

    async def _introduce(self, client: Client) -> Client:
        """What policy and filters say of a client. Errors: `Turned`."""
        client = await self._policy.client(client)
        if self._screening is not None:
            await self._screening.client(client, self.connections(self.client, client))
        return client

    def _offer(self) -> None:
        """Tell the engine which of the commands that are not for everybody this client may use now."""
        tls = self._link.tls
        may_encrypt = tls is not None and tls.usable and self.client.tls is None and not self._named
        offered = self._settings.offered
        if may_encrypt:
            offered |= {b"STARTTLS"}
        if self.log_in.offered:
            offered |= {b"AUTH"}
        if self._believed:
            offered |= {b"XCLIENT"}
        self._link.engine.offered = offered

    async def _helo(self, event: Helo) -> Reply:
        self.reception.drop()
        client = evolve(self.client, helo=event.name, protocol="ESMTP" if event.extended else "SMTP")
        await self._policy.helo(client)
        if self._screening is not None:
            self._refused_greeting = None
            try:
                await self._screening.helo(client)
            except Refusal as refusal:
                self._refused_greeting = refusal.reply
                raise
        self.client = client
        if not event.extended:
            return Reply(250, None, self._settings.host)
        extensions = self._settings.extensions(self._link.engine.offered)
        return Reply(250, None, extensions + self.log_in.announced(client))

    async def _mail(self, event: Mail) -> Reply:
        self.reception.drop()
        if self._settings.require_auth and self.client.login is None:
            raise Refusal(LOG_IN_FIRST)
        if self.client.login is not None and not self._settings.auth_any_sender:
            await self.log_in.check_sender(self.client, event.sender)
        return await self.reception.mail(self.client, event)

    async def _rcpt(self, event: Rcpt) -> Reply:
        return await self.reception.rcpt(self.client, event)

    async def _data(self, event: Data) -> Reply:
        return await self.reception.data(self.client)

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
        self._journal.logged_in(self.client, self.log_in.mechanism)
        return WELCOME

    async def _start_tls(self, event: StartTls) -> Reply:
        self.reception.drop()
        assert self._link.tls is not None, "the engine lets no STARTTLS through that is not offered"
        if not self._link.tls.usable:
            self._offer()
            raise Refusal(NO_TLS, "there is no certificate any more")
        return START_TLS

    async def _debug(self, event: Debug) -> Reply:
        lines = (*self._settings.disclosed(self.reception.envelope()), *self.filters())
        return Reply(250, (0, 0), "\n".join(map(printable, lines)))

    async def _etrn(self, event: Etrn) -> Reply:
        """Queued mail for a domain is asked for (RFC 1985), which is for those to whom we relay."""
        below, domain = event.argument.startswith("@"), event.argument.removeprefix("@")
        if not is_domain(domain.encode("ascii")):
            raise Refusal(NO_DOMAIN)
        if not (self.client.may_relay or self._settings.open_relay):
            raise Refusal(NOT_FOR_YOU)
        count = await self._queue.run_domain(domain, below)
        if not count:
            return NOTHING_WAITS
        return Reply(253, (0, 0), f"OK, {count} pending messages started")

    async def _xclient(self, event: Xclient) -> Reply:
        """Our peer speaks for somebody else: judge him as if he had just come."""
        self.reception.drop()
        client = introduced(self._met, parse_attributes(event.attributes))
        try:
            client = await self._introduce(client)
        except Turned as turned:
            reply = turned.reply
            raise Refusal(evolve(reply, code=521 if reply.permanent else 421), turned.why) from None
        crowded = self.may_be(self.client, client)
        if crowded is not None:
            raise Refusal(evolve(crowded, code=421), "limit of sessions reached")
        self.client = self._met = client
        self._named = True
        self.log_in = self.log_in.anew()
        self._offer()
        self._journal.admitted(client)
        return Reply(220, None, self._settings.greeting(client))

    async def _other(self, event: Other) -> Reply:
        await self._unknown()
        return UNKNOWN

    async def _expand(self, event: Expand) -> Reply:
        await self._unknown()
        return NO_EXPN

    async def _refused(self, event: Refused) -> Reply:
        if event.reply is NOT_OFFERED and event.verb not in _SECRET:
            await self._unknown()
        raise Refusal(event.reply)

    async def _unknown(self) -> None:
        """Filters hear of what is unknown here or switched off, and may refuse it in their own words."""
        if self._screening is not None:
            await self._screening.unknown(self.client, self._link.engine.line)


_HANDLERS: dict[type, Callable[[Commands, Any], Awaitable[Reply]]] = {
    Helo: Commands._helo,
    Mail: Commands._mail,
    Rcpt: Commands._rcpt,
    Data: Commands._data,
    EndOfChunk: Commands._end_of_chunk,
    EndOfContent: Commands._end_of_content,
    Reset: Commands._reset,
    Auth: Commands._auth,
    AuthResponse: Commands._auth,
    Etrn: Commands._etrn,
    Xclient: Commands._xclient,
    Debug: Commands._debug,
    StartTls: Commands._start_tls,
    Other: Commands._other,
    Expand: Commands._expand,
    Refused: Commands._refused,
}

# Whose lines may hold passwords.
_SECRET = frozenset({"AUTH"})

_FIXED: dict[type, Reply] = {
    Noop: OK,
    Verify: VRFY,
    Help: HELP,
    Quit: BYE,
}
"""What is answered the same whoever asks."""
