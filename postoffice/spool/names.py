"""Queue ids, claim tokens and file names: random, so that none can be guessed or met twice.

A queue id has ten of 31 letters and digits (no 0, 1, I, L, O, which are misread), 49 bits: with a
million letters in the queue the chance that a new one meets an old one is one in a thousand
million, and the spool refuses it then. Security checklist D6.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
_COUNT: Final = len(_PAIRS)
_PIECE: Final = 12


class Random(Protocol):
    """What is needed of `random.Random`, for at most 96 bits."""

    def getrandbits(self, bits: int, /) -> int:
        """A whole number of at most this many random bits."""


class _Reserve:
    """Random bits of the operating system, fetched for many names at once; used from several threads.

    Each call of the system lets go of the interpreter lock.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def getrandbits(self, bits: int, /) -> int:
        try:
            piece = self._pieces.pop()
        except IndexError:
            fresh = os.urandom(_PIECE * 256)
            self._pieces += [fresh[at : at + _PIECE] for at in range(_PIECE, len(fresh), _PIECE)]
            piece = fresh[:_PIECE]
        return int.from_bytes(piece, "big") >> (8 * _PIECE - bits)


SYSTEM: Final[Random] = _Reserve()


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
