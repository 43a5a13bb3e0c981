"""How many letters a network or an account may send."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.values import RATE
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal
from postoffice.policy import rates
from postoffice.policy.rates import Buckets, Rates

ONE = Client("192.0.2.9")
TWO = Client("192.0.2.10")
ANN = Client("192.0.2.9", login="ann@example.org", may_relay=True)
HOME = Client("127.0.0.1", here=True, may_relay=True)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)

    def make(self, *texts: str) -> Rates:
        return Rates([RATE.parse(text) for text in texts], self.clock.seconds)

    def sent(self, limits: Rates, client: Client, most: int = 20) -> int:
        """How many letters of `most` go through."""
        for count in range(most):
            try:
                limits.debit(client)
            except Refusal as refusal:
                self.assertEqual((refusal.reply.code, refusal.reply.enhanced), (450, (7, 1)))
                return count
        return most


class Limited(Case):
    def test_so_many_in_a_period(self) -> None:
        limits = self.make("5/1h")
        self.assertEqual(self.sent(limits, ONE), 5)
        self.assertEqual(self.sent(limits, TWO), 5)
        self.clock.advance(719)
        self.assertEqual(self.sent(limits, ONE), 0)
        self.clock.advance(1)
        self.assertEqual(self.sent(limits, ONE), 1)
        self.clock.advance(10_000)
        self.assertEqual(self.sent(limits, ONE), 5)

    def test_the_reply_says_when_to_come_back(self) -> None:
        limits = self.make("1/100")
        limits.debit(ONE)
        self.clock.advance(30)
        refusal = self.assertRaises(Refusal, limits.debit, ONE)
        self.assertEqual(
            str(refusal.reply),
            "450 4.7.1 [192.0.2.9] may send 1 letters in 100 seconds, and did; try again in 70 seconds",
        )

    def test_whom_a_limit_is_about(self) -> None:
        for text, one, ann, home in (("2/1h", 2, 2, 20), ("user:2/1h", 20, 2, 20), ("net:2/1h", 2, 0, 20)):
            limits = self.make(text)
            counts = self.sent(limits, ONE), self.sent(limits, ANN), self.sent(limits, HOME)
            self.assertEqual(counts, (one, ann, home), text)

    def test_every_limit_counts_and_a_refusal_debits_none(self) -> None:
        limits = self.make("user:3/1h", "net:5/1h")
        self.assertEqual(self.sent(limits, ANN), 3)
        self.assertEqual(self.sent(limits, ONE), 2)

    def test_a_network_of_64_bits_is_one(self) -> None:
        limits = self.make("3/1h")
        self.assertEqual(self.sent(limits, Client("2001:db8::1")), 3)
        self.assertEqual(self.sent(limits, Client("2001:db8::2:0:0:1")), 0)
        self.assertEqual(self.sent(limits, Client("2001:db8:0:1::1")), 3)

    def test_limits_that_stay_count_on(self) -> None:
        limits = self.make("3/1h")
        self.sent(limits, ONE)
        limits.adapt([RATE.parse("3/1h"), RATE.parse("net:10/1h")])
        self.assertEqual(self.sent(limits, ONE), 0)
        self.assertEqual(self.sent(limits, TWO), 3)
        limits.adapt([RATE.parse("net:10/1h")])
        self.assertEqual(self.sent(limits, TWO), 7)

    def test_without_limits(self) -> None:
        self.assertEqual(self.sent(self.make(), ONE), 20)


class Memory(Case):
    def test_A9_full_buckets_are_forgotten(self) -> None:
        buckets = Buckets(RATE.parse("10/100"), self.clock.seconds)
        for number in range(50):
            buckets.take(f"n{number}")
        self.assertEqual(len(buckets), 50)
        self.clock.advance(100)
        for number in range(40):
            buckets.take(f"m{number}")
        self.assertLessEqual(len(buckets), 41)

    def test_A9_there_is_a_bound(self) -> None:
        self.patch(rates, "MOST_BUCKETS", 10)
        buckets = Buckets(RATE.parse("10/100"), self.clock.seconds)
        for number in range(1000):
            buckets.take(f"n{number}")
        self.assertEqual(len(buckets), 10)
