"""The log-in of one session: AUTH, and what the account that was logged in to may do.

Made by the session, which hands it the events of an AUTH exchange and asks it about senders. RFC 4954.

When things fail: `Refusal`; the third failure of a session ends it with 421.
"""

from __future__ import annotations

from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from postoffice.server.portal import Authenticator, IMailUser
from postoffice.smtp.events import Auth, AuthResponse
from postoffice.smtp.sasl import MECHANISMS, Credentials, Exchange

FAILURES = 3
"""Log-ins a session may fail at."""

WELCOME = Reply(235, (7, 0), "Authentication successful")
ENCRYPT_FIRST = Reply(538, (7, 11), "Encryption is required before you log in: send STARTTLS first")
TOO_MANY_FAILURES = Reply(421, (7, 0), "Too many failed log-ins, closing the connection")
LOG_IN_FIRST = Reply(530, (7, 0), "Authentication required")
NOT_YOURS = Reply(553, (7, 1), "That sender address is not one of your account")

_ANNOUNCED = f"\nAUTH {MECHANISMS}\nAUTH={MECHANISMS}"
_COUNTED = frozenset({454, 535})


class LogIn:
    """The log-in of a session. `plaintext` allows passwords without TLS from other machines."""

    __slots__ = ("_authenticator", "_exchange", "_failures", "_name", "_plaintext", "mechanism", "user")

    def __init__(self, authenticator: Authenticator, plaintext: bool) -> None:
        self._authenticator = authenticator
        self._plaintext = plaintext
        self._exchange: Exchange | None = None
        self._failures = 0
        self._name = ""
        self.mechanism = ""
        self.user: IMailUser | None = None

    def anew(self) -> LogIn:
        """What to go on with when all is forgotten that the client said, but that it failed."""
        fresh = LogIn(self._authenticator, self._plaintext)
        fresh._failures = self._failures
        return fresh

    @property
    def offered(self) -> bool:
        """Whether anybody can log in at all."""
        return self._authenticator.has_accounts()

    def __str__(self) -> str:
        """What the log says was tried."""
        what = f"AUTH {self.mechanism}".rstrip()
        return f"{what} as {self._name}" if self._name else what

    def announced(self, client: Client) -> str:
        """What the answer to EHLO says of it; the second line is for clients older than the standard."""
        return _ANNOUNCED if self.offered and self._may_send_password(client) else ""

    async def step(self, client: Client, event: Auth | AuthResponse) -> Reply | IMailUser:
        """Take an event: how the exchange goes on, or who has logged in. Errors: `Refusal`."""
        try:
            result = self._next(client, event)
            if isinstance(result, Reply):
                return result
            self._name = result.user
            self.user = await self._authenticator.log_in(client, result)
        except Refusal as refusal:
            if refusal.reply.code in _COUNTED:
                self._failures += 1
                if self._failures >= FAILURES:
                    raise Refusal(TOO_MANY_FAILURES, refusal.why) from None
            raise
        return self.user

    def _next(self, client: Client, event: Auth | AuthResponse) -> Reply | Credentials:
        if isinstance(event, AuthResponse):
            assert self._exchange is not None, "the engine lets no response through before AUTH"
            return self._exchange.respond(event.line)
        self._name = self.mechanism = ""
        if not self._may_send_password(client):
            raise Refusal(ENCRYPT_FIRST)
        self._exchange = Exchange(event.mechanism)
        # Only now: what is no mechanism may be a password that came too early.
        self.mechanism = event.mechanism
        return self._exchange.begin(event.initial)

    def _may_send_password(self, client: Client) -> bool:
        return client.tls is not None or client.here or self._plaintext

    async def check_sender(self, client: Client, sender: Address | None) -> None:
        """Whether a client that has logged in may send as this address; as `<>` it may, as receipts are sent.

        Errors: `Refusal`.
        """
        if sender is None:
            return
        if self.user is None:
            self.user = await self._authenticator.vouched(client)
        if not await self.user.owns(sender):
            raise Refusal(NOT_YOURS, f"{sender} is not of {self.user.login}")
