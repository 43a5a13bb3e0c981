"""Measure the spool alone: `python bench/spool.py DIRECTORY [letters | contents | memory]`.

DIRECTORY should lie on a journalled file system. `letters` commits letters with a claim and settles
them as delivered; `contents` does so with large ones, once as rows and once as files; `memory` takes
one letter of 50 MiB in and out. CPU is that of the whole process, all threads.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from postoffice.interfaces import NewLetter
from postoffice.mail.address import Address
from postoffice.mail.envelope import Settlement
from postoffice.mail.outcome import Delivered
from postoffice.mail.reply import Reply
from postoffice.spool.sqlite import SqliteSpool
from postoffice.spool.wal import ROOM

reactor: Any = any_reactor
SENDER = Address("sender", "example.org")
RECIPIENT = Address("recipient", "example.net")
PIECE = os.urandom(65536)
DONE = Delivered(Reply(250, (0, 0), "taken"), "mx.example.net")


def cpu() -> float:
    """Seconds of processor time so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> int:
    """Octets resident now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def come(spool: SqliteSpool, size: int, settle: bool, read: bool = False) -> None:
    """One letter comes, and goes."""
    draft = spool.draft()
    left = size
    while left > 0:
        waiting = draft.write(PIECE[:left])
        left -= len(PIECE)
        if waiting is not None:
            await waiting
    now = time.time()
    new = NewLetter(SENDER, ((RECIPIENT, now),), "7BIT", now, "bench [127.0.0.1]")
    claimed = await draft.commit(new, settle)
    if settle:
        assert claimed is not None
        claim, content = claimed
        if read:
            async for _ in content.pieces():
                pass
        await spool.settle(claim, [Settlement(claim.recipients[0].key, DONE)])


async def measured(
    directory: str,
    what: str,
    sessions: int,
    count: int,
    one: Callable[[SqliteSpool], Awaitable[None]],
    cutoff: int,
) -> None:
    """Let sessions do `one` until `count` were done, and print the figures."""
    shutil.rmtree(directory, ignore_errors=True)
    spool = SqliteSpool(directory, reactor, cutoff=cutoff, room=ROOM)
    await spool.open()
    left = count

    async def session() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one(spool)

    start, used = time.monotonic(), cpu()
    await gatherResults([Deferred.fromCoroutine(session()) for _ in range(sessions)])
    seconds, used = time.monotonic() - start, cpu() - used
    print(
        f"{what} {sessions:3} at once: {count / seconds:8.0f}/s {used / count * 1e6:9.0f} us CPU each,"
        f" {resident() / 2**20:4.0f} MiB resident",
        flush=True,
    )
    await spool.close()
    shutil.rmtree(directory)


async def main(_: object, directory: str, what: str = "letters") -> None:
    """Do what was asked."""
    directory = os.path.join(directory, "bench-spool")
    if what == "letters":
        for settle in (False, True):
            for sessions in (1, 10, 50):
                label = f"4 KiB {'in and out' if settle else 'in'}"
                count = 2000 * min(sessions, 10)
                await measured(
                    directory, label, sessions, count, partial(come, size=4096, settle=settle), 1 << 17
                )
    elif what == "contents":
        for size, count in (
            (1 << 14, 5000),
            (1 << 16, 2000),
            (1 << 17, 1000),
            (1 << 20, 500),
            (20 << 20, 40),
        ):
            for sessions in (1, 10, 50):
                for form, cutoff in (("rows", 1 << 62), ("files", 0)):
                    label = f"{size >> 10:6} KiB as {form:5}"
                    number = max(count // 5, 5) if sessions == 1 else max(count, sessions)
                    await measured(
                        directory, label, sessions, number, partial(come, size=size, settle=True), cutoff
                    )
    else:
        shutil.rmtree(directory, ignore_errors=True)
        spool = SqliteSpool(directory, reactor, room=ROOM)
        await spool.open()
        for _ in range(20):
            await come(spool, 4096, True)
        before = resident()
        for _ in range(5):
            await come(spool, 50 << 20, True, read=True)
        high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"50 MiB in and out: {(high - before) / 2**20:.1f} MiB more resident at most")
        await spool.close()


if __name__ == "__main__":
    react(lambda *arguments: Deferred.fromCoroutine(main(*arguments)), sys.argv[1:])
