"""The spool in memory: for tests of other stages, under the same contract as the one on disk.

Every Deferred has already fired. Nothing outlives the process, but a `Shelf` outlives the spools
made on it, so that restarts and several nodes can be played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from postoffice.interfaces import IContent, IDraft, ISpool, NewLetter, SpoolFailed, SpoolFull, StaleClaim
from postoffice.mail.address import Address
from postoffice.mail.destination import Copy
from postoffice.mail.envelope import Claim, Entry, Letter, Recipient, Replacement, ReportRequest, Settlement
from postoffice.mail.outcome import Postponed
from postoffice.spool import names
from postoffice.spool.content import HeldContent
from postoffice.spool.expansion import Copies
from postoffice.spool.schema import ATTEMPTS


@define
class _Slot:
    """One recipient; `token` and `node` are those of the claim on it, `ready` as in `schema`."""

    recipient: Recipient
    ready: float
    token: int | None = None
    node: str | None = None


@define
class _Stored:
    """One letter."""

    letter: Letter
    content: bytes
    slots: dict[int, _Slot]
    held: bool = False
    held_for: str = ""
    attempts: list[tuple[float, Address, str]] = field(factory=list)
    known: set[str] = field(factory=set)


@define
class Shelf:
    """What the spools of several nodes share, in place of a disk. `capacity` counts octets of content."""

    capacity: int | None = None
    letters: dict[str, _Stored] = field(factory=dict)
    last_key: int = 0

    def key(self) -> int:
        """A recipient key that was never given before."""
        self.last_key += 1
        return self.last_key

    def room(self, size: int) -> bool:
        """Whether so many octets more would fit."""
        used = sum(len(stored.content) for stored in self.letters.values())
        return self.capacity is None or used + size <= self.capacity


@implementer(IDraft)
class _Draft:
    """A letter that is coming in."""

    def __init__(self, spool: MemorySpool) -> None:
        self._spool = spool
        self._parts: list[bytes] | None = []

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append, as long as it would fit."""
        if self._parts is None:
            raise RuntimeError("the draft was committed or discarded")
        self._parts.append(bytes(data))
        if not self._spool.shelf.room(sum(map(len, self._parts))):
            return fail(SpoolFull("the spool in memory is full"))
        return None

    def written(self) -> Deferred[IContent]:
        """What was written so far."""
        if self._parts is None:
            raise RuntimeError("the draft was committed or discarded")
        return succeed(HeldContent(b"".join(self._parts)))

    def commit(self, new: NewLetter, claim: bool) -> Deferred[tuple[Claim, IContent] | None]:
        """Store the letter."""
        if self._parts is None:
            raise RuntimeError("the draft was committed or discarded")
        data, self._parts = b"".join(self._parts), None
        try:
            return succeed(self._spool.store(new, data, claim))
        except (SpoolFull, SpoolFailed) as error:
            return fail(error)

    def discard(self) -> None:
        """Forget it."""
        self._parts = None


