"""What the DNS said and how long that counts: a bounded memory, the least recently used goes first.

Used by the resolver on every question, so a hit costs two look-ups in dictionaries. Nothing here fails.
TTLs follow RFC 1035 section 3.2.1 and RFC 2308 section 5, within bounds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from postoffice.services.dns.message import Found, Known, Nonexistent, Question, Unanswered

LONGEST = 86400.0
LONGEST_NEGATIVE = 3600.0
FAILURE = 5.0
SHORTEST = 1.0


class Cache:
    """Answers by question, each until its time is over; `now` gives seconds.

    `room` is how much is kept: an answer takes as much as it has records, and one. Counting answers alone
    would let zones full of records fill the memory.
    """

    def __init__(self, now: Callable[[], float], room: int = 50_000) -> None:
        self._now = now
        self._room = room
        self._entries: OrderedDict[Question, tuple[float, Known]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question) -> Known | None:
        """What is known and still counts."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        expires, known = entry
        if expires <= self._now():
            self._forget(question)
            return None
        self._entries.move_to_end(question)
        return known

    def put(self, question: Question, known: Known) -> None:
        """Keep an answer for as long as it may count."""
        if question in self._entries:
            self._forget(question)
        self._entries[question] = (self._now() + _lifetime(known), known)
        self._room -= _size(known)
        while self._room < 0:
            self._forget(next(iter(self._entries)))

    def _forget(self, question: Question) -> None:
        _, known = self._entries.pop(question)
        self._room += _size(known)


def _size(known: Known) -> int:
    return 1 + len(known.values) if isinstance(known, Found) else 1


def _lifetime(known: Known) -> float:
    match known:
        case Unanswered():
            return FAILURE
        case Nonexistent(ttl=ttl):
            return max(SHORTEST, min(ttl, LONGEST_NEGATIVE))
        case Found(ttl=ttl):
            nothing = not known.values and known.alias is None
            return max(SHORTEST, min(ttl, LONGEST_NEGATIVE if nothing else LONGEST))
