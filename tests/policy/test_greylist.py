"""The greylist's decisions, on records in memory; and against abuse, on disk."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import apsw
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.greylist import Expiry, Record
from postoffice.policy.greylist import (
    WINDOW,
    Greylist,
    GreylistSettings,
    Never,
    Pass,
    Wait,
    share_of,
)
from postoffice.policy.greylist_store import GreylistStore
from postoffice.policy.greylist_table import look_up
from tests.contracts import waiting
from tests.doubles import MemoryGreylist
from tests.greylist_contract import NOW, everything
from tests.policy.test_greylist_store import Stores
from tests.queue.support import Journal
from tests.support import counted

DELAY = 3600
DAY = 86400
KEEP = 35 * DAY
ALICE = Address("Alice", "Example.org")
CLIENT = Client("192.0.2.1", name="mx.example.org")
NAMELESS = Client("192.0.2.1", nameless=True)
OTHER = Client("198.51.100.7", name="other.example")


class Greylists(SynchronousTestCase):
    """A greylist on records in memory, and its clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = NOW + 0.7
        self.store = MemoryGreylist(self.clock.seconds)
        self.store.broken = False
        self.journal = Journal()
        self.greylist = self.make()

    def make(self, **settings: Any) -> Greylist:
        return Greylist(
            self.store,
            GreylistSettings(DELAY, **{"keep": KEEP, **settings}),
            self.journal,
            self.clock.seconds,
        )

    def use(self, **settings: Any) -> None:
        """Other settings, on the same records."""
        self.greylist = self.make(**settings)

    def consult(self, client: Client = CLIENT, sender: Address | None = ALICE) -> Any:
        return self.greylist.consult(client, sender)

    def records(self) -> dict[str, Record]:
        return {key: record for key, (record, _) in self.store.pairs.items()}


class Embargo(Greylists):
    """Who waits, and how long."""

    def test_a_stranger_waits_for_the_delay_and_then_passes(self) -> None:
        self.assertEqual(self.consult(), Wait(DELAY))
        self.assertEqual(self.records(), {"alice@[192.0.2.1]": Record(NOW + DELAY, NOW)})
        self.clock.advance(600)
        self.assertEqual(self.consult(), Wait(DELAY - 600))
        # Contacts move the time it was seen, and never the time it waits for.
        self.assertEqual(self.records(), {"alice@[192.0.2.1]": Record(NOW + DELAY, NOW + 600)})
        self.clock.advance(DELAY - 601)
        self.assertEqual(self.consult(), Wait(1))
        self.clock.advance(1)
        self.assertEqual(self.consult(), Pass())
        self.assertTrue(self.records()["alice@[192.0.2.1]"].passed)
        self.clock.advance(KEEP)
        self.assertEqual(self.consult(), Pass())

    def test_every_pair_waits_for_itself(self) -> None:
        self.consult()
        self.clock.advance(DELAY)
        self.assertEqual(self.consult(OTHER), Wait(DELAY))
        self.assertEqual(self.consult(sender=Address("bob", "example.org")), Wait(DELAY))
        self.assertEqual(self.consult(), Pass())
        # The domain is no part of the key.
        self.assertEqual(self.consult(sender=Address("ALICE", "elsewhere.example")), Pass())

    def test_multipliers(self) -> None:
        for client, sender, multiplier in [
            (CLIENT, ALICE, 1),
            (NAMELESS, ALICE, 2),
            (CLIENT, None, 5),
            (NAMELESS, None, 6),
            (CLIENT, Address("a b", "example.org"), 2),
            (CLIENT, Address(" a\tb\x01\x7f", "example.org"), 5),
            (CLIENT, Address("gr\u00fc\u00dfe", "example.org"), 1),
            (CLIENT, Address("a\u00a0b\u200bc", "example.org"), 3),
            (NAMELESS, Address("a b", "example.org"), 3),
        ]:
            self.store.pairs.clear()
            self.assertEqual(self.consult(client, sender), Wait(multiplier * DELAY), (client, sender))

    def test_the_multiplier_of_the_null_sender_can_be_set(self) -> None:
        self.use(null=2)
        self.assertEqual(self.consult(sender=None), Wait(2 * DELAY))
        self.assertEqual(self.consult(replace_ip(NAMELESS, "192.0.2.2"), None), Wait(3 * DELAY))
        self.use(null=0)
        self.assertEqual(self.consult(replace_ip(CLIENT, "192.0.2.3"), None), Pass())

    def test_the_null_sender_passes_once_within_ten_minutes(self) -> None:
        for early in (0, WINDOW - 1):
            self.assertEqual(self.consult(sender=None), Wait(5 * DELAY))
            self.clock.advance(5 * DELAY + early)
            self.assertEqual(self.consult(sender=None), Pass())
            self.assertEqual(self.records(), {})
        self.assertEqual(self.consult(sender=None), Wait(5 * DELAY))
        self.clock.advance(5 * DELAY + WINDOW)
        self.assertEqual(self.consult(sender=None), Pass())
        self.assertEqual(list(self.records()), ["<>@[192.0.2.1]"])
        self.assertEqual(self.consult(sender=None), Pass())

    def test_what_passed_is_forgotten_after_its_time(self) -> None:
        self.consult()
        self.clock.advance(DELAY)
        self.assertEqual(self.consult(), Pass())
        self.clock.advance(KEEP + 1)
        self.assertEqual(self.consult(), Wait(DELAY))
        self.use(keep=0)
        self.clock.advance(1000 * DAY)
        self.assertEqual(self.consult(), Pass())

    def test_without_a_delay_nobody_waits(self) -> None:
        self.greylist = Greylist(self.store, GreylistSettings(0), self.journal, self.clock.seconds)
        self.assertEqual(self.consult(), Pass())

    def test_wrong_numbers_begin_anew(self) -> None:
        self.consult()
        self.consult(OTHER)
        self.clock.advance(DELAY)
        self.greylist.forget(CLIENT, ALICE)
        self.assertEqual(self.consult(), Wait(DELAY))
        self.assertEqual(self.consult(OTHER), Pass())
        self.greylist.forget(CLIENT, None)


