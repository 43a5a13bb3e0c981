"""The conversation with one SMTP client: from its first word to its last, whichever way it ends.

One coroutine a connection, made by the listener. What each command is answered with, `Commands` knows; the
engine below has already refused what is malformed or out of order. RFC 5321 section 3.

When things fail: a `Refusal` from any stage is answered with its reply and logged with its reason;
any other exception is a bug, logged with its traceback and answered with 451 4.3.0. The session goes
on after both, and nothing of an unfinished letter is kept.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred

from postoffice.interfaces import IJournal, IScreening, Turned, WrongNumber
from postoffice.mail.address import path
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from postoffice.server.audit import Audit
from postoffice.server.commands import Commands
from postoffice.server.lingering import TOO_MANY_ERRORS, linger, refuse_all
from postoffice.server.link import Disconnected, HandshakeFailed, Link, TimedOut
from postoffice.server.reception import BUG
from postoffice.server.settings import SessionSettings
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    EndOfChunk,
    EndOfContent,
    Event,
    Helo,
    Mail,
    Other,
    Rcpt,
    Refused,
)

IDLE = Reply(421, (4, 2), "Timeout, closing the connection")
TOO_LONG = Reply(421, (4, 2), "You took too long for a letter, closing the connection")
SHUTDOWN = Reply(421, (3, 2), "Service shutting down, try again later")
# RFC 3463 section 3.2: the mailbox does not exist.
NO_SUCH_USER = (1, 1)

# How long, in seconds, a client may take for its first letter, and from each to the next, where commands have
# a limit at all. Content may take longer, since it has the least rate: with so many octets of it the time
# begins anew, and the end of DATA never comes too late.
PATIENCE = 3600.0
ENOUGH = 65536

# With these a transaction is over when they are refused, for the engine as for us.
_ENDING = frozenset({Mail, Data, EndOfChunk, EndOfContent})


class Session:
    """One conversation: `run` it once; it returns when the connection is to be closed or is lost."""

    def __init__(
        self,
        link: Link,
        commands: Commands,
        settings: SessionSettings,
        journal: IJournal,
        screening: IScreening | None,
    ) -> None:
        self.link = link
        self.commands = commands
        self.reception = commands.reception
        self.settings = settings
        self.journal = journal
        self.audit = Audit(journal, link.clock)
        self.screening = screening
        if screening is not None:
            # Nobody waits for filters whose client has gone.
            link.on_lost = screening.close
        self.errors = 0
        self.stopping = False
        self._deadline = link.clock.seconds() + PATIENCE
        self._brought = 0
        # Whether a client that is turned away may stay for a while; set by the listener.
        self.may_stay: Callable[[Session], bool] = lambda session: False
        # What `run` is held by, to end it wherever it waits; as well.
        self.conversation: Deferred[None] | None = None

    @property
    def client(self) -> Client:
        """Who is at the other end, as far as we know him now."""
        return self.commands.client

    async def run(self) -> None:
        """Hold the conversation until it ends, whichever way it ends."""
        link, commands, reception = self.link, self.commands, self.reception
        how = "closed"
        try:
            if self.settings.door == "smtps":
                await commands.secure()
            try:
                await commands.meet()
            except Turned as turned:
                await self._turn_away(turned)
                return
            self._welcome()
            while not (link.engine.closing or (self.stopping and not reception.busy)):
                event = await link.next_event()
                if type(event) is Content:
                    # The bulk of the bytes: not a command, and it has no answer.
                    self._brought += len(event.data)
                    await reception.content(event.data)
                elif type(event) is Chunk:
                    await commands.chunk(event)
                else:
                    reply = await self._reply(event)
                    if self.journal.auditing:
                        self._record(event, reply)
                    link.answer(reply)
                    if reception.stored:
                        # Only now, so that no client waits for what the queue begins at once.
                        link.flush()
                        reception.pass_on()
                        self._deadline = link.heard + PATIENCE
                    elif link.engine.securing:
                        await commands.secure()
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
            reception.drop()
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
        if self._brought >= ENOUGH:
            self._brought = 0
            self._deadline = self.link.heard + PATIENCE
        if self.link.heard > self._deadline and self.link.pace.idle and type(event) is not EndOfContent:
            # Commands that lead nowhere must not keep a place here for ever.
            self.journal.refused(self.client, "session", TOO_LONG, "no letter for an hour")
            return TOO_LONG
        try:
            reply = await self.commands.answer(event)
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
                return str(self.commands.log_in)
            case Refused(verb=verb):
                return verb or "command"
            case _:
                return type(event).__name__.upper()
