"""What every implementation of a seam must do: mixins, run against each of them.

A class that uses `SpoolContract` says how to make a spool: `make(node)` gives a new one, not yet
open, for a node on the storage of this test, whose clock is `self.clock`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from postoffice.interfaces import (
    IContent,
    IDelivery,
    IDirectory,
    IDraft,
    ISpool,
    NewLetter,
    SpoolFailed,
    StaleClaim,
)
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Mailbox, Remote
from postoffice.mail.envelope import Claim, Letter, Recipient, ReportRequest, Settlement
from postoffice.mail.outcome import Delivered, Failed, Postponed
from postoffice.mail.reply import Refusal, Reply

LEASE = 300.0
START = 1_700_000_000.0
SENDER = Address("odd sender", "example.org")
ANN = Address("ann", "example.net")
BOB = Address("bob", "example.net")
TEXT = b"Subject: one\r\n\r\nLine\r\n"

DELIVERED = Delivered(Reply(250, (0, 0), "taken"), "mx.example.net")
POSTPONED = Postponed(Reply(450, (2, 0), "later"), "mx.example.net")
FAILED = Failed(Reply(550, (1, 1), "unknown"), "mx.example.net")


def waiting(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Deferred[None]]:
    """A test that is a coroutine."""

    @wraps(test)
    def run(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(test(self))

    return run


async def read(content: IContent | None) -> bytes:
    """The whole content; its pieces are bounded."""
    assert content is not None
    pieces = [piece async for piece in content.pieces()]
    assert all(0 < len(piece) <= 256 * 1024 for piece in pieces)
    data = b"".join(pieces)
    assert content.size == len(data)
    assert content.held is None or content.held == data
    return data


class SpoolHelpers:
    """What tests of spools do again and again."""

    clock: Clock
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIsNone: Any
    assertIsNot: Any
    assertNotEqual: Any
    assertRegex: Any
    fail: Any
    addCleanup: Any

    def make(self, node: str = "here") -> ISpool:
        """A spool on the storage of this test."""
        raise NotImplementedError

    async def opened(self, node: str = "here") -> ISpool:
        """An open spool, closed at the end of the test."""
        spool = self.make(node)
        await spool.open()
        self.addCleanup(spool.close)
        return spool

    def new(self, *recipients: Address, due: float | None = None, **others: Any) -> NewLetter:
        """A letter for recipients that are due now."""
        now = self.clock.seconds()
        pairs = tuple((recipient, now if due is None else due) for recipient in recipients or (ANN,))
        return NewLetter(SENDER, pairs, "8BITMIME", now, "client [192.0.2.1]", **others)

    async def put(self, spool: ISpool, new: NewLetter, data: bytes = TEXT, claim: bool = False) -> Any:
        """Store a letter as a session does."""
        draft = spool.draft()
        for start in range(0, len(data), 50_000):
            room = draft.write(data[start : start + 50_000])
            if room is not None:
                await room
        return await draft.commit(new, claim)

    async def claimed(self, spool: ISpool, limit: int = 10) -> list[Claim]:
        """Claims without their contents."""
        return [claim for claim, _ in await spool.claim(limit)]

    async def ids(self, spool: ISpool) -> list[str]:
        """The queue ids of all letters."""
        return [entry.letter.id for entry in await spool.entries()]

    async def refused(self, waiting: Deferred[Any] | None, *errors: type[Exception]) -> Exception:
        """The error something failed with."""
        result = None
        try:
            if waiting is not None:
                result = await waiting
        except errors as error:
            return error
        self.fail(f"was not refused but gave {result!r}")
        raise AssertionError


class SpoolContract(SpoolHelpers):
    """The promises of `ISpool`, `IDraft` and `IContent`."""

    @waiting
    async def test_provides_the_interfaces(self) -> None:
        spool = await self.opened()
        verifyObject(ISpool, spool)
        verifyObject(IDraft, spool.draft())
        _, content = await self.put(spool, self.new(), claim=True)
        verifyObject(IContent, content)

    @waiting
    async def test_ids_are_short_unlike_and_plain(self) -> None:
        spool = await self.opened()
        ids = {spool.new_id() for _ in range(2000)}
        self.assertEqual(len(ids), 2000)
        for letter_id in ids:
            self.assertRegex(letter_id, r"\A[2-9A-HJKMNP-Z]{8,12}\Z")
        self.assertEqual(len({letter_id[0] for letter_id in ids}), 31)

    @waiting
    async def test_a_stored_letter_is_claimed_whole(self) -> None:
        spool = await self.opened()
        self.assertIsNone(await self.put(spool, self.new(ANN, BOB, id="ABCDEF2345")))
        ((claim, content),) = await spool.claim(10)
        now = self.clock.seconds()
        self.assertEqual(
            claim.letter,
            Letter("ABCDEF2345", SENDER, "8BITMIME", len(TEXT), now, "client [192.0.2.1]"),
        )
        keys = [recipient.key for recipient in claim.recipients]
        self.assertEqual(claim.recipients, (Recipient(keys[0], ANN, now), Recipient(keys[1], BOB, now)))
        self.assertNotEqual(keys[0], keys[1])
        self.assertEqual(await read(content), TEXT)
        self.assertEqual(content.held, TEXT)

    @waiting
    async def test_null_sender(self) -> None:
        spool = await self.opened()
        new = NewLetter(None, ((ANN, self.clock.seconds()),), "7BIT", self.clock.seconds(), "here")
        await self.put(spool, new)
        (claim,) = await self.claimed(spool)
        self.assertIsNone(claim.letter.sender)
        ((entry),) = await spool.entries()
        self.assertIsNone(entry.letter.sender)

    @waiting
    async def test_what_a_client_asked_for_is_kept(self) -> None:
        requests = {
            BOB: ReportRequest("SUCCESS,DELAY", "rfc822;bob+40example.net"),
            ANN: ReportRequest(notify="NEVER"),
        }
        asked: dict[str, Any] = {
            "smtputf8": True, "ret": "HDRS", "envid": "QQ+2B", "folder": "~/junk", "requests": requests
        }  # fmt: skip
        for claim in (True, False):
            spool = await self.opened()
            taken = await self.put(spool, self.new(BOB, SENDER, ANN, **asked), claim=claim)
            (entry,) = await spool.entries()
            claims = [taken[0]] if claim else await self.claimed(spool)
            for letter in (entry.letter, *(one.letter for one in claims)):
                self.assertEqual(
                    (letter.smtputf8, letter.ret, letter.envid, letter.folder),
                    (True, "HDRS", "QQ+2B", "~/junk"),
                )
            for recipients in (entry.recipients, *(one.recipients for one in claims)):
                self.assertEqual(
                    [(one.address, one.notify, one.orcpt) for one in recipients],
                    [
                        (BOB, "SUCCESS,DELAY", "rfc822;bob+40example.net"),
                        (SENDER, "", ""),
                        (ANN, "NEVER", ""),
                    ],
                )
            await spool.delete(entry.letter.id)
            await spool.close()

    @waiting
    async def test_contents_of_all_sizes(self) -> None:
        spool = await self.opened()
        for size in (0, 1, 4096, 98_303, 98_304, 98_305, 300_000, 3_000_001):
            data = (b"%09d\r\n" % size * (size // 11 + 1))[:size]
            claim, content = await self.put(spool, self.new(), data, claim=True)
            self.assertEqual(claim.letter.size, size)
            self.assertEqual(await read(content), data)
            self.assertEqual(await read(content), data)
            self.assertEqual(await read(await spool.content(claim.letter.id)), data)
            await spool.settle(claim, [Settlement(claim.recipients[0].key, POSTPONED, 0.0)])
            ((again, content),) = await spool.claim(1)
            self.assertEqual(await read(content), data)
            await spool.settle(again, [Settlement(again.recipients[0].key, DELIVERED)])
            self.assertIsNone(await spool.content(claim.letter.id))
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_a_draft_can_be_read_before_it_is_committed(self) -> None:
        spool = await self.opened()
        for size in (0, 1, 98_304, 98_305, 300_000, 1_000_001):
            data = (b"%09d\r\n" % size * (size // 11 + 1))[:size]
            draft = spool.draft()
            for start in range(0, size, 50_000):
                room = draft.write(data[start : start + 50_000])
                if room is not None:
                    await room
            for _ in range(2):
                self.assertEqual(await read(await draft.written()), data)
            room = draft.write(b"more")
            if room is not None:
                await room
            self.assertEqual(await read(await draft.written()), data + b"more")
            claim, content = await draft.commit(self.new(), True)
            self.assertEqual(await read(content), data + b"more")
            await spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)])
        draft = spool.draft()
        draft.write(b"x" * 200_000)
        read_later = await draft.written()
        draft.discard()
        self.assertEqual(read_later.size, 200_000)

    @waiting
    async def test_commit_claims_what_is_due(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        pairs = ((ANN, now), (BOB, now + 10))
        claim, content = await self.put(spool, NewLetter(None, pairs, "7BIT", now, "x"), claim=True)
        self.assertEqual([recipient.address for recipient in claim.recipients], [ANN])
        self.assertEqual(await read(content), TEXT)
        self.assertEqual(await self.claimed(spool), [])
        self.clock.advance(10)
        (other,) = await self.claimed(spool)
        self.assertEqual([recipient.address for recipient in other.recipients], [BOB])
        self.assertNotEqual(other.token, claim.token)

    @waiting
    async def test_commit_claims_nothing_that_is_not_due(self) -> None:
        spool = await self.opened()
        later = self.new(due=self.clock.seconds() + 1)
        self.assertIsNone(await self.put(spool, later, claim=True))
        self.assertIsNone(await self.put(spool, self.new(held_for="odd"), claim=True))

    @waiting
    async def test_discarded_drafts_leave_nothing(self) -> None:
        spool = await self.opened()
        for data in (TEXT, bytes(400_000)):
            draft = spool.draft()
            room = draft.write(data)
            draft.discard()
            if room is not None:
                try:
                    await room
                except SpoolFailed:
                    pass
            draft.discard()
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_discard_after_commit_is_harmless(self) -> None:
        spool = await self.opened()
        for data in (TEXT, bytes(400_000)):
            draft = spool.draft()
            room = draft.write(data)
            if room is not None:
                await room
            committing = draft.commit(self.new(), False)
            draft.discard()
            await committing
            draft.discard()
        self.assertEqual([entry.letter.size for entry in await spool.entries()], [len(TEXT), 400_000])

    @waiting
    async def test_an_id_is_given_once(self) -> None:
        spool = await self.opened()
        await self.put(spool, self.new(ANN, id="SAME222222"))
        for data in (b"other", bytes(200_000)):
            await self.refused(
                Deferred.fromCoroutine(self.put(spool, self.new(BOB, id="SAME222222"), data)), SpoolFailed
            )
        ((claim, content),) = await spool.claim(10)
        self.assertEqual([recipient.address for recipient in claim.recipients], [ANN])
        self.assertEqual(await read(content), TEXT)

    @waiting
    async def test_one_refusal_does_not_touch_its_neighbours(self) -> None:
        spool = await self.opened()
        await self.put(spool, self.new(id="SAME222222"))
        drafts = [spool.draft() for _ in range(40)]
        results: list[Deferred[Any]] = []
        for number, draft in enumerate(drafts):
            draft.write(b"%d" % number)
            results.append(draft.commit(self.new(id="SAME222222" if number == 17 else ""), number % 2 == 0))
        for number, result in enumerate(results):
            if number == 17:
                await self.refused(result, SpoolFailed)
            elif number % 2:
                self.assertIsNone(await result)
            else:
                claimed = await result
                self.assertTrue(claimed)
                self.assertEqual(await read(claimed[1]), b"%d" % number)
        self.assertEqual(len(await spool.entries()), 40)

    @waiting
    async def test_a_letter_needs_a_recipient(self) -> None:
        spool = await self.opened()
        draft = spool.draft()
        nobody = NewLetter(SENDER, (), "7BIT", self.clock.seconds(), "x")
        await self.refused(draft.commit(nobody, False), SpoolFailed)
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_claims_in_order_and_bounded(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        for number, due in enumerate((now - 1, now - 3, now - 2, now + 5)):
            await self.put(spool, self.new(ANN, BOB, due=due, id=f"LETTER{number}"))
        first = await self.claimed(spool, 2)
        self.assertEqual([claim.letter.id for claim in first], ["LETTER1", "LETTER2"])
        self.assertEqual([claim.letter.id for claim in await self.claimed(spool, 2)], ["LETTER0"])
        self.assertEqual(await self.claimed(spool, 2), [])

    @waiting
    async def test_delivered_letters_go(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(ANN, BOB), claim=True)
        ann, bob = claim.recipients
        await spool.settle(claim, [Settlement(ann.key, DELIVERED)])
        ((entry),) = await spool.entries()
        self.assertEqual(entry.recipients, (bob,))
        self.assertTrue(entry.busy)
        await spool.settle(claim, [Settlement(bob.key, FAILED)])
        self.assertEqual(await spool.entries(), [])
        self.assertIsNone(await spool.content(claim.letter.id))
        self.assertIsNone(await spool.next_due())

    @waiting
    async def test_many_at_once(self) -> None:
        spool = await self.opened()

        async def letter(number: int) -> None:
            claim, content = await self.put(spool, self.new(id=f"MANY{number}"), b"%d" % number, claim=True)
            assert (claim.letter.id, await read(content)) == (f"MANY{number}", b"%d" % number)
            if number % 3:
                await spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)])

        for task in [Deferred.fromCoroutine(letter(number)) for number in range(150)]:
            await task
        self.assertEqual(sorted(await self.ids(spool)), sorted(f"MANY{n}" for n in range(0, 150, 3)))

    @waiting
    async def test_postponed_recipients_come_again(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), claim=True)
        due = self.clock.seconds() + 60
        await spool.settle(claim, [Settlement(claim.recipients[0].key, POSTPONED, due)])
        self.assertEqual(await self.claimed(spool), [])
        self.assertEqual(await spool.next_due(), due)
        self.clock.advance(60)
        (again,) = await self.claimed(spool)
        self.assertEqual(
            again.recipients,
            (Recipient(claim.recipients[0].key, ANN, due, 1, "450 4.2.0 later"),),
        )
        self.assertEqual(await spool.attempts(claim.letter.id), [(due - 60, ANN, "450 4.2.0 later")])

    @waiting
    async def test_postponed_without_an_attempt(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), claim=True)
        key = claim.recipients[0].key
        await spool.settle(claim, [Settlement(key, POSTPONED, 5.0)])
        (claim,) = await self.claimed(spool)
        shutdown = Postponed(Reply(450, (3, 2), "shutting down"))
        await spool.settle(claim, [Settlement(key, shutdown, 7.0, attempted=False)])
        (claim,) = await self.claimed(spool)
        self.assertEqual(claim.recipients, (Recipient(key, ANN, 7.0, 1, "450 4.2.0 later"),))
        self.assertEqual(len(await spool.attempts(claim.letter.id)), 1)

    @waiting
    async def test_attempts_are_bounded(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), claim=True)
        for number in range(60):
            outcome = Postponed(Reply(450, (2, 0), f"try {number}"))
            await spool.settle(claim, [Settlement(claim.recipients[0].key, outcome, 0.0)])
            (claim,) = await self.claimed(spool)
        attempts = await spool.attempts(claim.letter.id)
        self.assertEqual([reply for _, _, reply in attempts], [f"450 4.2.0 try {n}" for n in range(10, 60)])
        self.assertEqual(claim.recipients[0].attempts, 60)
        self.assertEqual(await spool.attempts("NOSUCH"), [])

    @waiting
    async def test_a_settled_claim_is_stale(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(ANN, BOB), claim=True)
        ann, bob = claim.recipients
        await spool.settle(claim, [Settlement(ann.key, POSTPONED, 0.0)])
        both = [Settlement(bob.key, DELIVERED), Settlement(ann.key, DELIVERED)]
        await self.refused(spool.settle(claim, both), StaleClaim)
        ((entry),) = await spool.entries()
        self.assertEqual([recipient.address for recipient in entry.recipients], [ANN, BOB])
        await spool.settle(claim, both[:1])

    @waiting
    async def test_a_lapsed_claim_that_was_taken_again_is_stale(self) -> None:
        here, there = await self.opened("here"), await self.opened("there")
        claim, _ = await self.put(here, self.new(), claim=True)
        key = claim.recipients[0].key
        self.assertEqual(await self.claimed(there), [])
        self.assertIsNone(await here.next_due())
        self.assertEqual(await there.next_due(), self.clock.seconds() + LEASE)
        self.clock.advance(LEASE)
        (other,) = await self.claimed(there)
        self.assertEqual(other.recipients, claim.recipients)
        for outcome in (DELIVERED, POSTPONED, FAILED):
            await self.refused(here.settle(claim, [Settlement(key, outcome)]), StaleClaim)
        await there.settle(other, [Settlement(key, DELIVERED)])
        await self.refused(there.settle(other, [Settlement(key, DELIVERED)]), StaleClaim)
        self.assertEqual(await here.entries(), [])

    @waiting
    async def test_stale_among_others_harms_only_itself(self) -> None:
        spool = await self.opened()
        claims = [(await self.put(spool, self.new(), claim=True))[0] for _ in range(10)]
        done = [[Settlement(claim.recipients[0].key, DELIVERED)] for claim in claims]
        await spool.settle(claims[4], done[4])
        results = [spool.settle(claim, settled) for claim, settled in zip(claims, done, strict=True)]
        for number, result in enumerate(results):
            if number == 4:
                await self.refused(result, StaleClaim)
            else:
                await result
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_a_lapsed_claim_nobody_took_is_settled(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), claim=True)
        self.clock.advance(LEASE + 1)
        await spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)])
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_renewed_claims_last(self) -> None:
        here, there = await self.opened("here"), await self.opened("there")
        claim, _ = await self.put(here, self.new(ANN, BOB), claim=True)
        gone, _ = await self.put(here, self.new(), claim=True)
        await here.settle(gone, [Settlement(gone.recipients[0].key, DELIVERED)])
        self.clock.advance(LEASE - 1)
        await here.renew([gone, claim])
        self.clock.advance(LEASE - 1)
        self.assertEqual(await self.claimed(there), [])
        self.clock.advance(1)
        self.assertEqual([other.letter.id for other in await self.claimed(there)], [claim.letter.id])
        await here.renew([claim])
        self.clock.advance(LEASE)
        self.assertEqual(len(await self.claimed(here)), 1)

    @waiting
    async def test_our_own_lapsed_claims_are_due_again(self) -> None:
        spool = await self.opened()
        await self.put(spool, self.new(), claim=True)
        lapse = self.clock.seconds() + LEASE
        self.clock.advance(LEASE + 5)
        self.assertEqual(await spool.next_due(), lapse)
        self.assertEqual(len(await self.claimed(spool)), 1)

    @waiting
    async def test_a_restart_waits_for_nothing(self) -> None:
        here, there = await self.opened("here"), await self.opened("there")
        lost, _ = await self.put(here, self.new(ANN), claim=True)
        kept, _ = await self.put(there, self.new(BOB), claim=True)
        await here.close()
        again = await self.opened("here")
        (claim,) = await self.claimed(again)
        self.assertEqual(claim.letter, lost.letter)
        self.assertNotEqual(claim.token, lost.token)
        await self.refused(again.settle(lost, [Settlement(lost.recipients[0].key, DELIVERED)]), StaleClaim)
        await there.settle(kept, [Settlement(kept.recipients[0].key, DELIVERED)])
        self.assertEqual(await self.ids(again), [lost.letter.id])

    @waiting
    async def test_bounce_is_stored_with_the_settlement(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), claim=True)
        bounce = NewLetter(None, ((SENDER, self.clock.seconds()),), "7BIT", 1.0, "bounce", id="BOUNCE2345")
        settled = [Settlement(claim.recipients[0].key, FAILED)]
        await spool.settle(claim, settled, (bounce, b"sorry"))
        ((other, content),) = await spool.claim(5)
        self.assertEqual((other.letter.id, other.letter.sender), ("BOUNCE2345", None))
        self.assertEqual(await read(content), b"sorry")
        second = NewLetter(None, ((SENDER, 0.0),), "7BIT", 1.0, "bounce", id="BOUNCE6789")
        await self.refused(spool.settle(claim, settled, (second, b"sorry")), StaleClaim)
        self.assertEqual(await self.ids(spool), ["BOUNCE2345"])

    @waiting
    async def test_next_due(self) -> None:
        spool = await self.opened()
        self.assertIsNone(await spool.next_due())
        now = self.clock.seconds()
        await self.put(spool, self.new(due=now + 9))
        await self.put(spool, self.new(due=now + 4))
        await self.put(spool, self.new(due=now + 2, held_for="odd"))
        await self.put(spool, self.new(), claim=True)
        self.assertEqual(await spool.next_due(), now + 4)

    @waiting
    async def test_entries_oldest_first(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        for received, name in ((now, "NEW"), (now - 50, "OLD"), (now - 20, "MIDDLE")):
            new = NewLetter(
                SENDER,
                ((ANN, now + 5), (BOB, now + 6)),
                "7BIT",
                received,
                "x",
                name,
                "spam (filter x)" if name == "OLD" else "",
            )
            await self.put(spool, new)
        claim, _ = await self.put(spool, self.new(id="BUSY"), claim=True)
        found = await spool.entries()
        self.assertEqual(
            [(entry.letter.id, entry.held, entry.held_for, entry.busy) for entry in found],
            [
                ("OLD", True, "spam (filter x)", False),
                ("MIDDLE", False, "", False),
                ("NEW", False, "", False),
                ("BUSY", False, "", True),
            ],
        )
        self.assertEqual(
            [(recipient.address, recipient.due) for recipient in found[0].recipients],
            [(ANN, now + 5), (BOB, now + 6)],
        )
        self.assertEqual(found[3].letter, claim.letter)
        self.clock.advance(LEASE)
        self.assertFalse((await spool.entries())[3].busy)

    @waiting
    async def test_requeue(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        await self.put(spool, self.new(ANN, BOB, due=now + 50, id="ONE"))
        await self.put(spool, self.new(due=now + 50, id="TWO"))
        busy, _ = await self.put(spool, self.new(), claim=True)
        self.assertEqual(await spool.requeue("ONE"), 2)
        self.assertEqual(await spool.next_due(), now)
        self.assertEqual([claim.letter.id for claim in await self.claimed(spool)], ["ONE"])
        self.assertEqual(await spool.requeue(None), 1)
        (claim,) = await self.claimed(spool)
        self.assertEqual((claim.letter.id, claim.recipients[0].due), ("TWO", now))
        self.assertEqual(await spool.requeue("NOSUCH"), 0)
        await spool.settle(busy, [Settlement(busy.recipients[0].key, DELIVERED)])

    @waiting
    async def test_requeue_domain(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        others = [
            Address("c", name) for name in ("EXAMPLE.net.", "a.example.net", "an_example.net", "net", "")
        ]
        await self.put(spool, self.new(ANN, BOB, *others, due=now + 50))
        for domain, below, count in [
            *(("example.net", False, 3), ("Example.Net.", False, 3), ("example.net", True, 4)),
            *(
                ("ple.net", True, 0),
                ("net", True, 6),
                ("", False, 1),
                ("%", True, 0),
                ("a_example.net", True, 0),
            ),
        ]:
            self.assertEqual(await spool.requeue_domain(domain, below), count, (domain, below))
        due = {str(one.address): one.due for entry in await spool.entries() for one in entry.recipients}
        self.assertEqual(set(due.values()), {now})
        await spool.claim(1)
        self.assertEqual(await spool.requeue_domain("example.net", False), 0)

    @waiting
    async def test_held_letters_stay(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        await self.put(spool, self.new(ANN, BOB, id="ONE"))
        self.assertTrue(await spool.hold("ONE"))
        self.assertEqual(await self.claimed(spool), [])
        self.assertIsNone(await spool.next_due())
        self.assertTrue((await spool.entries())[0].held)
        self.assertTrue(await spool.release("ONE"))
        self.assertEqual(await spool.next_due(), now)
        (claim,) = await self.claimed(spool)
        self.assertEqual(len(claim.recipients), 2)
        self.assertFalse(await spool.hold("NOSUCH"))
        self.assertFalse(await spool.release("NOSUCH"))

    @waiting
    async def test_why_a_letter_is_held_is_known_until_it_is_released(self) -> None:
        spool = await self.opened()

        async def known() -> list[tuple[bool, str]]:
            return [(entry.held, entry.held_for) for entry in await spool.entries()]

        why = 'odd: 100% "sure" \u2603 (filter /run/x)'
        await self.put(spool, self.new(ANN, BOB, id="ONE", held_for=why))
        self.assertEqual(await known(), [(True, why)])
        await spool.hold("ONE")
        self.assertEqual(await known(), [(True, why)])
        await spool.close()
        spool = await self.opened()
        self.assertEqual(await known(), [(True, why)])
        await spool.release("ONE")
        self.assertEqual(await known(), [(False, "")])
        await spool.hold("ONE")
        self.assertEqual(await known(), [(True, "")])

    @waiting
    async def test_hold_while_claimed(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(ANN, BOB), claim=True)
        await spool.hold(claim.letter.id)
        ann, bob = claim.recipients
        await spool.settle(claim, [Settlement(ann.key, POSTPONED, 0.0), Settlement(bob.key, DELIVERED)])
        self.assertEqual(await self.claimed(spool), [])
        await spool.release(claim.letter.id)
        self.assertEqual(len(await self.claimed(spool)), 1)

    @waiting
    async def test_delete(self) -> None:
        spool = await self.opened()
        for data in (TEXT, bytes(300_000)):
            claim, _ = await self.put(spool, self.new(ANN, BOB), data, claim=True)
            self.assertTrue(await spool.delete(claim.letter.id))
            self.assertFalse(await spool.delete(claim.letter.id))
            settled = [Settlement(recipient.key, POSTPONED, 0.0) for recipient in claim.recipients]
            await self.refused(spool.settle(claim, settled), StaleClaim)
            self.assertIsNone(await spool.content(claim.letter.id))
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_settling_nothing(self) -> None:
        spool = await self.opened()
        claim, _ = await self.put(spool, self.new(), claim=True)
        await spool.settle(claim, [])
        self.assertTrue((await spool.entries())[0].busy)


class DirectoryContract:
    """`make_directory` gives a directory in which `ours` is a domain whose only user is `user`."""

    ours = "example.org"
    user = "ann"

    def make_directory(self) -> IDirectory:
        raise NotImplementedError

    def resolved(self: Any, local: str, domain: str) -> Destination:
        destination: Destination = self.successResultOf(self.make_directory().resolve(Address(local, domain)))
        return destination

    def test_provides_the_interface(self: Any) -> None:
        self.assertTrue(verifyObject(IDirectory, self.make_directory()))

    def test_local_domains_without_case_or_final_dot(self: Any) -> None:
        directory = self.make_directory()
        for domain in ("", self.ours, self.ours.upper(), f"{self.ours}."):
            self.assertTrue(self.successResultOf(directory.is_local(domain)), domain)
        for domain in ("example.com", f"x.{self.ours}", self.ours[1:]):
            self.assertFalse(self.successResultOf(directory.is_local(domain)), domain)

    def test_user(self: Any) -> None:
        mailbox = self.resolved(self.user, self.ours)
        self.assertIsInstance(mailbox, Mailbox)
        self.assertTrue(mailbox.path.startswith("/"))
        self.assertEqual(self.resolved(self.user.upper(), f"{self.ours.upper()}."), mailbox)

    def test_no_such_user(self: Any) -> None:
        for local in ("", "nobody", f"{self.user}x", f"../{self.user}", f"{self.user}\x00", "."):
            directory = self.make_directory()
            for failing in (
                directory.resolve(Address(local, self.ours)),
                directory.check(Address(local, self.ours)),
            ):
                reply = self.failureResultOf(failing, Refusal).value.reply
                self.assertEqual((reply.code, reply.status), (550, "5.1.1"), local)

    def test_check(self: Any) -> None:
        for domain in (self.ours, "example.com"):
            self.assertIsNone(self.successResultOf(self.make_directory().check(Address(self.user, domain))))

    def test_elsewhere(self: Any) -> None:
        self.assertEqual(self.resolved(self.user, "Example.COM"), Remote("example.com"))


class DeliveryContract:
    """`make_delivery` gives a delivery, `destination` and `content` what it is tried with."""

    def make_delivery(self) -> IDelivery:
        raise NotImplementedError

    def destination(self) -> Destination:
        raise NotImplementedError

    def content(self) -> IContent:
        raise NotImplementedError

    def attempt(self: Any, delivery: IDelivery) -> Deferred[dict[int, Any]]:
        letter = Letter("Q1", SENDER, "7BIT", len(TEXT), START, "[192.0.2.1]")
        recipients = [Recipient(7, ANN, START), Recipient(3, BOB, START)]
        return delivery.deliver(letter, self.content(), self.destination(), recipients)

    def test_provides_the_interface(self: Any) -> None:
        self.assertTrue(verifyObject(IDelivery, self.make_delivery()))

    def test_an_outcome_for_each_recipient(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self.each_has_an_outcome())

    async def each_has_an_outcome(self: Any) -> None:
        delivery = self.make_delivery()
        for _ in range(2):
            outcomes = await self.attempt(delivery)
            self.assertEqual(
                {key: type(outcome) for key, outcome in outcomes.items()}, {7: Delivered, 3: Delivered}
            )
            for outcome in outcomes.values():
                self.assertEqual(outcome.reply.code // 100, 2)
                self.assertTrue(outcome.where)
        await delivery.stop()
