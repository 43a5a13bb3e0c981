"""How often a password may be guessed, by the clock."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.client import Client, network_of
from postoffice.server import throttle as module
from postoffice.server.throttle import (
    ACCOUNT_WAIT,
    FORGOTTEN,
    FREE,
    NETWORK_WAIT,
    Throttle,
    Throttled,
)

HOME = Client("192.0.2.1")
FAR = Client("198.51.100.7")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock.seconds)

    def succeed(self, account: str, client: Client) -> None:
        attempt = self.throttle.begin(account, client)
        attempt.succeeded()
        attempt.end()

    def fail_times(self, account: str, client: Client, times: int) -> None:
        for _ in range(times):
            attempt = self.throttle.begin(account, client)
            attempt.failed()
            attempt.end()

    def refused(self, account: str, client: Client) -> bool:
        try:
            self.throttle.begin(account, client).end()
        except Throttled:
            return True
        return False

    def wait(self, account: str, client: Client) -> float:
        """Seconds until the next attempt may be made."""
        before = self.clock.seconds()
        while self.refused(account, client):
            self.clock.advance(1)
        return self.clock.seconds() - before


class Waiting(Case):
    def test_C2_growing_waits_for_an_account(self) -> None:
        clients = [Client(f"192.0.2.{number}") for number in range(100, 160)]
        for client in clients[:FREE]:
            self.fail_times("alice", client, 1)
        waits = []
        for client in clients[FREE : FREE + 6]:
            waits.append(self.wait("alice", client))
            self.fail_times("alice", client, 1)
        self.assertEqual(waits, [30, 60, 120, 240, ACCOUNT_WAIT, ACCOUNT_WAIT])
        self.assertTrue(self.refused("alice", FAR))
        self.assertFalse(self.refused("bob", FAR))

    def test_C2_growing_waits_for_a_network(self) -> None:
        for number in range(FREE):
            self.fail_times(f"user{number}", FAR, 1)
        self.assertTrue(self.refused("another", FAR))
        self.assertFalse(self.refused("another", HOME))
        waits = []
        for number in range(9):
            waits.append(self.wait(f"more{number}", FAR))
            self.fail_times(f"more{number}", FAR, 1)
        self.assertEqual(waits, [30, 60, 120, 240, 480, 960, 1920, NETWORK_WAIT, NETWORK_WAIT])

    def test_a_network_of_IPv6_is_64_bits(self) -> None:
        for number in range(FREE):
            self.fail_times(f"user{number}", Client(f"2001:db8::{number:x}:1"), 1)
        self.assertTrue(self.refused("another", Client("2001:db8::ffff:ffff:ffff:ffff")))
        self.assertFalse(self.refused("another", Client("2001:db8:0:1::1")))
        self.assertEqual(network_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64")

    def test_a_quiet_time_makes_good(self) -> None:
        self.fail_times("alice", FAR, FREE)
        self.clock.advance(FORGOTTEN + 1)
        self.fail_times("alice", FAR, FREE - 1)
        self.assertFalse(self.refused("alice", FAR))

    def test_a_success_does_not(self) -> None:
        """Whoever has one account could guess at the others for ever."""
        for number in range(FREE):
            self.fail_times(f"user{number}", FAR, 1)
            if number < FREE - 1:
                self.succeed("mallory", FAR)
        self.assertTrue(self.refused("alice", FAR))


class Owners(Case):
    def test_C2_nobody_is_locked_out_of_where_he_usually_is(self) -> None:
        self.succeed("alice", HOME)
        for number in range(100, 100 + FREE):
            self.fail_times("alice", Client(f"192.0.2.{number}"), 1)
        self.assertTrue(self.refused("alice", FAR))
        self.assertFalse(self.refused("alice", HOME))

    def test_the_usual_place_is_counted_by_itself(self) -> None:
        self.succeed("alice", HOME)
        self.fail_times("alice", HOME, FREE)
        self.assertTrue(self.refused("alice", HOME))
        self.assertEqual(self.wait("alice", HOME), 30)
        self.assertFalse(self.refused("alice", FAR))

    def test_the_users_of_this_machine_do_not_share_a_count(self) -> None:
        here = Client("127.0.0.1", here=True, may_relay=True)
        for number in range(FREE):
            self.fail_times(f"user{number}", here, 1)
        self.assertFalse(self.refused("alice", here))
        self.fail_times("alice", here, FREE)
        self.assertTrue(self.refused("alice", here))


class AtTheSameTime(Case):
    def test_C2_attempts_under_way_count(self) -> None:
        attempts = [self.throttle.begin("alice", FAR) for _ in range(FREE)]
        self.assertTrue(self.refused("alice", FAR))
        for attempt in attempts:
            attempt.failed()
            attempt.end()
        self.assertEqual(self.wait("alice", FAR), 30)
        attempt = self.throttle.begin("alice", FAR)
        self.assertTrue(self.refused("alice", FAR))
        attempt.end()
        self.assertFalse(self.refused("alice", FAR))

    def test_one_that_is_refused_leaves_nothing_under_way(self) -> None:
        for number in range(FREE):
            self.fail_times("alice", Client(f"192.0.2.{number}"), 1)
        for _ in range(2 * FREE):
            self.assertTrue(self.refused("alice", FAR))
        self.assertFalse(self.refused("bob", FAR))


class Bounds(Case):
    def test_C2_memory_is_bounded(self) -> None:
        self.patch(module, "MOST", 50)
        for number in range(500):
            client = Client(f"10.0.{number // 250}.{number % 250}")
            self.fail_times(f"user{number}", client, 1)
            self.succeed(f"user{number}", client)
        sizes = [len(count._records) for count in (self.throttle._networks, self.throttle._accounts)]
        self.assertEqual([*sizes, len(self.throttle._known)], [50, 50, 50])
