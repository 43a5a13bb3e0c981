"""Side by side: a bare Twisted protocol, Postoffice and Postfix, under the same load on the same disk.

`make bench`, or `python bench/run.py --help`. README.md in this folder says how to read what it prints.
Everything it starts ends with it, also on Ctrl-C; every single wait is bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import sys
import time
import unittest
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

# Started by its path, this folder would stand where the source tree has to.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import contestants, disk, table, tls  # noqa: E402
from tests import peers  # noqa: E402

MIB = 1 << 20
CELL_BYTES = 384 * MIB
"""Most bytes of letters one cell may leave in a spool."""
CELL_TIMEOUT = 60.0
RECIPIENT = "rcpt@sink.localhost"
"""A domain that is known not to be ours without the DNS, as one is whose answers are in memory."""
MODES = ["accept", "relay", "filter"]


@dataclass(frozen=True)
class Cell:
    """One load: letters of `size` bytes, `sessions` at once, one letter a session unless `persistent`.

    `mode` is what becomes of them: `accept` and `filter`, behind two filters, leave them in the queue.
    """

    mode: str
    size: int
    sessions: int
    persistent: bool


@dataclass(frozen=True)
class Sample:
    """One measurement of one server: letters, wall-clock seconds, CPU seconds of its process tree.

    `stall` is the longest stall of the reactor in ms, where the server logs it when it ends.
    """

    letters: int
    seconds: float
    cpu: float
    stall: float | None = None

    @property
    def rate(self) -> float:
        """Letters a second."""
        return self.letters / self.seconds

    @property
    def cost(self) -> float:
        """CPU milliseconds a letter."""
        return 1000 * self.cpu / self.letters


_STALL = re.compile(r"longest stall of the reactor ([0-9.]+) ms")


class CellError(Exception):
    """A cell that could not be measured, and why."""


class Load:
    """One server under one load, with the sink behind it when letters go all the way."""

    def __init__(self, cell: Cell, server: peers.Peer, sink: peers.SmtpSink | None) -> None:
        self._cell = cell
        self._server = server
        self._sink = sink

    def send(self, letters: int) -> float:
        """Send letters; seconds until the last was accepted, or came out at the sink. Raises `CellError`."""
        before = 0 if self._sink is None else self._sink.count()
        began = time.monotonic()
        run = peers.smtp_source(
            self._server.port,
            sessions=self._cell.sessions,
            messages=letters,
            length=self._cell.size,
            persistent=self._cell.persistent,
            recipient=RECIPIENT,
            timeout=CELL_TIMEOUT,
        )
        if run.status != 0:
            raise CellError(f"smtp-source: {run.stderr.strip() or 'timed out'}")
        if self._sink is None:
            return run.seconds
        if not self._sink.wait(before + letters, CELL_TIMEOUT):
            raise CellError(f"{self._sink.count() - before} of {letters} letters came out")
        return time.monotonic() - began

    def measure(self, seconds: float) -> Sample:
        """Warm up, choose a number of letters that takes about `seconds`, send them."""
        most = CELL_BYTES // self._cell.size
        few = min(most // 4, 10 + 5 * self._cell.sessions)
        self.send(few)
        rate = few / self.send(few)
        letters = max(self._cell.sessions, min(int(rate * seconds), most - 2 * few))
        self.settle()
        before = peers.tree_cpu(self._server.pid)
        took = self.send(letters)
        self.settle()
        return Sample(letters, took, peers.tree_cpu(self._server.pid) - before)

    def settle(self) -> None:
        """Wait until the server is done with what it does behind the answers, at most 3 seconds."""
        last = peers.tree_cpu(self._server.pid)
        for _ in range(15):
            time.sleep(0.2)
            now = peers.tree_cpu(self._server.pid)
            if now - last < 0.01:
                return
            last = now


def measure(cell: Cell, name: str, directory: Path, python: str, seconds: float) -> Sample:
    """Start a server (and a sink) on an empty disk, measure one cell, clear up."""
    try:
        with contextlib.ExitStack() as stack:
            sink = None
            if cell.mode == "relay":
                sink = stack.enter_context(peers.SmtpSink(directory / "sink"))
            filters = [
                stack.enter_context(contestants.Idle(directory / f"filter{number}", python))
                for number in range(2 if cell.mode == "filter" else 0)
            ]
            server: peers.Peer
            if sink is not None and name == "bare":
                # It relays nothing; what client and sink manage with nobody between them is the ceiling.
                server = sink
            else:
                port = None if sink is None else sink.port
                server = contestants.make(name, directory / name, python, port, filters=filters)
                stack.enter_context(server)
            sample = Load(cell, server, sink).measure(seconds)
        # It is stopped now, and its directory still there.
        stall = _STALL.search(server.log()) if name == "us" else None
        return replace(sample, stall=float(stall[1]) if stall else None)
    except peers.PeerError as problem:
        raise CellError(str(problem)) from problem
    finally:
        for part in (name, "sink", "filter0", "filter1"):
            shutil.rmtree(directory / part, ignore_errors=True)
        # The next one must not pay for what this one left unwritten.
        os.sync()


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """The cells asked for, in the order of the table."""
    for mode in options.modes:
        # What filters cost is a matter of letters, not of their size.
        for size in options.sizes[:1] if mode == "filter" else options.sizes:
            for sessions in options.sessions:
                yield Cell(mode, size, sessions, persistent=False)
            if options.persistent:
                yield Cell(mode, size, options.persistent, persistent=True)


def whole(options: argparse.Namespace, directory: Path) -> list[dict[str, object]]:
    """All cells, their rounds interleaved: A B C A B C, so that a change of the machine hits all alike."""
    records: list[dict[str, object]] = []
    stalls: dict[str, float] = {}
    for cell in cells(options):
        samples: dict[str, list[Sample]] = {}
        for _ in range(options.rounds):
            for name in options.only:
                # The bare protocol asks nobody.
                if name == "bare" and cell.mode == "filter":
                    continue
                try:
                    sample = measure(cell, name, directory, options.python, options.seconds)
                    samples.setdefault(name, []).append(sample)
                    if sample.stall is not None:
                        stalls[cell.mode] = max(sample.stall, stalls.get(cell.mode, 0.0))
                except CellError as problem:
                    print(f"{name}, {cell}: {problem}", file=sys.stderr)
        record = asdict(cell) | {"servers": {name: table.summary(runs) for name, runs in samples.items()}}
        records.append(record)
        print(table.row(record), flush=True)
    for mode, stall in stalls.items():
        print(f"longest stall of our reactor, {mode}: {stall:.0f} ms", flush=True)
    return records


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 65536, MIB], help="bytes of a letter")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50], help="sessions at once")
    parser.add_argument("--persistent", type=int, default=10, help="sessions that send many letters; 0: none")
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES)
    parser.add_argument("--only", default=",".join(contestants.NAMES), help="servers, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long one measurement takes")
    parser.add_argument("--no-tls", action="store_true", help="without the rows about TLS")
    parser.add_argument("--quick", action="store_true", help="4 KiB, 10 sessions, one round of a second")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the spools go")
    parser.add_argument(
        "--image", type=int, default=2048, metavar="MIB", help="size of the image, if one is made"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of bare and us")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.sessions, options.persistent = [4096], [10], 0
        options.rounds, options.seconds = 1, 1.0
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(contestants.NAMES):
        parser.error(f"no such server: {', '.join(unknown)}; there are {', '.join(contestants.NAMES)}")
    if min(options.rounds, *options.sizes, *options.sessions) < 1 or options.persistent < 0:
        parser.error("rounds, sizes and sessions are at least 1")
    return options


def main() -> int:
    """Measure and print. Returns the exit status: 1 when a figure is missing, 130 on Ctrl-C."""
    options = arguments()
    signal.signal(signal.SIGTERM, _interrupted)
    python = peers.interpreter(options.python, peers.service_user())[0]
    try:
        with disk.journalled(options.directory, options.image) as directory:
            load = os.getloadavg()[0]
            print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {load:.1f}, {python}")
            print(table.heading(), flush=True)
            records = whole(options, directory)
            encrypted = secured(options, directory)
    except (disk.DiskError, unittest.SkipTest, AssertionError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if options.json:
        options.json.write_text(json.dumps([*records, *encrypted], indent=1) + "\n")
    complete = all(table.complete(record, options.only, options.rounds) for record in records)
    return 0 if complete and all(tls.complete(record, options.rounds) for record in encrypted) else 1


def secured(options: argparse.Namespace, directory: Path) -> list[dict[str, object]]:
    """The rows about TLS, in which the bare protocol takes no part."""
    names = [name for name in options.only if name != "bare"]
    if options.no_tls or not names:
        return []
    kinds = tls.QUICK if options.quick else tls.KINDS
    return tls.whole(kinds, names, options.rounds, directory, options.python, options.seconds)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
