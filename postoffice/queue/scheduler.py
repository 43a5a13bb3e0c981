"""The queue: what is tried, when, and how many at a time.

Letters come in two ways: intake hands over what it has just stored (`take`), so that it is relayed from
memory; everything else is claimed from the spool when it is due and there is room. Each recipient is
resolved again at every attempt (`postoffice.queue.sorting`); those that share a destination go together,
through the lane of that destination. An outcome is settled in the spool (`postoffice.queue.settlement`)
before anything of it is forgotten here.

When things fail: whatever a delivery raises postpones its recipients. RFC 5321 section 4.5.4.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from random import Random
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from postoffice.interfaces import (
    IContent,
    IDelivery,
    IDirectory,
    IJournal,
    IQueue,
    ISpool,
    SpoolFailed,
    SpoolFull,
)
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination
from postoffice.mail.envelope import Claim, Recipient
from postoffice.mail.outcome import Outcome, Postponed
from postoffice.mail.reply import Refusal
from postoffice.queue.lane import Job, Lanes
from postoffice.queue.settlement import SettlementSettings, Settler
from postoffice.queue.sorting import BUG, Sorter

# What may be in hand at once; the rest waits in the spool.
LETTERS_IN_HAND = 2000
OCTETS_IN_HAND = 64 * 1024 * 1024
# Recipients in one transaction: what every server must take (RFC 5321 section 4.5.3.1.8).
RECIPIENTS_AT_ONCE = 100
# Leases are renewed this often, in seconds; a lease lasts several times as long.
RENEW_EVERY = 60.0
# The wait, in seconds, before a spool that cannot be read is asked again.
SPOOL_RETRY = 2.0
# Seconds that always pass before the spool is looked into again.
SHORTEST = 0.05
NEVER = 3650 * 86400.0


@frozen
class QueueSettings:
    """`waits` between attempts, `lifetime` until undelivered mail is returned, and `run_period` of
    queue runs, all in seconds; `immediate` false leaves remote recipients to the next run."""

    host: str
    waits: Sequence[float]
    lifetime: float
    run_period: float
    immediate: bool


@define(eq=False)
class _Hand:
    """A claimed letter that is in hand, and how many of its recipients are not settled yet."""

    claim: Claim
    content: IContent
    left: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.left = len(self.claim.recipients)

    @property
    def octets(self) -> int:
        return len(self.content.held or b"")


@implementer(IQueue)
class Scheduler:
    """The queue of this node. `deliveries` maps the type of a destination to who delivers there."""

    def __init__(
        self,
        spool: ISpool,
        directory: IDirectory,
        deliveries: Mapping[type, IDelivery],
        journal: IJournal,
        settings: QueueSettings,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self.spool = spool
        self.directory = directory
        self.deliveries = deliveries
        self.journal = journal
        self.settings = settings
        self.clock = clock
        self._hands: dict[int, _Hand] = {}
        self._octets = 0
        self._lanes = Lanes(self._begin, clock, settings.waits[0])
        self._running: set[Deferred[None]] = set()
        self._timer: IDelayedCall | None = None
        self._timer_at = 0.0
        self._renewal: IDelayedCall | None = None
        self._fetching = False
        self._again = False
        self._stopping = False
        self._began = clock.seconds()
        self._settler = Settler(
            spool,
            journal,
            _settlement(settings),
            self._first_due_to,
            clock,
            random,
        )
        self._sorter = Sorter(self, directory, self._settler, journal, self._pause)

    def adapt(self, directory: IDirectory, settings: QueueSettings) -> None:
        """Take over another directory and other settings, for what begins from now on."""
        self.directory, self.settings = directory, settings
        self._sorter.directory = directory
        self._settler.settings = _settlement(settings)
        self._lanes.adapt(settings.waits[0])

    # For the doors.

    @property
    def immediate(self) -> bool:
        return self.settings.immediate

    def first_due(self, local: bool) -> float:
        """Local mail and, with `immediate`, all mail is due at once; else at the next queue run."""
        now = self.clock.seconds()
        if local or self.settings.immediate:
            return now
        period = self.settings.run_period
        if not period:
            return now + NEVER
        return self._began + ((now - self._began) // period + 1) * period

    async def _first_due_to(self, address: Address) -> float:
        try:
            local = self.settings.immediate or await self.directory.is_local(address.domain)
        except Refusal:
            # It is resolved again when it is tried.
            local = True
        return self.first_due(local)

    def has_room(self) -> bool:
        return not self._stopping and len(self._hands) < LETTERS_IN_HAND and self._octets < OCTETS_IN_HAND

    def take(self, claim: Claim, content: IContent) -> None:
        if self._stopping:
            return
        hand = _Hand(claim, content)
        self._hands[claim.token] = hand
        self._octets += hand.octets
        self._launch(self._sort(hand))

    def wake(self, due: float) -> None:
        if due <= self.clock.seconds():
            self._fetch_soon()
        else:
            self._fetch_by(due)

    async def run(self, letter_id: str | None) -> int:
        # Whoever asks for a run wants every host tried, also those that were not there a moment ago.
        self._lanes.forget_dead(all_of_them=True)
        count = await self.spool.requeue(letter_id)
        self._fetch_soon()
        return count

    async def run_domain(self, domain: str, below: bool) -> int:
        self._lanes.forget_dead(all_of_them=True)
        count = await self.spool.requeue_domain(domain, below)
        self._fetch_soon()
        return count

    # For the service.

    def start(self) -> None:
        """Begin with what the spool holds."""
        self._renewal = self.clock.callLater(RENEW_EVERY, self._renew)
        self._fetch_soon()

    async def stop(self, bound: float) -> None:
        """Start nothing more, and wait at most `bound` seconds for the attempts that are under way.

        Those that take longer are cancelled; their claims stay in the spool, and the next start voids them.
        """
        self._stopping = True
        for call in (self._timer, self._renewal):
            if call is not None and call.active():
                call.cancel()
        self._lanes.close()
        ended = DeferredList(list(self._running), consumeErrors=True)
        cut = self.clock.callLater(bound, self._cancel)
        await ended
        if cut.active():
            cut.cancel()

    def _cancel(self) -> None:
        for running in list(self._running):
            running.cancel()

    # Fetching what is due.

    def _fetch_soon(self) -> None:
        self._again = True
        if not (self._fetching or self._stopping) and self.has_room():
            self._fetching = True
            self._launch(self._fetch())

    def _fetch_by(self, due: float) -> None:
        """Look into the spool at that time at the latest."""
        if self._stopping:
            return
        if self._timer is not None and self._timer.active():
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.clock.callLater(max(due - self.clock.seconds(), SHORTEST), self._fetch_soon)

    async def _fetch(self) -> None:
        try:
            while self._again and self.has_room():
                self._again = False
                limit = min(LETTERS_IN_HAND - len(self._hands), 100)
                claimed = await self.spool.claim(limit)
                for claim, content in claimed:
                    self.take(claim, content)
                if len(claimed) == limit:
                    self._again = True
            if not self._again:
                due = await self.spool.next_due()
                if due is not None:
                    self._fetch_by(due)
        except (SpoolFull, SpoolFailed) as error:
            self.journal.warning(f"cannot fetch due letters from the spool: {error}")
            self._fetch_by(self.clock.seconds() + SPOOL_RETRY)
        except Exception as error:
            self.journal.error("cannot fetch due letters", error)
            self._fetch_by(self.clock.seconds() + SPOOL_RETRY)
        finally:
            self._fetching = False
        if self._again:
            self._fetch_soon()

    def _renew(self) -> None:
        self._renewal = self.clock.callLater(RENEW_EVERY, self._renew)
        self._lanes.forget_dead()
        if self._hands:
            renewed = self.spool.renew([hand.claim for hand in self._hands.values()])
            renewed.addErrback(lambda failure: self.journal.error("cannot renew claims", failure.value))

    # One letter.

    async def _sort(self, hand: _Hand) -> None:
        """Find out where each recipient goes, and put each destination's share into its lane."""
        sorted_out = await self._sorter.sort(hand.claim)
        if sorted_out is None:
            self._let_go(hand, hand.left)
            return
        hand.claim = sorted_out.claim
        hand.left = len(hand.claim.recipients)
        if not hand.left:
            self._let_go(hand, 0)
            return
        for count, (destination, recipients) in enumerate(sorted_out.groups.items(), 1):
            for at in range(0, len(recipients), RECIPIENTS_AT_ONCE):
                share = tuple(recipients[at : at + RECIPIENTS_AT_ONCE])
                await self._assign(hand, Job(hand.claim, hand.content, destination, share))
            if count % RECIPIENTS_AT_ONCE == 0:
                await self._pause()
        refused = sorted_out.refused
        if refused:
            unknown = [recipient for recipient in hand.claim.recipients if recipient.key in refused]
            await self._settle(hand, unknown, refused, None)

    async def _pause(self) -> None:
        """Let others work."""
        await deferLater(self.clock, 0)

    async def _assign(self, hand: _Hand, job: Job) -> None:
        """Put a job into its lane; postpone it where that is dead, and give it back where it is full."""
        if self._stopping:
            return
        dead = self._lanes.dead(job.destination)
        if dead is not None:
            await self._put_off(job, dead)
        elif self._lanes.full(job.destination):
            due = self._lanes.room_at(job.destination)
            await self._settler.give_back(job.claim, job.recipients, due)
            self._let_go(hand, len(job.recipients))
            self.wake(due)
        else:
            self._lanes.put(job)

    async def _put_off(self, job: Job, outcome: Outcome) -> None:
        unreached = {recipient.key: outcome for recipient in job.recipients}
        await self._settle(self._hands[job.claim.token], job.recipients, unreached, job.destination)

    def _begin(self, job: Job) -> None:
        self._launch(self._attempt(job))

    async def _attempt(self, job: Job) -> None:
        letter, destination = job.claim.letter, job.destination
        try:
            delivery = self.deliveries[type(destination)]
            outcomes = await delivery.deliver(letter, job.content, destination, job.recipients)
        except CancelledError:
            # Cut off by `stop`: nothing is recorded, so the next start tries at once.
            return
        except Exception as error:
            self.journal.error(f"delivery of {letter.id} to {destination} failed", error)
            outcomes = {recipient.key: Postponed(BUG) for recipient in job.recipients}
        # The next attempt starts before this one is recorded, so that a session is never left waiting.
        for dropped in self._lanes.ended(job, next(iter(outcomes.values()))):
            self._launch(self._put_off(dropped, outcomes[job.recipients[0].key]))
        await self._settle(self._hands[job.claim.token], job.recipients, outcomes, destination)

    async def _settle(
        self,
        hand: _Hand,
        recipients: Sequence[Recipient],
        outcomes: Mapping[int, Outcome],
        destination: Destination | None,
    ) -> None:
        due = await self._settler.settle(hand.claim, hand.content, recipients, outcomes, destination)
        if due is not None:
            self.wake(due)
        self._let_go(hand, len(recipients))

    def _let_go(self, hand: _Hand, count: int) -> None:
        hand.left -= count
        if hand.left:
            return
        del self._hands[hand.claim.token]
        self._octets -= hand.octets
        if self._again:
            self._fetch_soon()

    # Work under way.

    def _launch(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run a coroutine that nobody waits for but `stop`; whatever it raises is a bug."""
        running = Deferred.fromCoroutine(work)
        if running.called:
            running.addErrback(self._failed)
            return
        self._running.add(running)

        def ended(_: object) -> None:
            self._running.discard(running)

        running.addErrback(self._failed).addBoth(ended)

    def _failed(self, failure: Any) -> None:
        if not self._stopping:
            self.journal.error("the queue failed", failure.value)


def _settlement(settings: QueueSettings) -> SettlementSettings:
    return SettlementSettings(settings.host, settings.waits, settings.lifetime)
