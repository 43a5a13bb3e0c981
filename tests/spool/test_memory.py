from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from postoffice.interfaces import ISpool, SpoolFull
from postoffice.mail.envelope import Settlement
from postoffice.spool.memory import MemorySpool, Shelf
from tests.contracts import DELIVERED, LEASE, START, SpoolContract, waiting
from tests.expansion_contract import ExpansionContract


class Contract(SpoolContract, ExpansionContract, TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = START
        self.shelf = Shelf()

    def make(self, node: str = "here") -> ISpool:
        return MemorySpool(self.clock, shelf=self.shelf, node=node, lease=LEASE)

    @waiting
    async def test_full(self) -> None:
        spool = MemorySpool(self.clock, capacity=1000)
        await spool.open()
        claim, _ = await self.put(spool, self.new(), bytes(600), claim=True)
        draft = spool.draft()
        await self.refused(draft.write(bytes(600)), SpoolFull)
        await self.refused(draft.commit(self.new(), False), SpoolFull)
        self.assertEqual(await self.ids(spool), [claim.letter.id])
        await spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)])
        await self.put(spool, self.new(), bytes(600))

    def test_everything_fires_at_once(self) -> None:
        spool = self.make()
        self.successResultOf(spool.open())
        draft = spool.draft()
        draft.write(b"x")
        claimed = self.successResultOf(draft.commit(self.new(), True))
        assert claimed is not None
        claim = claimed[0]
        self.successResultOf(spool.settle(claim, [Settlement(claim.recipients[0].key, DELIVERED)]))
        self.assertEqual(self.successResultOf(spool.entries()), [])
        self.successResultOf(spool.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])
