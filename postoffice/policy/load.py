"""Whether this machine has too much to do for new sessions. Asked by the listener at every connection.

The load average is read at most every few seconds. When it cannot be read there is no limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable

PERIOD = 5.0
FOR_EACH_CPU = 4


class Load:
    """`limit` is the option `load`: None for four for each CPU, 0 for no limit. `seconds` is a clock."""

    def __init__(
        self,
        limit: int | None,
        seconds: Callable[[], float],
        read: Callable[[], tuple[float, float, float]] = os.getloadavg,
    ) -> None:
        self._limit = FOR_EACH_CPU * (os.cpu_count() or 1) if limit is None else limit
        self._seconds = seconds
        self._read = read
        self._look = float("-inf")
        self._high = False

    def is_high(self) -> bool:
        """Whether the load of the last minute is above the limit."""
        if not self._limit:
            return False
        now = self._seconds()
        # The clock may have been set back.
        if not self._look - PERIOD <= now < self._look:
            self._look = now + PERIOD
            try:
                self._high = self._read()[0] > self._limit
            except OSError:
                self._high = False
        return self._high
