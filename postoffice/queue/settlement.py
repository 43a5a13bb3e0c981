"""What becomes of the outcomes of an attempt: judged, recorded in the spool, told to the sender.

Used by the scheduler for every attempt that ended. A postponement gets its next due time, or is a
failure once the letter's lifetime is over; recipients that failed, and those that were served where that was
asked for, are reported to the sender by a letter that the same transaction stores. What is reported and how
much of the letter goes back is the sender's to say (RFC 3461); a letter from the null sender is never
reported (RFC 5321 section 4.5.5).

When things fail: a spool that cannot record is asked again until it can, so that what was delivered is
not delivered again; a claim that is not ours any more is logged and left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from postoffice.interfaces import (
    IContent,
    IJournal,
    ISpool,
    NewLetter,
    SpoolFailed,
    SpoolFull,
    StaleClaim,
)
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Remote
from postoffice.mail.envelope import Claim, Recipient, Replacement, ReportRequest, Settlement
from postoffice.mail.header import read_headers
from postoffice.mail.outcome import Failed, Outcome, Postponed
from postoffice.mail.reply import Reply
from postoffice.queue.backoff import wait
from postoffice.queue.bounce import Report, Told, is_told

T = TypeVar("T")

# The wait, in seconds, before a spool that could not record an outcome is asked again.
SPOOL_RETRY = 2.0
# Of an original header, this much goes into a bounce.
HEADER_IN_BOUNCE = 64 * 1024
# A letter up to this size is returned whole where that is asked for.
MOST_RETURNED = 1024 * 1024


@frozen
class SettlementSettings:
    """`waits` between attempts and `lifetime` of a letter, in seconds (0: no end); `host` is our name."""

    host: str
    waits: Sequence[float]
    lifetime: float


class Settler:
    """Settles attempts. `first_due` tells when a new letter to an address is due (epoch seconds)."""

    def __init__(
        self,
        spool: ISpool,
        journal: IJournal,
        settings: SettlementSettings,
        first_due: Callable[[Address], Awaitable[float]],
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self.spool = spool
        self.journal = journal
        self.settings = settings
        self.first_due = first_due
        self.clock = clock
        self.random = random

    async def settle(
        self,
        claim: Claim,
        content: IContent,
        recipients: Sequence[Recipient],
        outcomes: Mapping[int, Outcome],
        destination: Destination | None,
    ) -> float | None:
        """Record how an attempt ended for these recipients; when the next that comes of it is due, if any."""
        letter = claim.letter
        now = self.clock.seconds()
        judged = [
            (recipient, self._judge(letter.received, outcomes[recipient.key], now))
            for recipient in recipients
        ]
        settlements = [self._settlement(recipient, outcome, now) for recipient, outcome in judged]
        bounce = None
        told: list[Told] = []
        if letter.sender is not None:
            told = [
                Told(recipient, outcome, isinstance(destination, Remote))
                for recipient, outcome in judged
                if is_told(outcome, recipient.notify)
            ]
            if told:
                bounce = await self._bounce(claim, letter.sender, content, told)
        if not await self._record(claim, settlements, bounce):
            return None
        for recipient, outcome in judged:
            self.journal.settled(letter, recipient, outcome, destination)
        dues = [settlement.due for settlement in settlements if type(settlement.outcome) is Postponed]
        if bounce is not None:
            failed = [one.recipient.address for one in told if type(one.outcome) is Failed]
            if failed:
                self.journal.bounced(letter, bounce[0].id, failed)
            else:
                self.journal.reported(letter, bounce[0].id, [one.recipient.address for one in told])
            dues += [due for _, due in bounce[0].recipients]
        return min(dues, default=None)

    async def give_back(self, claim: Claim, recipients: Sequence[Recipient], due: float) -> None:
        """Return recipients to the spool without an attempt."""
        outcome = Postponed(Reply(451, (3, 2), "The queue is busy with earlier mail for the destination"))
        settlements = [Settlement(recipient.key, outcome, due, attempted=False) for recipient in recipients]
        await self._record(claim, settlements, None)

    async def expand(
        self, claim: Claim, replacements: Sequence[Replacement], standing: Sequence[str]
    ) -> Claim | None:
        """Put copies in the place of recipients; the claim as it is then, None if it is not ours any more."""
        try:
            return await self._insist(claim, lambda: self.spool.expand(claim, replacements, standing))
        except StaleClaim:
            return None

    def _judge(self, received: float, outcome: Outcome, now: float) -> Outcome:
        """A postponement past the lifetime of the letter is a failure (RFC 5321 section 4.5.4.1)."""
        lifetime = self.settings.lifetime
        if type(outcome) is not Postponed or not lifetime or now < received + lifetime:
            return outcome
        said = Reply(554, (4, 7), f"Not delivered in {_span(lifetime)}; the last answer was: {outcome.reply}")
        return Failed(said, outcome.where)

    def _settlement(self, recipient: Recipient, outcome: Outcome, now: float) -> Settlement:
        if type(outcome) is not Postponed:
            return Settlement(recipient.key, outcome)
        due = now + wait(recipient.attempts + 1, self.settings.waits, self.random.random())
        return Settlement(recipient.key, outcome, due)

    async def _bounce(
        self, claim: Claim, sender: Address, content: IContent, told: Sequence[Told]
    ) -> tuple[NewLetter, bytes]:
        letter = claim.letter
        # A letter that arrived is not returned (RFC 3461 section 4.3), nor is one of any size.
        failed = any(type(one.outcome) is Failed for one in told)
        whole = letter.ret == "FULL" and failed and letter.size <= MOST_RETURNED
        report = Report(
            letter=letter,
            sender=sender,
            told=told,
            original=await self._original(claim, content, whole),
            whole=whole,
            host=self.settings.host,
            id=self.spool.new_id(),
            now=self.clock.seconds(),
        )
        new = NewLetter(
            sender=None,
            recipients=((sender, await self.first_due(sender)),),
            body="8BITMIME" if report.eight_bit else "7BIT",
            received=report.now,
            client=f"bounce of {letter.id}",
            id=report.id,
            smtputf8=sender.international,
            requests={sender: ReportRequest(notify="NEVER")},
        )
        return new, report.encode()

    async def _original(self, claim: Claim, content: IContent, whole: bool) -> bytes:
        """What goes into a report: the letter, or as much of its header block; empty if it cannot be read."""
        most = MOST_RETURNED if whole else HEADER_IN_BOUNCE
        start = content.held[:most] if content.held is not None else b""
        if content.held is None:
            try:
                async for piece in content.pieces():
                    start += piece
                    if len(start) >= most:
                        break
            except SpoolFailed as error:
                self.journal.warning(f"the bounce of {claim.letter.id} goes without its header: {error}")
        if whole:
            return start
        headers = read_headers(start[:HEADER_IN_BOUNCE], final=True)
        assert headers is not None
        return headers.block

    async def _record(
        self, claim: Claim, settlements: Sequence[Settlement], bounce: tuple[NewLetter, bytes] | None
    ) -> bool:
        """Settle in the spool; whether the claim was still ours."""
        try:
            await self._insist(claim, lambda: self.spool.settle(claim, settlements, bounce))
        except StaleClaim:
            return False
        return True

    async def _insist(self, claim: Claim, step: Callable[[], Deferred[T]]) -> T:
        """Ask the spool as often as it takes. Errors: `StaleClaim`, which was told."""
        while True:
            try:
                return await step()
            except StaleClaim as error:
                self.journal.warning(f"the outcome for {claim.letter.id} was not recorded: {error}")
                raise
            except (SpoolFull, SpoolFailed) as error:
                self.journal.warning(f"the outcome for {claim.letter.id} waits for the spool: {error}")
                await deferLater(self.clock, SPOOL_RETRY)


def _span(seconds: float) -> str:
    """A time span in words: days where they are whole, else hours."""
    days, rest = divmod(int(seconds), 86400)
    if days and not rest:
        return f"{days} day{'s' if days > 1 else ''}"
    hours = max(1, round(seconds / 3600))
    return f"{hours} hour{'s' if hours > 1 else ''}"
