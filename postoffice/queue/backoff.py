"""When a postponed recipient is tried again. Pure: time and chance are handed in."""

from __future__ import annotations

from collections.abc import Sequence

# A wait is lengthened or shortened by at most this share, so that letters postponed together by an
# outage do not come back together.
JITTER = 0.1


def wait(attempts: int, waits: Sequence[float], chance: float) -> float:
    """Seconds until the next attempt, after `attempts` (at least 1) have been made.

    `waits` are the configured waits, of which the last repeats; `chance` is from 0 up to 1.
    """
    base = waits[min(attempts, len(waits)) - 1]
    return base * (1 + JITTER * (2 * chance - 1))
