"""The letters of one session: what MAIL, RCPT, DATA, BDAT and the content behind them are answered with.

Made by the session, which hands it those events with the client as it is known by then, and asks nothing
else about a transaction. It asks policy and the directory, and gives what comes in to intake. RFC 5321
section 3.3, RFC 3030.

When things fail: `Refusal`, and nothing of an unfinished letter is kept.
"""

from __future__ import annotations

from postoffice.interfaces import IDirectory, IPolicy, IScreening
from postoffice.mail.address import Address, path
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from postoffice.server.intake import Incoming, Intake
from postoffice.server.link import Link
from postoffice.server.screened import ScreenedIncoming
from postoffice.server.settings import SessionSettings
from postoffice.server.transaction import Transaction
from postoffice.smtp.events import Chunk, EndOfChunk, EndOfContent, Mail, Rcpt

SENDER_OK = Reply(250, (1, 0), "Sender OK")
RECIPIENT_OK = Reply(250, (1, 5), "Recipient OK")
GO_AHEAD = Reply(354, None, "End data with <CRLF>.<CRLF>")
RELAY_DENIED = Reply(550, (7, 1), "We do not relay mail for you to that domain")
TOO_MANY_RECIPIENTS = Reply(452, (5, 3), "Too many recipients, send the rest in another transaction")
FAR_TOO_MANY = Reply(421, (7, 0), "Too many errors, closing the connection")
BUG = Reply(451, (3, 0), "Something went wrong here, try again later")


