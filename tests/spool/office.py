"""A program that uses a spool until it is killed: `python -m tests.spool.office DIRECTORY RUN COUNT`.

Five sessions store COUNT letters; each prints `stored ID` when its commit was acknowledged. Every second
letter is claimed with its commit, and settled as delivered after `settling ID` was printed; `settled ID`
follows. Of these every second one is for two others first (`expanded ID`), and one of them is served alone
(`served ID`). `error NAME ID` says what was refused. The content of a letter follows from its id.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from postoffice.interfaces import NewLetter, SpoolFull
from postoffice.mail.address import Address
from postoffice.mail.destination import Copy
from postoffice.mail.envelope import Claim, Replacement, Settlement
from postoffice.mail.outcome import Delivered
from postoffice.mail.reply import Reply
from postoffice.spool import wal
from postoffice.spool.sqlite import SqliteSpool

ANN, BOB, CAROL = (Address(name, "example.net") for name in ("ann", "bob", "carol"))
DONE = Delivered(Reply(250, (0, 0), "taken"))
SIZES = (700, 20_000, 150_000, 4_000, 400_000)
CUTOFF = 64 * 1024
ROOM = 4 << 20


def content_of(letter_id: str) -> bytes:
    """What a letter of this id contains; the size is one of SIZES."""
    size = SIZES[int(letter_id.rpartition("N")[2]) % len(SIZES)]
    return (hashlib.sha256(letter_id.encode()).digest() * (size // 32 + 1))[:size]


def say(*words: str) -> None:
    """Print a line with one system call."""
    os.write(1, " ".join(words).encode() + b"\n")


async def letter(spool: SqliteSpool, directory: str, letter_id: str, claim: bool) -> None:
    """Store a letter, and deliver it when it is claimed."""
    draft = spool.draft()
    try:
        data = content_of(letter_id)
        for start in range(0, len(data), 60_000):
            room = draft.write(data[start : start + 60_000])
            if room is not None:
                await room
        now = time.time()
        claimed = await draft.commit(NewLetter(None, ((ANN, now),), "7BIT", now, "x", letter_id), claim)
        say("stored", letter_id)
        if claimed is not None:
            taken = claimed[0]
            if int(letter_id.rpartition("N")[2]) % 4 == 0:
                taken = await expanded(spool, taken)
            say("settling", letter_id)
            await spool.settle(taken, [Settlement(taken.recipients[-1].key, DONE)])
            say("settled", letter_id)
    except Exception as error:
        draft.discard()
        say("error", type(error).__name__, letter_id)
        if isinstance(error, SpoolFull):
            await room_again(directory)


async def expanded(spool: SqliteSpool, claim: Claim) -> Claim:
    """Put two others in the place of the recipient, and serve the first of them."""
    (recipient,) = claim.recipients
    copies = tuple((Copy(address, (ANN,)), recipient.due) for address in (BOB, CAROL))
    claim = await spool.expand(claim, [Replacement(recipient.key, copies)], [])
    say("expanded", claim.letter.id)
    await spool.settle(claim, [Settlement(claim.recipients[0].key, DONE)])
    say("served", claim.letter.id)
    return claim


async def room_again(directory: str) -> None:
    """Wait until somebody made room, as clients that come back later do; not for ever."""
    from twisted.internet import reactor

    for _ in range(3000):
        there = os.statvfs(directory)
        if there.f_bavail * there.f_frsize >= ROOM:
            break
        await deferLater(cast(Any, reactor), 0.01)


async def main(reactor: Any, directory: str, run: str, count: str, sessions: str = "5") -> None:
    """Store letters."""
    # Its log has some room, and is copied every few letters.
    wal.LENGTH, wal.KEPT = 100_000, 400_000
    spool = SqliteSpool(directory, reactor, cutoff=CUTOFF, room=300_000)
    await spool.open()
    say("open")
    numbers = iter(range(int(count)))

    async def session() -> None:
        for number in numbers:
            await letter(spool, directory, f"{run}N{number}", number % 2 == 0)

    await gatherResults([Deferred.fromCoroutine(session()) for _ in range(int(sessions))])
    say("done")
    await spool.close()


if __name__ == "__main__":
    react(lambda *arguments: Deferred.fromCoroutine(main(*arguments)), sys.argv[1:])
