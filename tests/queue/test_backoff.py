"""Waits between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.queue.backoff import JITTER, wait

WAITS = (300, 900, 21600)


class Waits(SynchronousTestCase):
    def test_in_order_and_the_last_repeats(self) -> None:
        self.assertEqual([wait(n, WAITS, 0.5) for n in (1, 2, 3, 4, 100)], [300, 900, 21600, 21600, 21600])

    @given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
    def test_jitter_is_bounded(self, attempts: int, chance: float) -> None:
        base = wait(attempts, WAITS, 0.5)
        self.assertLessEqual(abs(wait(attempts, WAITS, chance) - base), base * JITTER * 1.000001)

    def test_chance_matters(self) -> None:
        self.assertLess(wait(1, WAITS, 0.0), wait(1, WAITS, 0.9))