class Keys(Greylists):
    """What counts as the same sender at the same client."""

    def test_the_whole_address(self) -> None:
        self.use(full=True)
        self.assertEqual(self.consult(), Wait(DELAY))
        self.clock.advance(DELAY)
        self.assertEqual(self.consult(OTHER), Pass())
        self.assertEqual(self.consult(sender=Address("alice", "elsewhere.example")), Wait(DELAY))
        self.assertEqual(self.consult(sender=None), Wait(5 * DELAY))
        self.assertEqual(
            sorted(self.records()), ["<>@[192.0.2.1]", "alice@elsewhere.example", "alice@example.org"]
        )

    def test_networks(self) -> None:
        self.use(prefixes=(24, 64))
        for first, second, third, key in [
            ("192.0.2.1", "192.0.2.200", "192.0.3.1", "alice@[192.0.2.0/24]"),
            ("2001:db8::1", "2001:db8::ffff:0:0:7", "2001:db8:0:1::1", "alice@[2001:db8::/64]"),
        ]:
            self.store.pairs.clear()
            self.consult(replace_ip(CLIENT, first))
            self.assertEqual(list(self.records()), [key])
            self.clock.advance(DELAY)
            self.assertEqual(self.consult(replace_ip(CLIENT, second)), Pass())
            self.assertEqual(self.consult(replace_ip(CLIENT, third)), Wait(DELAY))
        self.consult(replace_ip(CLIENT, "192.0.2.1"), None)
        self.assertIn("<>@[192.0.2.0/24]", self.records())

    def test_a_client_without_an_address(self) -> None:
        self.use(prefixes=(24, 64))
        self.consult(replace_ip(CLIENT, ""))
        self.assertEqual(list(self.records()), ["alice@[]"])

    def test_ipv6(self) -> None:
        self.consult(replace_ip(CLIENT, "2001:db8::1"))
        self.assertEqual(list(self.records()), ["alice@[2001:db8::1]"])

    def test_shares(self) -> None:
        self.assertEqual(share_of("192.0.2.77"), "192.0.2")
        self.assertEqual(share_of("2001:db8:1:2:3::4"), "2001:db8:1::/48")

    def test_C6_a_sender_cannot_look_like_another_record(self) -> None:
        self.consult()
        self.consult(sender=None)
        self.clock.advance(5 * DELAY + WINDOW)
        for local, domain in [
            ("alice", "[192.0.2.1]"),
            ("alice@[192.0.2.1]", "[192.0.2.1]"),
            ("<>", "[192.0.2.1]"),
            ("<>@[192.0.2.1]", "example.org"),
            ('"alice"', "[192.0.2.1]"),
        ]:
            self.assertIsInstance(self.consult(OTHER, Address(local, domain)), Wait, (local, domain))
        self.assertIsInstance(self.consult(sender=Address("<>", "example.org")), Wait)
        self.assertEqual(self.consult(sender=None), Pass())
        self.assertEqual(self.consult(), Pass())

    @given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
    def test_C6_different_local_parts_have_different_keys(self, first: str, second: str) -> None:
        self.store.pairs.clear()
        self.consult(sender=Address(first, "example.org"))
        self.consult(sender=Address(second, "example.org"))
        self.consult(sender=None)
        self.assertEqual(len(self.records()), 2 + (first.lower() != second.lower()))

    def test_C6_others_cannot_spoil_what_a_client_earned(self) -> None:
        self.consult()
        self.clock.advance(DELAY)
        self.consult()
        for _ in range(3):
            self.consult(OTHER)
            self.greylist.forget(OTHER, ALICE)
        self.assertEqual(self.consult(), Pass())


