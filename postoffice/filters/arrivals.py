"""How often clients of one address came lately, which filters may ask for (the macro `client_rate`).

Kept by the chain, which counts every session that filters take part in. As with sendmail the last minute
counts, in parts of ten seconds; the addresses are those that count as one client's (a /64 in IPv6). Memory is
bounded: of more than `MOST` clients in ten seconds the others are not counted. Nothing here fails.
"""

from __future__ import annotations

from collections import Counter, deque

from postoffice.mail.client import network_of

WINDOW = 60.0
PARTS = 6
MOST = 20_000


class Arrivals:
    """Counts of the last minute, in parts of ten seconds."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, Counter[str]]] = deque(maxlen=PARTS)

    def count(self, ip: str, now: float) -> int:
        """A client has come; how many have from there within the last minute, this one included."""
        part = int(now // (WINDOW / PARTS))
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append((part, Counter()))
        near = network_of(ip)
        newest = self._parts[-1][1]
        if near in newest or len(newest) < MOST:
            newest[near] += 1
        return sum(counts[near] for begun, counts in self._parts if part - begun < PARTS)
