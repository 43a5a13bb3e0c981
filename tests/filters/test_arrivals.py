"""How often clients of one address came lately."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.filters.arrivals import MOST, Arrivals


class Counting(SynchronousTestCase):
    def test_the_last_minute_counts(self) -> None:
        arrivals = Arrivals()
        counts = [arrivals.count("192.0.2.9", now) for now in (0.0, 9.9, 10.0, 59.0, 60.0, 70.0, 500.0)]
        self.assertEqual(counts, [1, 2, 3, 4, 3, 3, 1])

    def test_each_address_has_its_own(self) -> None:
        arrivals = Arrivals()
        for ip, count in (
            ("192.0.2.9", 1),
            ("192.0.2.10", 1),
            ("2001:db8::1", 1),
            ("2001:db8::2", 2),
            ("192.0.2.9", 2),
        ):
            self.assertEqual(arrivals.count(ip, 5.0), count, ip)

    def test_memory_is_bounded(self) -> None:
        arrivals = Arrivals()
        for number in range(MOST):
            arrivals.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1.0)
        self.assertEqual(arrivals.count("192.0.2.9", 1.0), 0)
        self.assertEqual(arrivals.count("10.0.0.0", 1.0), 2)
        self.assertEqual(arrivals.count("192.0.2.9", 10.0), 1)
