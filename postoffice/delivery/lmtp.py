"""Delivery to mailboxes that another program looks after, by LMTP. RFC 2033.

Called by the queue, through `IDelivery`, for `Lmtp` destinations. All recipients of a letter go in one
transaction, and behind the content the program answers for each of them. Connections rest between letters as
they do with other hosts (`postoffice.delivery.pool`). What final delivery puts in front of a letter is left
to the program.

Whatever the program says is the outcome; where it cannot be reached, the letter waits. RFC 2033 section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.delivery.link import Dial, Link
from postoffice.delivery.pool import Pool
from postoffice.delivery.route import Target
from postoffice.interfaces import IContent, IDelivery
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Lmtp
from postoffice.mail.envelope import Envelope, Letter, Recipient
from postoffice.mail.outcome import Outcome, Postponed
from postoffice.mail.reply import Refusal
from postoffice.smtp.client_events import Finished

CONNECT_TIMEOUT = 30.0
# Seconds: how long a connection rests, and is used; and how many rest.
IDLE = 5.0
LIFE = 300.0
CACHED = 4


@implementer(IDelivery)
class LmtpDelivery:
    """Delivery by LMTP; `name` is what we call ourselves."""

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._pool = Pool(reactor, IDLE, CACHED, LIFE)

    def adapt(self, name: str) -> None:
        """Take over another name, for attempts that begin from now on."""
        self._name = name

    def deliver(
        self, letter: Letter, content: IContent, destination: Destination, recipients: Sequence[Recipient]
    ) -> Deferred[dict[int, Outcome]]:
        """See `IDelivery`. Cancelling closes the connection in use."""
        assert isinstance(destination, Lmtp), "no LMTP destination"
        envelope = Envelope(
            None if letter.sender is None else self._qualified(letter.sender),
            tuple(self._qualified(recipient.address) for recipient in recipients),
            letter.body,
            letter.smtputf8,
        )
        keys = [recipient.key for recipient in recipients]
        return Deferred.fromCoroutine(self._deliver(destination, envelope, letter.size, content, keys))

    def stop(self) -> Deferred[None]:
        """See `IDelivery`. Fires within seconds of the end of the last delivery."""
        return self._pool.stop()

    async def _deliver(
        self, lmtp: Lmtp, envelope: Envelope, size: int, content: IContent, keys: Sequence[int]
    ) -> dict[int, Outcome]:
        finished = Finished((), untouched=True)
        link = self._pool.take(lmtp)
        if link is not None:
            finished = await link.run(envelope, size, content)
        if finished.untouched:
            finished = await self._deliver_anew(lmtp, envelope, size, content)
        return dict(zip(keys, finished.outcomes, strict=True))

    async def _deliver_anew(self, lmtp: Lmtp, envelope: Envelope, size: int, content: IContent) -> Finished:
        target, dial = self._place(lmtp.place)
        link = Link(self._reactor, target, self._name, self._pool, dial)
        self._pool.add(link, lmtp)
        try:
            await link.connect(CONNECT_TIMEOUT)
        except Refusal as refusal:
            return Finished((Postponed(refusal.reply, str(target)),) * len(envelope.recipients))
        return await link.run(envelope, size, content)

    def _place(self, place: str) -> tuple[Target, Dial]:
        if place.startswith("/"):
            return Target(place, place, 0), partial(self._reactor.connectUNIX, place)
        host, _, port = place.rpartition(":")
        return Target(host, host, int(port)), partial(self._reactor.connectTCP, host, int(port))

    def _qualified(self, address: Address) -> Address:
        """A bare name gets our own domain when it leaves us."""
        return address if address.domain else evolve(address, domain=self._name)
