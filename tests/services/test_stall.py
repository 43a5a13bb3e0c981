"""The meter of stalls."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.stall import BEAT, QUIET, TOO_LONG, StallMeter, thread_waited


class Meter(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.waited = 0.0
        self.told: list[tuple[float, float]] = []
        self.worked = 7.0

        def tell(stall: float, work: float) -> None:
            self.told.append((stall, work))

        self.meter = StallMeter(self.clock, tell, lambda: self.waited, lambda: self.worked)
        self.meter.start()

    def test_a_steady_reactor_shows_one_beat(self) -> None:
        self.clock.pump([BEAT] * 10)
        self.meter.stop()
        self.assertAlmostEqual(self.meter.longest, BEAT)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told, [])

    def test_a_stall_is_shown_whole(self) -> None:
        self.clock.pump([BEAT, 0.3, BEAT])
        self.assertGreaterEqual(self.meter.longest, 0.3)
        self.assertLessEqual(self.meter.longest, 0.3 + BEAT)
        self.assertEqual(self.told, [(self.meter.longest, 0.0)])

    def test_how_much_of_it_was_work_is_told(self) -> None:
        self.worked += 1
        self.clock.advance(BEAT)
        self.worked += 0.25
        self.clock.advance(0.3)
        ((_, work),) = self.told
        self.assertAlmostEqual(work, 0.25)

    def test_time_without_a_processor_does_not_count(self) -> None:
        self.clock.advance(BEAT)
        self.waited += 0.3
        self.clock.advance(0.31)
        self.assertLessEqual(self.meter.longest, BEAT * 2)
        self.clock.advance(TOO_LONG + BEAT)
        self.assertEqual(len(self.told), 1, "and is not made up for by what comes later")
        self.assertLessEqual(self.meter.longest, TOO_LONG + BEAT * 2)

    def test_many_stalls_are_told_now_and_then(self) -> None:
        for _ in range(4):
            self.clock.pump([TOO_LONG + BEAT] * int(QUIET / 2 / TOO_LONG))
        self.assertIn(len(self.told), (2, 3))

    def test_the_kernel_tells(self) -> None:
        waited = thread_waited()
        self.assertGreaterEqual(waited, 0)
        self.assertGreaterEqual(thread_waited(), waited)
