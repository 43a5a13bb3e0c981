"""What the filters say in one session, one after the other, and what comes of it.

Made by the chain for each session that any filter takes part in. A refusal stops an event at the filter that
gave it, and every other filter that is inside of the letter is told that it came to nothing. A rejection for
good may instead mark the letter (`spam`), which ends that filter's part in it. A filter that fails costs its
own verdict and nothing more: `on-error` says what that means, and the next letter tries it again.

RFC 5321 section 4.5.3.2.6 gives a server ten minutes to answer the end of the data, for all filters together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from zope.interface import implementer

from postoffice.filters.envelope import BadSender, edited_envelope
from postoffice.filters.leg import CONTENT, Event, Leg, World
from postoffice.filters.letter import (
    Replaced,
    arguments_of,
    hold_reason,
    mark_of,
    message_id,
    octets_of,
    with_marks,
)
from postoffice.filters.terms import Member, OnError
from postoffice.interfaces import (
    Draught,
    IFilterSession,
    IScreening,
    Screened,
    Turned,
)
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from postoffice.milter.edits import Hold, edited_header, replaced_body
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import PUT_OFF, REJECTED, Discard, Failed, Refuse, Verdict

# Seconds that all filters together have for the content of a letter.
CONTENT_TIME = 570.0

BROKEN = Reply(550, (5, 0), "The message could not be checked")
CLOSING = Reply(421, (7, 1), "The message could not be checked, closing the connection")
GONE = Reply(421, (4, 2), "The connection is gone")
# Characters of the reasons for which a letter is on hold, all together.
HOLD_LIMIT = 1000
TOO_BIG = Reply(552, (3, 4), "The message has become too large")
_ON_ERROR: dict[OnError, Reply] = {"tempfail": PUT_OFF, "reject": BROKEN, "shutdown": CLOSING}


@implementer(IScreening)
class Screening:
    """All filters' part in one session."""

    def __init__(self, members: Sequence[Member], facts: Facts, world: World) -> None:
        self._legs = [Leg(member, facts, world) for member in members]
        self._facts = facts
        self._world = world
        self._gone = False
        self._greeted = False
        # Of the letter.
        self._inside = False
        self._in_content = False
        self._discarding = False
        self._holds: list[str] = []
        self._marks: list[str] = []
        self._poison: Refusal | None = None

    @property
    def letter_id(self) -> str:
        return self._facts.letter_id

    # The session.

    async def client(self, client: Client, connections: int = 0) -> None:
        facts = self._facts
        facts.connections = connections
        if connections:
            facts.rate = self._world.arrivals.count(client.ip, self._world.clock.seconds())
        if self._greeted or any(leg.opened for leg in self._legs):
            # It turned out to be another client: for the filters this is another session.
            for leg in self._legs:
                leg.end()
        # A command of this machine greets with our name, in a manner of speaking.
        facts.client, self._greeted = client, not client.ip
        legs = [leg for leg in self._legs if not (leg.member.terms.lazy or self._skipped(leg))]
        opening = [Deferred.fromCoroutine(leg.open()) for leg in legs]
        await DeferredList(opening, fireOnOneErrback=True, consumeErrors=True)
        try:
            for leg in legs:
                await self._introduce(leg)
                if self._greeted:
                    await self._greet(leg)
        except Refusal as refusal:
            reply = refusal.reply
            raise Turned(evolve(reply, code=554 if reply.permanent else 421), refusal.why) from refusal

    async def helo(self, client: Client) -> None:
        self.abort()
        self._facts.client, self._greeted = client, True
        for leg in self._legs:
            leg.helo_mark = ""
            await self._greet(leg)

    async def unknown(self, client: Client, line: bytes) -> None:
        if self._in_content:
            # Between chunks; filters could not make sense of it.
            return
        self._facts.client = client
        for leg in self._legs:
            if leg.active and not self._discarding and not self._skipped(leg):
                verdict = await self._ask(leg, "command", lambda one: one.unknown(self._facts, line))
                if type(verdict) is Refuse:
                    raise self._refusal(leg, verdict.reply)
                if type(verdict) is Failed:
                    self._poisoned(leg)

    def close(self) -> None:
        self._gone = True
        for leg in self._legs:
            leg.close()

    # The letter.

    async def sender(self, client: Client, sender: Address | None, line: bytes) -> None:
        self.abort()
        for leg in self._legs:
            leg.sum_up()
        facts = self._facts
        facts.client, facts.sender, facts.letter_id = client, sender, self._world.new_id()
        facts.arguments = arguments_of(line)
        facts.parameters = facts.arguments[1:]
        facts.ours = await self._is_ours(sender), False
        self._inside = True
        for leg in self._legs:
            leg.out = self._skipped(leg)
            if leg.out:
                continue
            leg.look()
            if leg.failed is not None or not leg.opened:
                await self._reopen(leg)
        heeded = [leg for leg in self._legs if not leg.out]
        self._marks = [mark for leg in heeded for mark in (leg.mark, leg.helo_mark) if mark]
        if self._marks:
            self._world.policy.rejected(client, sender)
        await self._letter_event("MAIL", lambda one: one.sender(facts))

    async def recipient(self, address: Address, line: bytes) -> None:
        self._check_poison()
        facts = self._facts
        facts.recipient, facts.arguments, facts.refused = address, arguments_of(line), None
        facts.ours = facts.ours[0], await self._is_ours(address)
        for leg in self._legs:
            if not leg.active or self._discarding:
                continue
            verdict = await self._ask(leg, "RCPT", lambda one: one.recipient(facts))
            match verdict:
                case Refuse(reply=reply):
                    facts.bad_recipients += 1
                    raise self._refusal(leg, reply)
                case Discard():
                    self._discard()
                case Failed():
                    self._poisoned(leg)
                    self._check_poison()

    async def refused_recipient(self, address: Address, line: bytes, reply: Reply) -> None:
        facts = self._facts
        if self._discarding or not self._inside:
            return
        facts.bad_recipients += 1
        facts.recipient, facts.arguments, facts.refused = address, arguments_of(line), reply
        for leg in self._legs:
            if leg.active and leg.session.hears_refused:
                verdict = await self._ask(leg, "refused RCPT", lambda one: one.recipient(facts))
                if type(verdict) is Failed:
                    self._poisoned(leg)
        facts.refused = None

    async def data(self, recipients: int) -> None:
        self._check_poison()
        self._facts.recipients = recipients
        await self._letter_event("DATA", lambda one: one.data(self._facts))
        self._in_content = True

    async def content(self, draught: Draught) -> Screened:
        self._check_poison()
        facts = self._facts
        until = self._world.clock.seconds() + CONTENT_TIME
        before = draught.body
        for leg in self._legs:
            if self._discarding:
                break
            if leg.active:
                facts.message_id, facts.size = message_id(draught.fields), octets_of(draught)
                now = draught

                def ask(one: IFilterSession, now: Draught = now) -> Awaitable[Verdict]:
                    return one.content(facts, now, until)

                await self._judge(leg, CONTENT, await self._ask(leg, CONTENT, ask))
            if leg.there and not self._discarding:
                draught = self._changed(leg, draught)
        return self._screened(draught, None if draught.body is before else draught.body.held)

    def abort(self) -> None:
        for leg in self._legs:
            if self._inside:
                leg.sum_up()
                if leg.there:
                    leg.session.abort()
            leg.out = False
        self._inside = self._in_content = self._discarding = False
        self._holds, self._marks, self._poison = [], [], None
        self._facts.forget_letter()

    # Inside.

    def _skipped(self, leg: Leg) -> bool:
        """Whether a filter has no part in what the client does now, which changes when it logs in."""
        client = self._facts.client
        return (self._world.settings.safe and client.login is not None) or leg.member.terms.skips(client)

    async def _is_ours(self, address: Address | None) -> bool:
        """Whether mail for an address stays here, for all we know now."""
        try:
            return address is not None and await self._world.directory.is_local(address.domain)
        except Refusal:
            return False

    async def _reopen(self, leg: Leg) -> None:
        """Try a filter that has failed, or was not needed yet: it is told of the session so far."""
        leg.end()
        await leg.open()
        self._check_gone()
        try:
            await self._introduce(leg)
            if self._greeted:
                await self._greet(leg)
        except Refusal:
            # It will be asked again at the next letter.
            leg.end()
            raise
        if leg.failed is not None:
            self._poisoned(leg)
            self._check_poison()

    async def _introduce(self, leg: Leg) -> None:
        if leg.failed is not None:
            self._check_shutdown(leg)
        else:
            leg.mark = await self._about_client(leg, "connection", lambda one: one.client(self._facts))

    async def _greet(self, leg: Leg) -> None:
        if leg.active and not self._skipped(leg):
            leg.helo_mark = await self._about_client(leg, "HELO", lambda one: one.helo(self._facts))

    async def _about_client(self, leg: Leg, what: str, event: Event) -> str:
        """Ask about the client: the mark its letters are to bear. Errors: `Refusal`."""
        match await self._ask(leg, what, event):
            case Refuse(reply=reply):
                if self._refuses(reply):
                    raise self._refusal(leg, reply)
                return mark_of(reply)
            case Failed():
                self._check_shutdown(leg)
        return ""

    def _check_shutdown(self, leg: Leg) -> None:
        """A filter that failed outside of a letter may be one without which there is no session."""
        if leg.member.terms.on_error == "shutdown":
            raise leg.refusal(CLOSING, leg.failed or "")

    async def _letter_event(self, what: str, event: Event) -> None:
        for leg in self._legs:
            if leg.active and not self._discarding:
                await self._judge(leg, what, await self._ask(leg, what, event))

    async def _ask(self, leg: Leg, what: str, event: Event) -> Verdict:
        verdict = await leg.ask(what, event)
        self._check_gone()
        return verdict

    async def _judge(self, leg: Leg, what: str, verdict: Verdict) -> None:
        """What a verdict on the whole letter comes to. Errors: `Refusal`."""
        match verdict:
            case Refuse(reply=reply):
                if reply.permanent:
                    self._world.policy.rejected(self._facts.client, self._facts.sender)
                if self._refuses(reply):
                    self._end_letter()
                    raise self._refusal(leg, reply)
                leg.out = True
                self._marks.append(mark_of(reply))
            case Discard():
                self._discard()
            case Failed():
                self._poisoned(leg)
                if self._poison is not None:
                    self._end_letter()
                self._check_poison()

    def _refuses(self, reply: Reply) -> bool:
        """Whether a refusal is one, or marks the letter only."""
        return reply.temporary or self._world.settings.spam.mode == "bounce"

    def _refusal(self, leg: Leg, reply: Reply) -> Refusal:
        """What a filter refuses with, in the administrator's words where it has none of its own."""
        reason = self._world.settings.spam.text
        return leg.refusal(evolve(reply, text=reason) if reply == REJECTED and reason else reply)

    def _poisoned(self, leg: Leg) -> None:
        """A filter failed inside of a letter."""
        on_error = leg.member.terms.on_error
        if on_error == "quarantine":
            self._holds.append(f"filter failure: {leg.member.filter.name}")
        elif on_error != "accept":
            self._poison = leg.refusal(_ON_ERROR[on_error], leg.failed or "")

    def _check_poison(self) -> None:
        if self._poison is not None:
            raise self._poison

    def _check_gone(self) -> None:
        if self._gone:
            raise Refusal(GONE, "the client left while filters were asked")

    def _discard(self) -> None:
        """The letter goes nowhere: no filter hears more of it."""
        self._discarding = True
        self._end_letter()

    def _end_letter(self) -> None:
        """Nobody stays inside of a letter that comes to nothing."""
        for leg in self._legs:
            if leg.there:
                leg.session.abort()
                leg.out = True

    def _changed(self, leg: Leg, draught: Draught) -> Draught:
        """The letter with a filter's edits. Errors: `Refusal`, for a sender that is none; `abort` follows."""
        edits = leg.session.edits()
        if not edits or leg.out:
            return draught
        fields, dropped = edited_header(draught.fields, edits, leg.session.with_blank)
        try:
            envelope, more = edited_envelope(draught.envelope, edits, self._world.settings.host)
        except BadSender as error:
            raise leg.refusal(PUT_OFF, str(error)) from error
        for what in (*dropped, *more):
            leg.tell(CONTENT, f"dropped {what}")
        if not envelope.recipients:
            leg.tell(CONTENT, "removed every recipient")
        self._holds += [hold_reason(edit, leg.member.filter.name) for edit in edits if isinstance(edit, Hold)]
        body = replaced_body(edits)
        return Draught(envelope, fields, draught.body if body is None else Replaced(body))

    def _screened(self, draught: Draught, body: bytes | None) -> Screened:
        settings = self._world.settings
        if settings.size and octets_of(draught) > 2 * settings.size:
            raise Refusal(TOO_BIG, "filters have made it so")
        envelope = draught.envelope
        marks = self._marks if not self._discarding else []
        if marks and settings.spam.mode == "folder":
            envelope = evolve(envelope, folder=settings.spam.text)
        fields = with_marks(draught.fields, marks)
        nobody = not envelope.recipients
        hold = "; ".join(self._holds)[:HOLD_LIMIT]
        return Screened(envelope, fields, body, self._discarding or nobody, hold)
