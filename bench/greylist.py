"""A flood of random pairs through the greylist: `python bench/greylist.py [--pairs N]`.

Ten million strangers, each with a sender and an address never seen before, are judged as fast as the store
takes it. Printed for each tenth of them: the time of a judgement in microseconds (half of them, 99 of 100,
999 of 1,000, the longest), pairs a second, and the octets of the database with its log. Ten thousand pairs
that passed before the flood have to pass after it. The exit status is 1 when they do not, or when the last
tenth needs twice the disk of the third.

The time of a judgement is that of the reactor's thread: what a session waits for. A thread writes meanwhile.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

# Started by its path, this folder would stand where the source tree has to.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from postoffice.mail.address import Address  # noqa: E402
from postoffice.mail.client import Client  # noqa: E402
from postoffice.mail.greylist import Bounds  # noqa: E402
from postoffice.policy.greylist import Greylist, GreylistSettings, Pass  # noqa: E402
from postoffice.policy.greylist_store import GreylistStore  # noqa: E402
from tests.queue.support import Journal  # noqa: E402

DELAY = 3600
REGULARS = 10_000
# As many pairs are judged before the store has to have written them.
STEP = 10_000


class Flood:
    """The greylist as the service makes it, in a directory, on a clock that can be put forward."""

    def __init__(self, directory: str, most: int, reactor: Any) -> None:
        self.directory = directory
        self.journal = Journal()
        self.ahead = 0
        self.random = Random(1)
        self.store = GreylistStore(
            os.path.join(directory, "policy.db"), Bounds(most, most // 32, 0), self.journal, reactor
        )
        self.greylist = Greylist(
            self.store, GreylistSettings(DELAY), self.journal, lambda: reactor.seconds() + self.ahead
        )

    async def regulars(self) -> int:
        """Judge those that come all the time; how many pass."""
        passed = 0
        for number in range(REGULARS):
            client = Client(f"10.{number >> 8}.{number & 255}.25", name="mx.example.org")
            verdict = self.greylist.consult(client, Address(f"regular{number}", "example.org"))
            passed += isinstance(verdict, Pass)
        await self.store.flush()
        return passed

    async def strangers(self, count: int) -> tuple[list[int], float]:
        """Judge that many: the nanoseconds each took, sorted, and the seconds of all together."""
        took = []
        begun = time.perf_counter()
        for start in range(0, count, STEP):
            for _ in range(min(STEP, count - start)):
                number = self.random.getrandbits(128)
                ip = f"{number & 255}.{number >> 8 & 255}.{number >> 16 & 255}.{number >> 24 & 255}"
                client, sender = Client(ip), Address(f"{number >> 32:x}", "example.org")
                before = time.perf_counter_ns()
                self.greylist.consult(client, sender)
                took.append(time.perf_counter_ns() - before)
            await self.store.flush()
        return sorted(took), time.perf_counter() - begun

    def size(self) -> int:
        """Octets of the database and what belongs to it."""
        return sum(entry.stat().st_size for entry in os.scandir(self.directory))


async def run(reactor: Any, options: argparse.Namespace, directory: str) -> bool:
    """Flood and print; whether all is well."""
    flood = Flood(directory, options.records, reactor)
    await flood.store.open()
    await flood.regulars()
    flood.ahead = DELAY
    before = await flood.regulars()
    sizes = []
    print("      pairs   half     99%   99.9%  longest (us)   pairs/s   MiB on disk")
    for tenth in range(1, 11):
        took, seconds = await flood.strangers(options.pairs // 10)
        sizes.append(flood.size())
        half, most, nearly, last = (
            took[min(len(took) - 1, int(len(took) * part))] / 1000 for part in (0.5, 0.99, 0.999, 1.0)
        )
        print(
            f"{tenth * options.pairs // 10:>11,} {half:6.1f} {most:7.1f} {nearly:7.1f} {last:8.0f}"
            f" {len(took) / seconds:15,.0f} {sizes[-1] / 2**20:13.1f}",
            flush=True,
        )
    after = await flood.regulars()
    await flood.store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"regulars that pass: {before} before, {after} after; resident at most {peak:.0f} MiB")
    for fact in flood.journal.facts:
        print(*fact)
    return before == after == REGULARS and sizes[-1] < 2 * sizes[2] and not flood.journal.facts


def main() -> None:
    """Exits with 0 when all is well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--records", type=int, default=1_000_000, help="what greylist-max is")
    parser.add_argument("--directory", default="/var/tmp", help="where the database goes")
    options = parser.parse_args()

    async def work(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="postoffice-greylist-", dir=options.directory) as directory:
            if not await run(reactor, options, directory):
                raise SystemExit(1)

    react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    main()
