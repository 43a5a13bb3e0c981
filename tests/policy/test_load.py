"""The load average, read seldom."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.policy.load import FOR_EACH_CPU, PERIOD, Load


class Loads(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.load = 0.0
        self.reads = 0

    def read(self) -> tuple[float, float, float]:
        self.reads += 1
        if self.load < 0:
            raise OSError
        return self.load, 0.0, 0.0

    def high(self, limit: int | None, load: float) -> bool:
        self.load = load
        return Load(limit, self.clock.seconds, self.read).is_high()

    def test_limits(self) -> None:
        self.assertFalse(self.high(3, 3.0))
        self.assertTrue(self.high(3, 3.1))
        self.assertFalse(self.high(3, -1))
        cpus = FOR_EACH_CPU * (os.cpu_count() or 1)
        self.assertFalse(self.high(None, cpus))
        self.assertTrue(self.high(None, cpus + 0.1))

    def test_no_limit_reads_nothing(self) -> None:
        self.assertFalse(self.high(0, 1000.0))
        self.assertEqual(self.reads, 0)

    def test_read_once_in_a_while(self) -> None:
        load = Load(3, self.clock.seconds, self.read)
        for _ in range(100):
            self.assertFalse(load.is_high())
        self.load = 4.0
        self.assertFalse(load.is_high())
        self.clock.advance(PERIOD)
        self.assertTrue(load.is_high())
        self.assertEqual(self.reads, 2)