@implementer(ISpool)
class MemorySpool:
    """`ISpool` without a disk. `capacity` in octets of content makes it full; see `Shelf` for `shelf`."""

    def __init__(
        self,
        clock: IReactorTime,
        capacity: int | None = None,
        shelf: Shelf | None = None,
        node: str = "memory",
        lease: float = 300.0,
    ) -> None:
        self.shelf = Shelf(capacity) if shelf is None else shelf
        self._clock = clock
        self._node = node
        self._lease = lease

    def open(self) -> Deferred[None]:
        """Void the claims of this node."""
        for stored in self.shelf.letters.values():
            for slot in stored.slots.values():
                if slot.node == self._node:
                    slot.token = slot.node = None
                    slot.ready = slot.recipient.due
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Nothing is under way."""
        return succeed(None)

    def draft(self) -> IDraft:
        """Begin a letter."""
        return _Draft(self)

    def new_id(self) -> str:
        """A fresh queue id."""
        return names.queue_id(names.SYSTEM)

    def store(self, new: NewLetter, data: bytes, claim: bool) -> tuple[Claim, IContent] | None:
        """Store a letter at once, see `IDraft.commit`."""
        if not new.recipients:
            raise SpoolFailed("a letter needs a recipient")
        if not self.shelf.room(len(data)):
            raise SpoolFull("the spool in memory is full")
        letter_id = new.id or self.new_id()
        if letter_id in self.shelf.letters:
            raise SpoolFailed(f"there is a letter {letter_id} already")
        letter = new.stored(letter_id, len(data))
        slots = {}
        for address, due in new.recipients:
            request = new.requests.get(address, ReportRequest())
            recipient = Recipient(self.shelf.key(), address, due, notify=request.notify, orcpt=request.orcpt)
            slots[recipient.key] = _Slot(recipient, due)
        stored = _Stored(letter, data, slots, bool(new.held_for), new.held_for)
        self.shelf.letters[letter_id] = stored
        return self._take(stored) if claim and not stored.held else None

    def _take(self, stored: _Stored) -> tuple[Claim, IContent] | None:
        now = self._clock.seconds()
        slots = [slot for slot in stored.slots.values() if slot.ready <= now]
        if not slots:
            return None
        token = names.token(names.SYSTEM)
        for slot in slots:
            slot.token, slot.node, slot.ready = token, self._node, now + self._lease
        claim = Claim(stored.letter, tuple(slot.recipient for slot in slots), token)
        return claim, HeldContent(stored.content)

    def claim(self, limit: int) -> Deferred[list[tuple[Claim, IContent]]]:
        """Claim what is due."""

        def earliest(stored: _Stored) -> float:
            return min(slot.ready for slot in stored.slots.values())

        claims: list[tuple[Claim, IContent]] = []
        for stored in sorted(self.shelf.letters.values(), key=earliest):
            taken = None if stored.held or len(claims) >= limit else self._take(stored)
            if taken is not None:
                claims.append(taken)
        return succeed(claims)

    def _current(self, claim: Claim, key: int) -> _Slot | None:
        stored = self.shelf.letters.get(claim.letter.id)
        slot = stored.slots.get(key) if stored else None
        return slot if slot and slot.token == claim.token else None

    def renew(self, claims: Sequence[Claim]) -> Deferred[None]:
        """Lengthen leases."""
        until = self._clock.seconds() + self._lease
        for claim in claims:
            for recipient in claim.recipients:
                slot = self._current(claim, recipient.key)
                if slot is not None:
                    slot.ready = until
        return succeed(None)

    def settle(
        self, claim: Claim, settlements: Sequence[Settlement], bounce: tuple[NewLetter, bytes] | None = None
    ) -> Deferred[None]:
        """Record how attempts ended."""
        slots = [self._current(claim, settlement.key) for settlement in settlements]
        if None in slots or len({settlement.key for settlement in settlements}) < len(settlements):
            return fail(StaleClaim(f"{claim.letter.id}: the claim is not current any more"))
        if bounce is not None:
            try:
                self.store(bounce[0], bounce[1], False)
            except (SpoolFull, SpoolFailed) as error:
                return fail(error)
        for settlement in settlements:
            self._settle(self.shelf.letters[claim.letter.id], settlement)
        stored = self.shelf.letters.get(claim.letter.id)
        if stored is not None and not stored.slots:
            del self.shelf.letters[claim.letter.id]
        return succeed(None)

    def _settle(self, stored: _Stored, settlement: Settlement) -> None:
        slot = stored.slots[settlement.key]
        if not isinstance(settlement.outcome, Postponed):
            del stored.slots[settlement.key]
            return
        slot.token = slot.node = None
        slot.ready = settlement.due
        slot.recipient = evolve(slot.recipient, due=settlement.due)
        if settlement.attempted:
            reply = str(settlement.outcome.reply)
            slot.recipient = evolve(slot.recipient, attempts=slot.recipient.attempts + 1, last=reply)
            stored.attempts.append((self._clock.seconds(), slot.recipient.address, reply))
            del stored.attempts[:-ATTEMPTS]

    def expand(
        self, claim: Claim, replacements: Sequence[Replacement], standing: Sequence[str]
    ) -> Deferred[Claim]:
        """Put copies in the place of recipients."""
        stored = self.shelf.letters.get(claim.letter.id)
        if stored is None or not all(self._current(claim, replacement.key) for replacement in replacements):
            return fail(StaleClaim(f"{claim.letter.id}: the claim is not current any more"))
        waiting = (slot.recipient for slot in stored.slots.values() if slot.token is None)
        stored.known.update(Copy(one.address, ()).key for one in waiting if one.fixed is None)
        stored.known.update(standing)
        copies = Copies(claim, iter(self.shelf.key, 0), stored.known)
        for replacement in replacements:
            copies.add(replacement)
            del stored.slots[replacement.key]
        now = self._clock.seconds()
        for recipient in copies.fresh:
            slot = stored.slots[recipient.key] = _Slot(recipient, recipient.due)
            if recipient.due <= now:
                slot.token, slot.node, slot.ready = claim.token, self._node, now + self._lease
        if not stored.slots:
            del self.shelf.letters[claim.letter.id]
        return succeed(copies.claim(now))

    def next_due(self) -> Deferred[float | None]:
        """The earliest moment at which `claim` will find something."""
        now = self._clock.seconds()
        times = [
            slot.ready
            for stored in self.shelf.letters.values()
            if not stored.held
            for slot in stored.slots.values()
            if slot.node != self._node or slot.ready <= now
        ]
        return succeed(min(times, default=None))

    def entries(self) -> Deferred[list[Entry]]:
        """Every letter, oldest first."""
        now = self._clock.seconds()
        found = [
            Entry(
                stored.letter,
                tuple(slot.recipient for slot in stored.slots.values()),
                stored.held,
                any(slot.token is not None and slot.ready > now for slot in stored.slots.values()),
                stored.held_for,
            )
            for stored in self.shelf.letters.values()
        ]
        return succeed(sorted(found, key=lambda entry: entry.letter.received))

    def content(self, letter_id: str) -> Deferred[IContent | None]:
        """The content of a letter."""
        stored = self.shelf.letters.get(letter_id)
        return succeed(HeldContent(stored.content) if stored else None)

    def attempts(self, letter_id: str) -> Deferred[list[tuple[float, Address, str]]]:
        """The attempts kept with a letter."""
        stored = self.shelf.letters.get(letter_id)
        return succeed(list(stored.attempts) if stored else [])

    def requeue(self, letter_id: str | None) -> Deferred[int]:
        """Make waiting recipients due now."""
        return self._requeue(lambda letter, recipient: letter_id in (None, letter.id))

    def requeue_domain(self, domain: str, below: bool) -> Deferred[int]:
        """Make waiting recipients at a domain due now."""
        name = domain.lower().rstrip(".")

        def there(letter: Letter, recipient: Recipient) -> bool:
            key = recipient.address.domain_key
            return key == name or (below and key.endswith(f".{name}"))

        return self._requeue(there)

    def _requeue(self, which: Callable[[Letter, Recipient], bool]) -> Deferred[int]:
        now = self._clock.seconds()
        count = 0
        for stored in self.shelf.letters.values():
            for slot in stored.slots.values():
                if which(stored.letter, slot.recipient) and (slot.token is None or slot.ready <= now):
                    slot.token = slot.node = None
                    slot.ready = min(slot.ready, now)
                    slot.recipient = evolve(slot.recipient, due=min(slot.recipient.due, now))
                    count += 1
        return succeed(count)

    def _set_held(self, letter_id: str, held: bool) -> Deferred[bool]:
        stored = self.shelf.letters.get(letter_id)
        if stored is not None:
            stored.held = held
            stored.held_for = stored.held_for if held else ""
        return succeed(stored is not None)

    def hold(self, letter_id: str) -> Deferred[bool]:
        """Set a letter aside."""
        return self._set_held(letter_id, True)

    def release(self, letter_id: str) -> Deferred[bool]:
        """End a hold."""
        return self._set_held(letter_id, False)

    def delete(self, letter_id: str) -> Deferred[bool]:
        """Remove a letter."""
        return succeed(self.shelf.letters.pop(letter_id, None) is not None)
