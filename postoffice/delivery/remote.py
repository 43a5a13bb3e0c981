"""Delivery to other hosts by SMTP. RFC 5321 section 5.

Called by the queue, through `IDelivery`, for `Remote` destinations. A letter goes out in one transaction: on
a connection that rests in the pool, begun before `deliver` returns, or else on a new one to the first
address of the destination that answers (`postoffice.delivery.route`). What the host then says of
the letter holds; the next address is tried only while none has taken the transaction up. If a connection
turns out to have been closed while it rested, the letter goes over a new one.

All that can go wrong outside is an outcome: no route (5.1.2, 5.1.10, 5.4.4, 5.4.6, or 4.4.3 where the DNS
gave no answer; 4.4.4 where the operator named the host, since that can be mended), no connection to any
address (441 4.4.1, 442 4.4.2, or what the host greeted us with: postponed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.delivery.link import Link, Reactor
from postoffice.delivery.pool import Pool
from postoffice.delivery.route import Router, Target
from postoffice.interfaces import IContent, IDelivery, IResolver
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Remote
from postoffice.mail.envelope import Envelope, Letter, Recipient, ReportRequest
from postoffice.mail.outcome import Outcome, Postponed, outcome_of
from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.client_events import Finished

Outcomes = dict[int, Outcome]


@frozen
class RemoteSettings:
    """`name` is what we call ourselves; `port` is for destinations without one. Times in seconds.

    `idle`, `cached` and `life` are the pool's, `connect_timeout` is for each address.
    """

    name: str
    port: int = 25
    connect_timeout: float = 30.0
    idle: float = 5.0
    cached: int = 4
    life: float = 300.0


@frozen
class _Job:
    """One call of `deliver`."""

    route: Remote
    envelope: Envelope
    size: int
    content: IContent
    keys: tuple[int, ...]


@implementer(IDelivery)
class RemoteDelivery:
    """Delivery over the network.

    `own_addresses` gives the addresses of this machine, `random` orders equal mail exchangers.
    """

    def __init__(
        self,
        reactor: Reactor,
        resolver: IResolver,
        settings: RemoteSettings,
        own_addresses: Callable[[], frozenset[str]],
        random: Random,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._pool = Pool(reactor, settings.idle, settings.cached, settings.life)
        self._route = partial(Router, resolver, own_addresses=own_addresses, random=random)
        self._router = self._route(name=settings.name, port=settings.port)

    def adapt(self, settings: RemoteSettings) -> None:
        """Take over another name and port, for attempts that begin from now on."""
        self._settings = settings
        self._router = self._route(name=settings.name, port=settings.port)

    def deliver(
        self, letter: Letter, content: IContent, destination: Destination, recipients: Sequence[Recipient]
    ) -> Deferred[Outcomes]:
        """See `IDelivery`. Cancelling closes the connection in use."""
        assert isinstance(destination, Remote), "no remote destination"
        addresses = tuple([self._qualified(recipient.address) for recipient in recipients])
        envelope = Envelope(
            None if letter.sender is None else self._qualified(letter.sender),
            addresses,
            letter.body,
            letter.smtputf8,
            letter.ret,
            letter.envid,
            requests={
                address: ReportRequest(recipient.notify, recipient.orcpt)
                for address, recipient in zip(addresses, recipients, strict=True)
                if recipient.notify or recipient.orcpt
            },
        )
        keys = tuple([recipient.key for recipient in recipients])
        job = _Job(destination, envelope, letter.size, content, keys)
        link = self._pool.take(destination)
        if link is None:
            return Deferred.fromCoroutine(self._deliver_anew(job, True))
        return link.run(envelope, letter.size, content).addCallback(self._tried, job)

    def stop(self) -> Deferred[None]:
        """See `IDelivery`. Fires within seconds of the end of the last delivery."""
        return self._pool.stop()

    def _tried(self, finished: Finished, job: _Job) -> Outcomes | Deferred[Outcomes]:
        """The end of an attempt over a connection that had rested."""
        if finished.untouched:
            return Deferred.fromCoroutine(self._deliver_anew(job, False))
        return dict(zip(job.keys, finished.outcomes, strict=True))

    async def _deliver_anew(self, job: _Job, reuse: bool) -> Outcomes:
        """Look the destination up and try its addresses; with `reuse`, over resting connections too."""
        outcomes: tuple[Outcome, ...] = ()
        try:
            async for target in self._router.targets(job.route):
                finished = await self._try(job, target, reuse)
                outcomes = finished.outcomes
                if not finished.untouched:
                    break
        except Refusal as refusal:
            # Addresses that were tried before the DNS failed tell more than its failure.
            outcomes = outcomes or (_no_route(job, refusal.reply),) * len(job.keys)
        return dict(zip(job.keys, outcomes, strict=True))

    async def _try(self, job: _Job, target: Target, reuse: bool) -> Finished:
        """One attempt at one address."""
        if reuse and (link := self._pool.take_at(target.ip, target.port, job.route)) is not None:
            finished = await link.run(job.envelope, job.size, job.content)
            if not finished.untouched:
                return finished
        link = Link(self._reactor, target, self._settings.name, self._pool)
        self._pool.add(link, job.route)
        try:
            await link.connect(self._settings.connect_timeout)
        except Refusal as refusal:
            return Finished((Postponed(refusal.reply, str(target)),) * len(job.keys), untouched=True)
        return await link.run(job.envelope, job.size, job.content)

    def _qualified(self, address: Address) -> Address:
        """A bare name gets our own domain when it leaves the machine."""
        return address if address.domain else evolve(address, domain=self._settings.name)


def _no_route(job: _Job, reply: Reply) -> Outcome:
    """The outcome where a destination has no address to try.

    What is wrong with a domain is final for its recipients. A host that stands for other domains was chosen
    by the operator, and nobody's mail is to come back because its name is misspelled or gone for a while.
    """
    if reply.permanent and any(one.domain_key != job.route.domain.lower() for one in job.envelope.recipients):
        return Postponed(Reply(451, (4, 4), f"no way to the host that is configured: {reply.text}"))
    return outcome_of(reply)
