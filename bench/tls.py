"""The part of the benchmark that is about TLS: handshakes a second, and letters a second inside.

Used by `run.py`. Each row is a kind of session, which `tls_source.py` holds ten at a time with ourselves and
with Postfix, each with an ECDSA certificate: full handshakes, handshakes resumed by ticket, one letter of
4 KiB a session either way, and many letters a session. The letters stay in the queue.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import contestants
from tests import peers

SESSIONS = 10
KEPT = 50
"""Letters of a session that is kept."""


@dataclass(frozen=True)
class Kind:
    """What a session does. `counted` is what the rate is of."""

    name: str
    letters: int
    resume: bool

    @property
    def counted(self) -> str:
        return "letters" if self.letters else "sessions"


KINDS = (
    Kind("handshake, full", 0, False),
    Kind("handshake, resumed", 0, True),
    Kind("letter, full", 1, False),
    Kind("letter, resumed", 1, True),
    Kind("letters, kept", KEPT, False),
)
QUICK = (KINDS[0], KINDS[3])


@dataclass(frozen=True)
class Sample:
    """One measurement: how many in how many seconds, CPU seconds of the server's tree, sessions resumed."""

    count: int
    seconds: float
    cpu: float
    sessions: int
    resumed: int

    @property
    def rate(self) -> float:
        """A second."""
        return self.count / self.seconds

    @property
    def cost(self) -> float:
        """CPU milliseconds each."""
        return 1000 * self.cpu / self.count


class Failed(Exception):
    """It could not be measured, and why."""


def send(port: int, kind: Kind, count: int, timeout: float) -> dict[str, Any]:
    """Hold so many sessions; what `tls_source.py` says of them. Errors: `Failed`."""
    words = [sys.executable, str(Path(__file__).with_name("tls_source.py")), str(port)]
    words += [f"--count={count}", f"--sessions={SESSIONS}", f"--letters={kind.letters}"]
    try:
        done = subprocess.run(
            [*words, *(["--resume"] if kind.resume else [])],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed("timed out") from None
    if done.returncode != 0:
        raise Failed(done.stdout.strip() or done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(kind: Kind, name: str, directory: Path, python: str, seconds: float) -> Sample:
    """Start a server, hold sessions for about so many seconds, clear up. Errors: `Failed`."""
    try:
        with contestants.make(name, directory / name, python, None, directory / "keys") as server:
            few = 3 * SESSIONS
            send(server.port, kind, few, 60)
            warm = send(server.port, kind, few, 60)
            count = max(SESSIONS, int(few / warm["seconds"] * seconds))
            before = peers.tree_cpu(server.pid)
            found = send(server.port, kind, count, 60 + 10 * seconds)
            # What is done behind the last answer counts too.
            time.sleep(0.5)
            cpu = peers.tree_cpu(server.pid) - before
            return Sample(found[kind.counted], found["seconds"], cpu, found["sessions"], found["resumed"])
    except peers.PeerError as problem:
        raise Failed(str(problem)) from problem
    finally:
        for part in (name, "keys"):
            shutil.rmtree(directory / part, ignore_errors=True)
        os.sync()


def heading() -> str:
    """The line above the rows."""
    return (
        f"{'over TLS':22}{'a second':^20}{'CPU ms each':^20}{'us/postfix':^16}{'% resumed':^20}\n"
        f"{'':22}{'us':>10}{'postfix':>10}{'us':>10}{'postfix':>10}{'rate':>8}{'CPU':>8}{'us':>10}{'postfix':>10}"
    )


def row(kind: Kind, samples: dict[str, list[Sample]]) -> str:
    """One kind as a line; `-` where there is no figure."""
    rate = {name: statistics.median(run.rate for run in runs) for name, runs in samples.items()}
    cost = {name: statistics.median(run.cost for run in runs) for name, runs in samples.items()}

    def cells(figures: dict[str, float], width: int, digits: int) -> str:
        return "".join(
            f"{figures[name]:>{width},.{digits}f}" if name in figures else f"{'-':>{width}}"
            for name in ("us", "postfix")
        )

    def ratio(figures: dict[str, float]) -> str:
        return f"{figures['us'] / figures['postfix']:>8.2f}" if len(figures) == 2 else f"{'-':>8}"

    again = {
        name: 100 * sum(run.resumed for run in runs) / sum(run.sessions for run in runs)
        for name, runs in samples.items()
    }
    figures = f"{cells(rate, 10, 0)}{cells(cost, 10, 2)}{ratio(rate)}{ratio(cost)}{cells(again, 10, 0)}"
    return f"{kind.name:22}{figures}"


def complete(record: dict[str, Any], rounds: int) -> bool:
    """Has every server all its rounds?"""
    return all(len(runs) == rounds for runs in record["servers"].values())


def whole(
    kinds: Sequence[Kind], names: Sequence[str], rounds: int, directory: Path, python: str, seconds: float
) -> list[dict[str, Any]]:
    """These kinds, their rounds interleaved; prints as it goes. Records for `--json`."""
    records = []
    print(heading(), flush=True)
    for kind in kinds:
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                try:
                    samples[name].append(measure(kind, name, directory, python, seconds))
                except Failed as problem:
                    print(f"{name}, {kind.name}: {problem}", file=sys.stderr)
        print(row(kind, {name: runs for name, runs in samples.items() if runs}), flush=True)
        records.append(
            asdict(kind)
            | {"servers": {name: [asdict(run) for run in runs] for name, runs in samples.items()}}
        )
    return records
