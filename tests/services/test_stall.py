"""The meter of stalls."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.stall import BEAT, StallMeter


class Meter(SynchronousTestCase):
    def test_a_steady_reactor_shows_one_beat(self) -> None:
        clock = Clock()
        meter = StallMeter(clock)
        meter.start()
        clock.pump([BEAT] * 10)
        meter.stop()
        self.assertAlmostEqual(meter.longest, BEAT)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_stall_is_shown_whole(self) -> None:
        clock = Clock()
        meter = StallMeter(clock)
        meter.start()
        clock.pump([BEAT, 0.3, BEAT])
        meter.stop()
        self.assertGreaterEqual(meter.longest, 0.3)
        self.assertLessEqual(meter.longest, 0.3 + BEAT)
