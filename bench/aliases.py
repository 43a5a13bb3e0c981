"""Large alias files: `python bench/aliases.py [--aliases N] [--domains N]`.

A million aliases are read as the service reads them, then read again because the file changed, while the
reactor ticks and looks names up; ten thousand virtual domains have an alias file each. Printed: the seconds
a reading takes, the longest stall of the reactor meanwhile in milliseconds (without what other programs had
the processor for), the time of a look-up in microseconds, and the memory of the process. The exit status is
1 when a stall was longer than 50 ms or a look-up took more than 20 microseconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

# Started by its path, this folder would stand where the source tree has to.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from postoffice.directory.domains import OurDomain  # noqa: E402
from postoffice.directory.sources import SystemAliases, VirtualAliases  # noqa: E402
from postoffice.services.stall import StallMeter, thread_waited  # noqa: E402
from postoffice.watched import Watch  # noqa: E402

STALL = 0.05
LOOKUP = 20e-6
LOOKUPS = 20_000
HERE = OurDomain("mx.example.org", virtual=False)


def lines(count: int, seed: int) -> Iterator[str]:
    """That many aliases, a tenth of them with several targets."""
    for number in range(count):
        more = f", other{number}@example.net, local{number % 100}" if number % 10 == 0 else ""
        yield f"name{number}: user{number}.{seed}@example.com{more}\n"


def write(path: str, count: int, seed: int) -> None:
    """A new alias file in the place of the one before."""
    with open(f"{path}.new", "w") as file:
        file.writelines(lines(count, seed))
    os.replace(f"{path}.new", path)


class Measured:
    """The longest stall of the reactor while something goes on."""

    def __init__(self, reactor: Any) -> None:
        self._meter = StallMeter(reactor, lambda seconds, work: None, thread_waited, time.thread_time)

    def __enter__(self) -> Measured:
        self._began = time.monotonic()
        self._meter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.stop()
        self.seconds = time.monotonic() - self._began
        self.stall = self._meter.longest


async def found(aliases: SystemAliases, number: int) -> str:
    """Where the first target of an alias is."""
    listed = await aliases.find(f"name{number}", HERE)
    assert listed is not None
    return str(listed.targets[0])


async def lookups(aliases: SystemAliases, count: int) -> float:
    """Seconds that a look-up takes: the best of some rounds, since others use the machine too."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for number in range(0, count, max(1, count // LOOKUPS)):
            await aliases.find(f"name{number}", HERE)
        rounds.append((time.perf_counter() - began) / min(count, LOOKUPS))
    return min(rounds)


async def run(reactor: Any, count: int, domains: int) -> None:
    """Everything once; exits with the status."""
    bad = False

    def tell(what: str, measured: Measured) -> None:
        nonlocal bad
        bad = bad or measured.stall > STALL
        print(f"{what}: {measured.seconds:.2f} s, longest stall {measured.stall * 1000:.1f} ms", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "aliases")
        write(path, count, 1)
        watch = Watch(reactor.seconds, print, deferToThread)
        aliases = SystemAliases(path, watch)
        with Measured(reactor) as measured:
            assert await found(aliases, count - 1) == f"user{count - 1}.1@example.com"
        tell(f"{count} aliases read", measured)
        write(path, count, 2)
        with Measured(reactor) as measured:
            while await found(aliases, 1) != "user1.2@example.com":
                await deferLater(reactor, 0.001)
            # What was read before is let go of.
            await deferLater(reactor, 2)
        tell("read again, looked up meanwhile", measured)
        each = await lookups(aliases, count)
        bad = bad or each > LOOKUP
        print(f"a look-up: {each * 1e6:.1f} us")
        many = VirtualAliases(directory, watch)
        for number in range(domains):
            os.mkdir(os.path.join(directory, f"d{number}.example"))
            Path(directory, f"d{number}.example", "aliases").write_text("info: someone, other@example.net\n")
        began = time.perf_counter()
        for number in range(domains):
            assert await many.find("info", OurDomain(f"d{number}.example", virtual=True)) is not None
        each = (time.perf_counter() - began) / max(1, domains)
        print(f"{domains} virtual domains: {each * 1e6:.1f} us for the first look-up in each")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"most memory used: {peak} MiB")
    if bad:
        raise SystemExit("a stall or a look-up took too long")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--aliases", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=10_000)
    given = parser.parse_args()
    work = partial(run, count=given.aliases, domains=given.domains)
    react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    main()