class Operators(Greylists):
    """What somebody said of an address or of a pair, or wrote to."""

    def test_an_address_that_is_approved_or_forbidden(self) -> None:
        self.greylist.approve("ALICE@example.ORG")
        self.assertEqual(self.consult(), Pass())
        self.assertEqual(list(self.records()), ["alice@example.org"])
        self.assertEqual(self.consult(sender=Address("alice", "elsewhere.example")), Wait(DELAY))
        self.greylist.forbid("alice@example.org")
        self.assertEqual(self.consult(OTHER), Never())
        self.clock.advance(1000 * DAY)
        self.assertEqual(self.consult(OTHER), Never())

    def test_a_pair_that_is_approved_or_forbidden(self) -> None:
        self.greylist.approve("alice@[192.0.2.1]")
        self.assertEqual(self.consult(), Pass())
        self.greylist.forbid("alice@[192.0.2.1]")
        self.assertEqual(self.consult(), Never())
        self.assertEqual(self.consult(OTHER), Wait(DELAY))
        self.greylist.forbid("<>@[192.0.2.1]")
        self.assertEqual(self.consult(sender=None), Never())

    def test_what_is_found_for_the_pair_comes_first(self) -> None:
        self.consult()
        self.clock.advance(DELAY)
        self.consult()
        self.greylist.forbid("alice@example.org")
        self.assertEqual(self.consult(), Pass())
        self.greylist.forbid("alice@[192.0.2.1]")
        self.greylist.approve("alice@example.org")
        self.assertEqual(self.consult(), Never())

    def test_an_approval_ends_the_waiting_of_a_pair(self) -> None:
        self.assertEqual(self.consult(), Wait(DELAY))
        self.greylist.approve("alice@example.org")
        self.assertEqual(self.consult(), Pass())
        self.assertEqual(self.consult(OTHER), Pass())

    def test_the_records_of_operators_outlive_wrong_numbers_and_the_null_senders_window(self) -> None:
        self.greylist.forbid("alice@[192.0.2.1]")
        self.greylist.forget(CLIENT, ALICE)
        self.assertEqual(self.consult(), Never())
        self.greylist.approve("<>@[192.0.2.1]")
        for _ in range(2):
            self.assertEqual(self.consult(sender=None), Pass())

    def test_addresses_our_users_wrote_to_pass(self) -> None:
        self.assertEqual(self.consult(OTHER), Wait(DELAY))
        self.greylist.wrote_to(Address("alice", "EXAMPLE.org."))
        self.assertEqual(self.consult(), Pass())
        self.assertEqual(self.consult(OTHER), Pass())
        self.assertEqual(self.consult(sender=Address("alice", "elsewhere.example")), Wait(DELAY))
        self.clock.advance(KEEP + 1)
        self.assertEqual(self.consult(), Wait(DELAY))

    def test_writing_to_somebody_overrules_no_operator_and_writes_no_record_twice_an_hour(self) -> None:
        self.greylist.forbid("alice@example.org")
        self.greylist.wrote_to(ALICE)
        self.assertEqual(self.consult(), Never())
        bob = Address("bob", "example.org")
        self.greylist.wrote_to(bob)
        self.clock.advance(3599)
        self.greylist.wrote_to(bob)
        self.assertEqual(self.records()["bob@example.org"].seen, NOW)
        self.clock.advance(1)
        self.greylist.wrote_to(bob)
        self.assertEqual(self.records()["bob@example.org"].seen, NOW + 3600)

    def test_writing_to_an_address_literal_is_nothing_to_remember(self) -> None:
        self.greylist.wrote_to(Address("alice", "[192.0.2.1]"))
        self.greylist.wrote_to(Address("alice", ""))
        self.assertEqual(self.records(), {})

    def test_names_of_records(self) -> None:
        self.use(prefixes=(24, 64))
        for name, key in [
            ("Alice@Example.org", "alice@example.org"),
            ("alice@[192.0.2.7]", "alice@[192.0.2.0/24]"),
            ("alice@[192.0.2.0/24]", "alice@[192.0.2.0/24]"),
            ("<>@[2001:DB8::0:1]", "<>@[2001:db8::/64]"),
            ("alice@[IPv6:2001:db8::1]", "alice@[2001:db8::/64]"),
            ('"A b"@[192.0.2.7]', '"a b"@[192.0.2.0/24]'),
            ("alice", "alice"),
            ("Grüße@Example.org", "grüße@example.org"),
            ("Grüße@[192.0.2.7]", "grüße@[192.0.2.0/24]"),
        ]:
            self.assertEqual(self.greylist.key_of(name), key)
        for name in (
            "",
            "a b@example.org",
            "@example.org",
            "a@[1.2.3.999]",
            "a\n@example.org",
            "<>",
            "a@[x]",
        ):
            self.assertRaises(ValueError, self.greylist.key_of, name)


