"""Queue ids, claim tokens and file names: random, so that none can be guessed or met twice.

A queue id has ten of 31 letters and digits (no 0, 1, I, L, O, which are misread), 49 bits: with a
million letters in the queue the chance that a new one meets an old one is one in a thousand
million, and the spool refuses it then. Security checklist D6.
"""

from __future__ import annotations

import random as _random
from typing import Final, Protocol

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
_COUNT: Final = len(_PAIRS)


class Random(Protocol):
    """What is needed of `random.Random`."""

    def getrandbits(self, bits: int, /) -> int:
        """A whole number of at most this many random bits."""


SYSTEM: Final[Random] = _random.SystemRandom()


def queue_id(random: Random) -> str:
    """A fresh queue id."""
    number = random.getrandbits(96)
    text = ""
    for _ in range(5):
        number, pair = divmod(number, _COUNT)
        text += _PAIRS[pair]
    return text


def token(random: Random) -> int:
    """A number that tells one claim from all others; fits SQLite's integers."""
    return random.getrandbits(62)


def file_name(node: str, random: Random) -> str:
    """The name of a content file of a node; files of one node can be told from those of another."""
    return f"{node}.{random.getrandbits(96):024x}"
