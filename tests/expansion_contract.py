"""The promises of `ISpool.expand`: copies take the place of recipients, and nobody gets one twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from postoffice.interfaces import ISpool, StaleClaim
from postoffice.mail.address import Address
from postoffice.mail.destination import Command, Copy, File, Mailbox, OwnMailbox
from postoffice.mail.envelope import Claim, Recipient, Replacement, ReportRequest, Settlement
from tests.contracts import ANN, BOB, DELIVERED, POSTPONED, TEXT, SpoolHelpers, read, waiting

LIST = Address("list", "example.net")
OTHER = Address("other list", "example.net")
CAROL = Address("carol", "example.org")


def here(address: Address, path: Sequence[Address] = (LIST,)) -> Copy:
    """A copy for the mailbox of a user."""
    return Copy(address, tuple(path), OwnMailbox(), Mailbox("mbox", f"/mail/{address.local}", address.local))


def elsewhere(address: Address) -> Copy:
    """A copy whose address has yet to be looked up."""
    return Copy(address, (LIST,))


class ExpansionContract(SpoolHelpers):
    """`ISpool.expand`."""

    async def stored(self, spool: ISpool, *recipients: Address, **others: Any) -> Claim:
        """A letter for recipients that are claimed."""
        claim, _ = await self.put(spool, self.new(*recipients, **others), claim=True)
        assert isinstance(claim, Claim)
        return claim

    def replaced(self, recipient: Recipient, *copies: Copy, due: float | None = None) -> Replacement:
        """Copies in place of a recipient, due now or then."""
        when = self.clock.seconds() if due is None else due
        return Replacement(recipient.key, tuple((copy, when) for copy in copies))

    async def addresses(self, spool: ISpool) -> list[Address]:
        """All recipients in the spool."""
        return [recipient.address for entry in await spool.entries() for recipient in entry.recipients]

    async def serve(self, spool: ISpool, claim: Claim) -> list[Address]:
        """Deliver to all of a claim; whom."""
        await spool.settle(claim, [Settlement(one.key, DELIVERED) for one in claim.recipients])
        return [one.address for one in claim.recipients]

    @waiting
    async def test_copies_take_the_place_of_a_recipient(self) -> None:
        spool = await self.opened()
        request = {LIST: ReportRequest("FAILURE,DELAY", "rfc822;list@example.net")}
        claim = await self.stored(spool, BOB, LIST, requests=request)
        bob, origin = claim.recipients
        copies = (here(ANN), elsewhere(CAROL))
        after = await spool.expand(claim, [self.replaced(origin, *copies)], ["/mail/bob"])
        self.assertEqual((after.letter, after.token), (claim.letter, claim.token))
        now = self.clock.seconds()
        asked = {"notify": "FAILURE,DELAY", "orcpt": "rfc822;list@example.net", "path": (LIST,)}
        keys = [one.key for one in after.recipients]
        self.assertEqual(
            after.recipients,
            (
                bob,
                Recipient(keys[1], ANN, now, fixed=OwnMailbox(), **asked),
                Recipient(keys[2], CAROL, now, **asked),
            ),
        )
        self.assertEqual(len({origin.key, *keys}), 4)
        (entry,) = await spool.entries()
        self.assertTrue(entry.busy)
        self.assertEqual(
            sorted(entry.recipients, key=lambda one: one.key),
            sorted(after.recipients, key=lambda one: one.key),
        )
        self.assertEqual(await spool.claim(5), [])
        await self.serve(spool, after)
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_every_kind_of_copy_is_kept(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST)
        path = (LIST, OTHER)
        file, command = File("/f", "nobody"), Command('x "y"\u00fc', "ann", "detail")
        kinds = [file, command, OwnMailbox(), None]
        copies = [
            Copy(Address("a", ""), path, file, file),
            Copy(Address("b", ""), path, command, command),
            here(Address("c", ""), path),
            Copy(Address("d", ""), path),
        ]
        await spool.expand(claim, [self.replaced(claim.recipients[0], *copies)], [])
        await spool.close()
        spool = await self.opened()
        (again,) = await self.claimed(spool)
        self.assertEqual([one.fixed for one in again.recipients], kinds)
        self.assertEqual([one.path for one in again.recipients], [path] * 4)

    @waiting
    async def test_copies_that_are_not_due_wait(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST)
        later = self.clock.seconds() + 600
        origin = claim.recipients[0]
        both = Replacement(origin.key, ((here(ANN), origin.due), (elsewhere(CAROL), later)))
        after = await spool.expand(claim, [both], [])
        self.assertEqual([one.address for one in after.recipients], [ANN])
        self.assertEqual(await spool.next_due(), later)
        await self.serve(spool, after)
        self.clock.advance(601)
        (again,) = await self.claimed(spool)
        self.assertEqual([one.address for one in again.recipients], [CAROL])

    @waiting
    async def test_nobody_twice_within_a_letter(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST, OTHER, ANN)
        one, two, _ = claim.recipients
        after = await spool.expand(
            claim,
            [self.replaced(one, here(ANN), here(BOB)), self.replaced(two, here(BOB), elsewhere(CAROL))],
            ["/mail/ann"],
        )
        self.assertEqual([recipient.address for recipient in after.recipients], [ANN, BOB, CAROL])

    @waiting
    async def test_nobody_twice_though_delivered_before(self) -> None:
        """A list that could not be looked up at first does not reach those again who were served then."""
        spool = await self.opened()
        claim = await self.stored(spool, LIST, OTHER, ANN)
        one, two, _ = claim.recipients
        after = await spool.expand(claim, [self.replaced(one, here(BOB))], ["/mail/ann"])
        postponed = Settlement(two.key, POSTPONED, self.clock.seconds() + 60)
        served = [
            Settlement(recipient.key, DELIVERED) for recipient in after.recipients if recipient.key != two.key
        ]
        await spool.settle(after, [postponed, *served])
        await spool.close()
        spool = await self.opened()
        self.clock.advance(61)
        (again,) = await self.claimed(spool)
        copies = self.replaced(again.recipients[0], here(ANN), here(BOB), here(CAROL))
        after = await spool.expand(again, [copies], [])
        self.assertEqual([recipient.address for recipient in after.recipients], [CAROL])

    @waiting
    async def test_nobody_twice_who_waits_for_a_queue_run(self) -> None:
        spool = await self.opened()
        now = self.clock.seconds()
        new = evolve(self.new(), recipients=((LIST, now), (CAROL, now + 600)))
        claim, _ = await self.put(spool, new, claim=True)
        (origin,) = claim.recipients
        copies = [elsewhere(Address("carol", "EXAMPLE.org")), elsewhere(BOB)]
        after = await spool.expand(claim, [self.replaced(origin, *copies)], [])
        self.assertEqual([recipient.address for recipient in after.recipients], [BOB])

    @waiting
    async def test_what_stands_is_remembered_without_an_expansion(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST, ANN)
        origin, ann = claim.recipients
        after = await spool.expand(claim, [], ["/mail/ann"])
        self.assertEqual(after, claim)
        postponed = Settlement(origin.key, POSTPONED, self.clock.seconds())
        await spool.settle(after, [postponed, Settlement(ann.key, DELIVERED)])
        (again,) = await self.claimed(spool)
        after = await spool.expand(again, [self.replaced(again.recipients[0], here(ANN), here(BOB))], [])
        self.assertEqual(await self.addresses(spool), [BOB])

    @waiting
    async def test_other_letters_do_not_matter(self) -> None:
        spool = await self.opened()
        for _ in range(2):
            claim = await self.stored(spool, LIST)
            after = await spool.expand(claim, [self.replaced(claim.recipients[0], here(ANN))], [])
            self.assertEqual(await self.serve(spool, after), [ANN])
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_a_letter_whose_copies_were_all_delivered_goes(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST, ANN)
        origin, ann = claim.recipients
        after = await spool.expand(claim, [self.replaced(origin, here(ANN))], ["/mail/ann"])
        self.assertEqual(after.recipients, (ann,))
        await self.serve(spool, after)
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_a_stale_claim_changes_nothing(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST, OTHER)
        await spool.settle(
            claim, [Settlement(claim.recipients[1].key, POSTPONED, self.clock.seconds() + 600)]
        )
        both = [self.replaced(one, here(ANN)) for one in claim.recipients]
        await self.refused(spool.expand(claim, both, []), StaleClaim)
        self.assertEqual(await self.addresses(spool), [LIST, OTHER])
        after = await spool.expand(claim, both[:1], [])
        self.assertEqual([one.address for one in after.recipients], [OTHER, ANN])
        await spool.delete(claim.letter.id)
        await self.refused(spool.expand(after, [], []), StaleClaim)

    @waiting
    async def test_a_restart_finds_the_copies(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST)
        await spool.expand(claim, [self.replaced(claim.recipients[0], here(ANN), here(BOB))], [])
        await spool.close()
        spool = await self.opened()
        (again,) = await self.claimed(spool)
        self.assertEqual([one.address for one in again.recipients], [ANN, BOB])
        content = await spool.content(again.letter.id)
        self.assertEqual(await read(content), TEXT)

    @waiting
    async def test_copies_expand_again(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST)
        after = await spool.expand(
            claim, [self.replaced(claim.recipients[0], elsewhere(OTHER), here(ANN))], []
        )
        other = after.recipients[0]
        again = await spool.expand(after, [self.replaced(other, here(ANN), here(BOB))], ["/mail/ann"])
        self.assertEqual([one.address for one in again.recipients], [ANN, BOB])
        await self.serve(spool, again)
        self.assertEqual(await spool.entries(), [])

    @waiting
    async def test_held_meanwhile(self) -> None:
        spool = await self.opened()
        claim = await self.stored(spool, LIST)
        await spool.hold(claim.letter.id)
        later = self.replaced(claim.recipients[0], here(ANN), due=self.clock.seconds() + 1)
        await spool.expand(claim, [later], [])
        self.clock.advance(2)
        self.assertEqual(await spool.claim(5), [])
        await spool.release(claim.letter.id)
        (again,) = await self.claimed(spool)
        self.assertEqual([one.address for one in again.recipients], [ANN])
