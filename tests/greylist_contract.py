"""What every store of the greylist's records must do: a mixin, run against each of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from postoffice.interfaces import IGreylistStore, StoreFailed
from postoffice.mail.greylist import Bounds, Record
from tests.contracts import waiting

NOW = 1_700_000_000
WAITING = Record(NOW + 3600, NOW)
PASSED = Record(NOW - 3600, NOW)


async def everything(store: IGreylistStore) -> dict[str, Record]:
    """All records; no key is given twice."""
    pairs = []
    async for portion in store.records():
        assert 0 < len(portion) <= 1000
        pairs += portion
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


class GreylistContract:
    """`make` gives a store on the storage of this test, with these bounds. The clock shows NOW."""

    clock: Clock
    assertEqual: Any
    assertIsNone: Any
    assertRaises: Any
    addCleanup: Any

    def make(self, most: int = 0, share: int = 0, keep: int = 0) -> IGreylistStore:
        """A store, not yet open."""
        raise NotImplementedError

    async def opened(self, **bounds: int) -> IGreylistStore:
        """An open store, closed at the end of the test."""
        store = self.make(**bounds)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def names(self, store: IGreylistStore) -> str:
        """The keys of all records, after what must go went."""
        await store.flush()
        return " ".join(sorted(await everything(store)))

    @waiting
    async def test_provides_the_interface(self) -> None:
        verifyObject(IGreylistStore, await self.opened())

    @waiting
    async def test_a_record_is_there_at_once_and_after_it_was_written(self) -> None:
        store = await self.opened()
        self.assertIsNone(store.get("a@[192.0.2.1]"))
        for record in (WAITING, PASSED, Record(None, NOW, kept=True), Record(5, 6, kept=True)):
            store.put("a@[192.0.2.1]", record, "192.0.2")
            self.assertEqual(store.get("a@[192.0.2.1]"), record)
            await store.flush()
            self.assertEqual(store.get("a@[192.0.2.1]"), record)
        self.assertIsNone(store.get("A@[192.0.2.1]"))

    @waiting
    async def test_removed(self) -> None:
        store = await self.opened()
        store.put("a", WAITING, "")
        store.remove("a")
        self.assertIsNone(store.get("a"))
        store.put("a", WAITING, "")
        await store.flush()
        store.remove("a")
        store.remove("unknown")
        self.assertIsNone(store.get("a"))
        await store.flush()
        self.assertIsNone(store.get("a"))
        self.assertEqual(await everything(store), {})

    @waiting
    async def test_what_is_closed_is_there_when_opened_again(self) -> None:
        store = self.make()
        self.assertRaises(StoreFailed, store.get, "a")
        await store.open()
        store.put("a", WAITING, "x")
        store.put("b", PASSED, "x")
        store.put("b", WAITING, "x")
        await store.close()
        self.assertRaises(StoreFailed, store.get, "a")
        store = await self.opened()
        self.assertEqual(await everything(store), {"a": WAITING, "b": WAITING})

    @waiting
    async def test_records_are_given_in_portions_with_what_was_just_put(self) -> None:
        store = await self.opened()
        wanted = {f"{number}@example.org": Record(NOW + number, NOW) for number in range(1234)}
        for key, record in wanted.items():
            store.put(key, record, "x")
        self.assertEqual(await everything(store), wanted)

    @waiting
    async def test_odd_keys(self) -> None:
        store = await self.opened()
        keys = ['"a b\\""@[::1]', "<>@[192.0.2.1]", "ä@ö.example", "%_'", "x" * 400]
        for key in keys:
            store.put(key, WAITING, key)
        await store.flush()
        self.assertEqual([store.get(key) for key in keys], [WAITING] * 5)

    @waiting
    async def test_the_longest_unseen_that_never_passed_go_first(self) -> None:
        store = await self.opened(most=8)
        for number in range(8):
            store.put(f"w{number}", Record(NOW + 3600, NOW - number), f"net{number}")
        for number in range(3):
            store.put(f"p{number}", Record(NOW - 7200, NOW - 3600 - number), "")
        self.assertEqual(await self.names(store), "p0 p1 p2 w0 w1 w2 w3 w4")

    @waiting
    async def test_a_quarter_of_the_room_is_for_those_that_wait(self) -> None:
        store = await self.opened(most=8)
        for number in range(9):
            store.put(f"p{number}", Record(NOW - 7200, NOW - 60 - number), "")
        self.assertEqual(await self.names(store), "p0 p1 p2 p3 p4 p5 p6 p7")
        for number in range(4):
            store.put(f"w{number}", Record(NOW + 3600, NOW - number), "")
        self.assertEqual(await self.names(store), "p0 p1 p2 p3 p4 p5 w0 w1")

    @waiting
    async def test_a_network_has_its_share(self) -> None:
        store = await self.opened(most=100, share=4)
        store.put("other", Record(NOW + 3600, NOW - 50), "other")
        store.put("nobody's", Record(NOW - 3600, NOW - 50), "")
        store.put("passed", Record(NOW - 3600, NOW - 50), "flood")
        for number in range(9):
            store.put(f"w{number}", Record(NOW + 3600, NOW - number), "flood")
            await store.flush()
        self.assertEqual(await self.names(store), "nobody's other passed w0 w1 w2")

    @waiting
    async def test_what_passed_counts_as_such_from_then_on(self) -> None:
        store = await self.opened(most=4)
        store.put("a", Record(NOW + 3600, NOW - 50), "x")
        await store.flush()
        store.put("a", Record(NOW - 100, NOW - 50), "y")
        for number in range(5):
            store.put(f"w{number}", Record(NOW + 3600, NOW - number), "x")
        self.assertEqual(await self.names(store), "a w0 w1 w2")

    @waiting
    async def test_what_an_operator_made_stays_and_takes_no_room(self) -> None:
        store = await self.opened(most=2, share=2, keep=100)
        store.put("f", Record(None, 5, kept=True), "x")
        store.put("a", Record(5, 5), "x")
        store.put("a", Record(5, 5, kept=True), "x")
        for number in range(3):
            store.put(f"w{number}", Record(NOW + 3600, NOW - number), "x")
        self.assertEqual(await self.names(store), "a f w0 w1")

    @waiting
    async def test_other_bounds(self) -> None:
        store = await self.opened(most=4)
        for number in range(5):
            store.put(f"w{number}", Record(NOW + 3600, NOW - number), "x")
        self.assertEqual(await self.names(store), "w0 w1 w2 w3")
        store.adapt(Bounds(3, 2, 0))
        store.put("other", Record(NOW + 3600, NOW - 9), "y")
        store.put("w3", Record(NOW + 3600, NOW), "x")
        self.assertEqual(await self.names(store), "other w0 w3")

    @waiting
    async def test_what_was_not_seen_for_long_goes(self) -> None:
        store = await self.opened(keep=100)
        store.put("old", Record(NOW - 300, NOW - 101), "x")
        store.put("older", Record(NOW + 300, NOW - 101), "x")
        store.put("young", Record(NOW - 300, NOW - 100), "x")
        self.assertEqual(await self.names(store), "young")
        self.clock.advance(1)
        self.assertEqual(await self.names(store), "")