class Expiring(Greylists):
    """Which records go when an operator asks."""

    def setUp(self) -> None:
        super().setUp()
        old, new = NOW - 15 * DAY, NOW - 13 * DAY
        for key, record in {
            "old@[192.0.2.1]": Record(old - 9, old),
            "new@[192.0.2.1]": Record(new - 9, new),
            "unused@[192.0.2.1]": Record(new + 9, new),
            "<>@[192.0.2.1]": Record(new - 9, new),
            "old-forbidden@example.org": Record(None, old, kept=True),
            "new-forbidden@example.org": Record(None, new, kept=True),
            "<>@[192.0.2.2]": Record(None, new, kept=True),
            "old-approved@example.org": Record(old - 9, old, kept=True),
        }.items():
            self.store.put(key, record, "")

    def expire(self, dry: bool = False, **flags: bool) -> str:
        """The keys of what went."""

        async def work() -> tuple[int, list[str]]:
            total, gone = 0, []
            async for number, keys in self.greylist.expire(Expiry(14 * DAY, **flags), dry):
                total += number
                gone += keys
            return total, gone

        before = set(self.records())
        total, gone = self.successResultOf(Deferred.fromCoroutine(work()))
        self.assertEqual(total, len(before))
        self.assertEqual(before - set(self.records()), set() if dry else set(gone))
        return " ".join(sorted(gone))

    def test_by_age(self) -> None:
        self.assertEqual(self.expire(dry=True), "old-approved@example.org old@[192.0.2.1]")
        self.assertEqual(self.expire(), "old-approved@example.org old@[192.0.2.1]")
        self.assertEqual(self.expire(), "")

    def test_forbidden_ones_too(self) -> None:
        self.assertEqual(
            self.expire(forbidden=True), "old-approved@example.org old-forbidden@example.org old@[192.0.2.1]"
        )

    def test_null_senders(self) -> None:
        self.assertEqual(self.expire(null=True), "<>@[192.0.2.1] old-approved@example.org old@[192.0.2.1]")
        self.assertEqual(self.expire(null=True, forbidden=True), "<>@[192.0.2.2] old-forbidden@example.org")

    def test_those_that_never_came_back(self) -> None:
        self.assertEqual(
            self.expire(unused=True), "old-approved@example.org old@[192.0.2.1] unused@[192.0.2.1]"
        )