class Reception:
    """What one session hands in, letter by letter."""

    __slots__ = (
        "_directory",
        "_incoming",
        "_intake",
        "_link",
        "_policy",
        "_screening",
        "_settings",
        "_stored",
        "_transaction",
    )

    def __init__(
        self,
        link: Link,
        settings: SessionSettings,
        directory: IDirectory,
        policy: IPolicy,
        intake: Intake,
        screening: IScreening | None,
    ) -> None:
        self._link = link
        self._settings = settings
        self._directory = directory
        self._policy = policy
        self._intake = intake
        self._screening = screening
        self._transaction: Transaction | None = None
        self._incoming: Incoming | None = None
        self._stored: Incoming | None = None

    @property
    def busy(self) -> bool:
        """Whether a letter is coming in."""
        return self._incoming is not None

    @property
    def stored(self) -> bool:
        """Whether a letter waits for `pass_on`."""
        return self._stored is not None

    def envelope(self) -> tuple[str, ...]:
        """The transaction so far, a line for the sender and one for each recipient; empty without one."""
        transaction = self._transaction
        if transaction is None:
            return ()
        recipients = (f"To: {path(address)}" for address in transaction.recipients.values())
        return (f"From: {path(transaction.sender)}", *recipients)

    def drop(self) -> None:
        """The transaction is over; what has come of a letter is forgotten."""
        self._transaction = None
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()
        if self._screening is not None:
            self._screening.abort()

    def pass_on(self) -> None:
        """Hand the letter that was acknowledged to the queue."""
        stored, self._stored = self._stored, None
        if stored is not None:
            stored.pass_on()

    async def mail(self, client: Client, event: Mail) -> Reply:
        """A letter is announced."""
        self._intake.check_room(event.size)
        put_off = await self._policy.sender(client, event.sender)
        if self._screening is not None:
            await self._screening.sender(client, event.sender, self._link.engine.line)
        self._transaction = Transaction(event, put_off)
        self._link.hurry(False)
        return SENDER_OK

    async def rcpt(self, client: Client, event: Rcpt) -> Reply:
        """A recipient is named."""
        transaction, screening = self._transaction, self._screening
        assert transaction is not None, "the engine lets no RCPT through before MAIL"
        try:
            reply = await self._judge(client, transaction, event.recipient)
        except Refusal as refusal:
            if screening is not None:
                await screening.refused_recipient(event.recipient, self._link.engine.line, refusal.reply)
            raise
        if reply is RECIPIENT_OK:
            if screening is not None:
                await screening.recipient(event.recipient, self._link.engine.line)
            transaction.add(event, client.may_relay)
        return reply

    async def _judge(self, client: Client, transaction: Transaction, address: Address) -> Reply:
        """What we say to a recipient ourselves. Errors: `Refusal`."""
        limit = self._settings.recipients
        if limit and len(transaction.recipients) >= limit:
            transaction.over += 1
            if transaction.over == 1:
                raise Refusal(TOO_MANY_RECIPIENTS, f"more than {limit} in one transaction")
            # A client may send all it has before it hears of the limit, but not without end.
            return TOO_MANY_RECIPIENTS if transaction.over <= limit else FAR_TOO_MANY
        if await self._directory.accepts(address.domain):
            await self._check(client, transaction, address)
        elif client.may_relay or self._settings.open_relay:
            await self._policy.recipient(client, transaction.sender, address)
        else:
            raise Refusal(RELAY_DENIED)
        return RECIPIENT_OK

    async def _check(self, client: Client, transaction: Transaction, address: Address) -> None:
        """An address of ours: does it exist?"""
        try:
            await self._directory.check(address)
        except Refusal as refusal:
            if refusal.reply.permanent:
                self._policy.wrong_number(client, transaction.sender)
            raise

    async def data(self, client: Client) -> Reply:
        """The content comes next, if it may."""
        await self._begin(client)
        return GO_AHEAD

    async def _begin(self, client: Client) -> None:
        """The letter's content comes next: may it, and where does it go?"""
        transaction = self._transaction
        assert transaction is not None, "the engine lets no content through without a recipient"
        if transaction.put_off is not None:
            raise transaction.put_off
        envelope = transaction.envelope()
        await self._policy.content(client, envelope.sender, envelope.recipients)
        if self._screening is None:
            self._incoming = self._intake.begin(client, envelope)
        else:
            await self._screening.data(len(envelope.recipients))
            self._incoming = ScreenedIncoming(self._intake, client, envelope, self._screening)

    async def content(self, data: bytes) -> None:
        """Take a piece of content."""
        if self._incoming is not None:
            waiting = self._incoming.write(data)
            if waiting is not None:
                await waiting

    async def chunk(self, client: Client, event: Chunk) -> None:
        """What is wrong with the letter is said at the end of the chunk, as it would be at DATA.

        Any exception but `Refusal` is left to the caller; the letter is refused all the same.
        """
        self._link.content_began()
        transaction = self._transaction
        assert transaction is not None, "the engine lets no chunk through without a recipient"
        if self._incoming is None:
            try:
                await self._begin(client)
            except Refusal as refusal:
                transaction.put_off = refusal
            except Exception:
                transaction.put_off = Refusal(BUG)
                raise

    async def end_of_chunk(self, event: EndOfChunk) -> Reply:
        """A chunk is complete, and more follow."""
        try:
            self._arrived(event.defect).check()
        except Refusal:
            self.drop()
            raise
        return Reply(250, (0, 0), f"{event.size} octets received")

    async def end_of_content(self, client: Client, event: EndOfContent) -> Reply:
        """The letter is complete: have it stored."""
        try:
            incoming = self._arrived(event.defect)
            letter_id = await incoming.finish()
            self._stored = incoming
            self._policy.accepted(client, incoming.envelope)
        finally:
            self.drop()
        return Reply(250, (0, 0), f"OK, queued as {letter_id}")

    def _arrived(self, defect: Reply | None) -> Incoming:
        """The letter, or the chunks of it that have come. Errors: `Refusal`."""
        self._link.content_ended()
        transaction, incoming = self._transaction, self._incoming
        if incoming is None:
            assert transaction is not None and transaction.put_off is not None, "content was not begun"
            raise transaction.put_off
        if defect is not None:
            raise Refusal(defect)
        return incoming
