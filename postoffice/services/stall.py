"""A meter of how long the reactor is held up: the longest time between two beats of a steady pulse.

The service makes one, logs its reading when it ends, and is told of each stall that clients notice. Time in
which the reactor's thread was ready to run and the machine gave it no processor is not counted: nothing here
could have spent it better (Linux tells it, elsewhere it counts). The reading is an upper bound: a stall is at
most what is shown, and at least that less one beat.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Seconds between beats: fine enough to see a stall of 50 ms, coarse enough to cost nothing.
BEAT = 0.01
# Stalls of so many seconds are told, but not oftener than once in so many.
TOO_LONG = 0.05
QUIET = 10.0


class StallMeter:
    """`longest` is in seconds; 0 until it runs.

    `tell` is called with a stall that is too long, and how much of it the reactor's thread was at work; the
    rest it waited for something, be it the disk or another thread. `waited` gives the seconds that this
    thread has waited for a processor so far, `worked` those that it had one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tell: Callable[[float, float], None],
        waited: Callable[[], float],
        worked: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._waited = waited
        self._worked = worked
        self._last = 0.0
        self._work = 0.0
        self._quiet_until = 0.0
        self._call: IDelayedCall | None = None
        self.longest = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._last = self._clock.seconds() - self._waited()
        self._work = self._worked()
        self._call = self._clock.callLater(BEAT, self._beat)

    def stop(self) -> None:
        """End measuring; `longest` stays."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _beat(self) -> None:
        now = self._clock.seconds()
        stall = now - self._waited() - self._last
        work = self._worked() - self._work
        self._last += stall
        self._work += work
        self.longest = max(self.longest, stall)
        if stall >= TOO_LONG and now >= self._quiet_until:
            self._quiet_until = now + QUIET
            self._tell(stall, work)
        self._call = self._clock.callLater(BEAT, self._beat)


def thread_waited() -> float:
    """What the kernel counts for the calling thread; 0 where it does not tell.

    The second number of schedstat is nanoseconds on a run queue.
    """
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0.0
    try:
        return int(os.read(file, 64).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
    finally:
        os.close(file)