class Failing(Greylists):
    """When the store fails, mail is let through."""

    def test_everybody_passes_and_the_log_says_so_once_a_minute(self) -> None:
        self.consult()
        self.store.broken = True
        for _ in range(3):
            self.assertEqual(self.consult(), Pass())
            self.greylist.forget(CLIENT, ALICE)
            self.greylist.wrote_to(ALICE)
        (error,) = self.journal.named("error")
        self.assertIn("lets everybody through", error)
        self.clock.advance(60)
        self.consult()
        self.assertEqual(len(self.journal.named("error")), 2)
        self.store.broken = False
        self.assertEqual(self.consult(), Wait(DELAY - 60))


class Abuse(Stores):
    """Strangers with random names and addresses, on disk."""

    async def greylist(self, store: GreylistStore) -> Greylist:
        await store.open()
        self.addCleanup(store.close)
        return Greylist(store, GreylistSettings(DELAY), self.journal, self.clock.seconds)

    @waiting
    async def test_C6_one_network_cannot_push_out_the_others(self) -> None:
        store = self.make(most=400, share=50)
        greylist = await self.greylist(store)
        greylist.consult(CLIENT, ALICE)
        for number in range(1000):
            greylist.consult(Client(f"203.0.113.{number % 256}"), Address(f"x{number}", "example.org"))
            if number % 100 == 0:
                await store.flush()
                self.clock.advance(1)
        self.clock.advance(DELAY)
        self.assertEqual(greylist.consult(CLIENT, ALICE), Pass())
        self.assertEqual(len(await everything(store)), 51)

    @waiting
    async def test_C6_a_flood_of_random_pairs(self) -> None:
        """100,000 of them: the disk is bounded, a look-up costs the last one what it cost the first.

        Those that passed before the flood still pass after it.
        """
        most = 4000
        store = self.make(most=most, share=1000)
        greylist = await self.greylist(store)
        regulars = [Address(f"regular{number}", "example.org") for number in range(1000)]
        for _ in range(2):
            for number, regular in enumerate(regulars):
                greylist.consult(Client(f"192.0.{number}.1", name="mx.example.org"), regular)
            await store.flush()
            self.clock.advance(DELAY)
        random = Random(6)
        calls, sizes = [], []
        for _ in range(50):
            for _ in range(2000):
                number = random.getrandbits(96)
                ip = ".".join(str(number >> shift & 255) for shift in (0, 8, 16, 24))
                sender = Address(f"{number >> 32:x}", "example.org")
                verdict, effort = counted(
                    lambda ip=ip, sender=sender: greylist.consult(Client(ip, nameless=True), sender)
                )
                assert verdict == Wait(2 * DELAY)
            calls.append(effort)
            await store.flush()
            sizes.append(sum(entry.stat().st_size for entry in os.scandir(self.directory)))
            self.clock.advance(1)
        self.assertEqual(set(calls), {calls[0]})
        self.assertLess(max(sizes), 25 << 20)
        self.assertLess(sizes[-1], 1.1 * max(sizes[:10]))
        self.assertEqual(len(await everything(store)), most)
        for number, regular in enumerate(regulars):
            verdict = greylist.consult(Client(f"192.0.{number}.1", name="mx.example.org"), regular)
            self.assertEqual(verdict, Pass())

    @waiting
    async def test_C6_a_look_up_reads_as_much_of_many_records_as_of_few(self) -> None:
        """Counted in steps of SQLite's machine, for what is there and for what is not."""
        store = self.make()
        await store.open()
        self.addCleanup(store.close)
        steps = []
        for number in range(0, 20_000, 5000):
            for one in range(number, number + 5000):
                store.put(f"x{one}@[192.0.2.1]", Record(NOW + DELAY, NOW), "192.0.2")
            await store.flush()
            steps += [self.steps("x7@[192.0.2.1]"), self.steps("nobody@[192.0.2.1]")]
        self.assertEqual(set(steps[::2]), {steps[0]})
        self.assertEqual(set(steps[1::2]), {steps[1]})

    def steps(self, key: str) -> int:
        """How many steps a look-up takes on a connection of its own."""
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
        taken: list[int] = []
        connection.trace_v2(
            apsw.SQLITE_TRACE_PROFILE,
            lambda event: taken.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]),
        )
        look_up(connection, key)
        connection.close()
        return sum(taken)


def replace_ip(client: Client, ip: str) -> Client:
    return evolve(client, ip=ip)
