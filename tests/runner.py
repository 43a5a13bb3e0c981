"""The test runner behind `tests/run.py`: finds the tests, deals them out to processes and counts.

A process that dies or says nothing for QUIET_LIMIT seconds fails the test it was at; another one goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.runner import ErrorHolder, TestLoader

from tests.worker import flatten

CHECKOUT = Path(__file__).resolve().parent.parent
PIECE = 10
"""Tests of one class that a process is given at a time."""

QUIET_LIMIT = 900.0
"""Seconds after which a test that has not ended counts as hanging."""

Unit = tuple[str, list[str]]
"""A module and the ids of some of its tests."""


class Worker:
    """One process that runs units; where it fails to send the record of a test, one is made up."""

    def __init__(self, directory: Path, coverage: bool) -> None:
        self.directory = directory
        self.coverage = coverage
        self.process: subprocess.Popen[str] | None = None
        self.abandoned = False

    def start(self) -> subprocess.Popen[str]:
        """Start the process, in an empty directory of its own."""
        directory = Path(tempfile.mkdtemp(dir=self.directory, prefix="w"))
        directory.chmod(0o755)
        measure = ["-m", "coverage", "run", "--parallel-mode", f"--data-file={CHECKOUT / '.coverage'}"]
        measure.append(f"--rcfile={CHECKOUT / 'pyproject.toml'}")
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(directory)}
        return subprocess.Popen(
            [
                sys.executable,
                *(measure if self.coverage else []),
                "-m",
                "tests.worker",
                str(directory),
            ],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(self, unit: Unit) -> list[dict[str, str]]:
        """The records of the tests of `unit`, in the order they ran."""
        module, ids = unit
        left = list(ids)
        records: list[dict[str, str]] = []
        while left and not self.abandoned:
            started, failed = left[0], None
            try:
                for record in self.ask(module, left):
                    started = record.get("started", started)
                    if "id" in record:
                        records.append(record)
            except EOFError as error:
                failed = str(error)
            reported = {record["id"] for record in records}
            left = [test_id for test_id in left if test_id not in reported]
            if left:
                lost = started if started in left else left[0]
                records.append({"id": lost, "outcome": "failed", "detail": failed or "did not run"})
                left.remove(lost)
        return records

    def ask(self, module: str, ids: list[str]) -> Any:
        """Send one unit and yield its records; EOFError when the process ended before the last of them."""
        process = self.process = self.process or self.start()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([module, ids]) + "\n")
            process.stdin.flush()
        while True:
            watchdog = threading.Timer(QUIET_LIMIT, process.send_signal, [signal.SIGABRT])
            watchdog.start()
            line = process.stdout.readline()
            watchdog.cancel()
            if not line:
                self.process = None
                raise EOFError(f"the process of this test ended, exit status {process.wait()}")
            record = json.loads(line)
            if "done" in record:
                return
            yield record

    def abandon(self) -> None:
        """End the process at once and start none any more."""
        self.abandoned = True
        if self.process is not None:
            self.process.kill()

    def stop(self) -> None:
        """Let the process end, which writes what it measured, or end it."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Tally:
    """Counts outcomes and prints what is worth reading, from several threads."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.skips: Counter[str] = Counter()

    def add(self, record: dict[str, str]) -> None:
        """Count one test."""
        with self.lock:
            self.count[record["outcome"]] += 1
            if record["outcome"] == "skipped":
                self.skips[record["detail"]] += 1
            if record["outcome"] == "failed":
                print(f"FAILED {record['id']}\n{record['detail']}", flush=True)

    def summary(self) -> str:
        """The last line."""
        return ", ".join(f"{self.count[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def find(names: list[str], tally: Tally) -> list[Unit]:
    """All tests of these names, sorted; a module that cannot be imported counts as failed."""
    loader = TestLoader()
    tests: dict[str, Any] = {}
    for name in names or ["tests"]:
        dotted = name.removesuffix(".py").strip("/").replace("/", ".").removesuffix(".__init__")
        for test in flatten(loader.loadByName(dotted, recurse=True)):
            if isinstance(test, ErrorHolder):
                detail = "".join(traceback.format_exception(*test.error))
                tally.add({"id": test.id(), "outcome": "failed", "detail": detail})
            elif isinstance(test, unittest.TestCase):
                tests[test.id()] = test
    return [(type(test).__module__, [test_id]) for test_id, test in sorted(tests.items())]


def arrange(units: list[Unit], rng: random.Random) -> list[Unit]:
    """Units of up to PIECE tests of one class each, all in random order."""
    classes: dict[tuple[str, str], list[str]] = {}
    for module, ids in units:
        for test_id in ids:
            classes.setdefault((module, test_id.rpartition(".")[0]), []).append(test_id)
    pieces: list[Unit] = []
    for (module, _), ids in classes.items():
        rng.shuffle(ids)
        pieces += [(module, ids[at : at + PIECE]) for at in range(0, len(ids), PIECE)]
    rng.shuffle(pieces)
    return pieces


def work(units: list[Unit], workers: list[Worker], tally: Tally) -> None:
    """Run all units, each on the next worker that is free."""
    waiting: queue.SimpleQueue[Unit] = queue.SimpleQueue()
    for unit in units:
        waiting.put(unit)

    def drain(worker: Worker) -> None:
        with contextlib.suppress(queue.Empty):
            while not worker.abandoned:
                for record in worker.run(waiting.get_nowait()):
                    tally.add(record)
        worker.stop()

    threads = [threading.Thread(target=drain, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        for worker in workers:
            worker.abandon()
        raise


def main() -> int:
    """Run what the command line names; the exit status."""
    parser = argparse.ArgumentParser(description="Run the tests.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="dotted name or file of tests; default: all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--jobs", type=int, default=max(1, min(os.cpu_count() or 1, 8)))
    parser.add_argument("--unit", action="store_true", help="leave out tests.live and the mutants")
    parser.add_argument("--coverage", action="store_true", help="measure coverage of all but tests.live")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    tally = Tally()
    top = Path(tempfile.mkdtemp(prefix="postoffice-tests-"))
    top.chmod(0o755)
    print(f"seed {options.seed}", flush=True)
    try:
        units = arrange(find(options.names, tally), random.Random(options.seed))
        live = [unit for unit in units if unit[0].startswith("tests.live")]
        rest = [unit for unit in units if not unit[0].startswith("tests.live")]
        if options.unit:
            # Mutants tell about the tests, not about this Python; and some of theirs are live ones.
            rest = [unit for unit in rest if unit[0] != "tests.test_mutants"]
        if options.coverage:
            subprocess.run([sys.executable, "-m", "coverage", "erase"], cwd=CHECKOUT, check=True)
        workers = [Worker(top, options.coverage) for _ in range(options.jobs)]
        work(rest, workers, tally)
        if options.coverage:
            subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=CHECKOUT, check=True)
        if not options.unit:
            work(live, [Worker(top, False)], tally)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    for reason, count in sorted(tally.skips.items()):
        print(f"skipped {count}: {reason}")
    print(tally.summary(), flush=True)
    refused = tally.count["failed"] or (tally.count["skipped"] and os.environ.get("CI") == "true")
    return 1 if refused or not tally.count.total() else 0
