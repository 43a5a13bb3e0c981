"""A meter of how long the reactor is held up: the longest time between two beats of a steady pulse.

The service makes one and logs its reading when it ends. The reading is an upper bound: a stall is at
most what is shown, and at least that less one beat.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Seconds between beats: fine enough to see a stall of 50 ms, coarse enough to cost nothing.
BEAT = 0.01


class StallMeter:
    """`longest` is in seconds; 0 until it runs."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._last = 0.0
        self._call: IDelayedCall | None = None
        self.longest = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._last = self._clock.seconds()
        self._call = self._clock.callLater(BEAT, self._beat)

    def stop(self) -> None:
        """End measuring; `longest` stays."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _beat(self) -> None:
        now = self._clock.seconds()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._call = self._clock.callLater(BEAT, self._beat)
