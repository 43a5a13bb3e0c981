"""The test runner counts what happened, whatever a test does to its process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import CHECKOUT, PACKAGES

GOOD = """
from twisted.trial.unittest import SynchronousTestCase, TestCase
class Good(SynchronousTestCase):
    def test_one(self): pass
    def test_two(self): print("noise")
class Deferred(TestCase):
    def test_later(self):
        from twisted.internet import reactor, task
        return task.deferLater(reactor, 0.001)
"""
SKIPPED = """
from twisted.trial.unittest import SynchronousTestCase
class Skipped(SynchronousTestCase):
    def test_skipped(self): self.skipTest("no such program")
"""
BAD = """
import os
from twisted.trial.unittest import SynchronousTestCase, TestCase
class Bad(SynchronousTestCase):
    def test_wrong(self): self.assertEqual(1, 2)
    def test_error(self): raise ValueError("odd")
    def test_surprise(self): pass
    test_surprise.todo = "known"
class Dirty(TestCase):
    def test_call_left(self):
        from twisted.internet import reactor
        reactor.callLater(1000, print)
class Gone(SynchronousTestCase):
    def test_a(self): pass
    def test_b(self): os._exit(0)
    def test_c(self): pass
"""
SLOW = """
import os, time
from twisted.trial.unittest import SynchronousTestCase
class Slow(SynchronousTestCase):
    def test_slow(self):
        with open(os.environ["PIPE"], "wb", buffering=0) as pipe:
            pipe.write(b"x")
            time.sleep(300)
"""


class Runner(SynchronousTestCase):
    """`tests/run.py` in a checkout of its own, with tests that end in every way there is."""

    def checkout(self, **modules: str) -> Path:
        """A directory with the runner and these modules of tests, and an empty `tmp`."""
        checkout = Path(self.mktemp()).absolute()
        (checkout / "tests").mkdir(parents=True)
        (checkout / "tmp").mkdir()
        os.mkfifo(checkout / "pipe")
        for name in ("run.py", "runner.py", "worker.py"):
            shutil.copy(CHECKOUT / "tests" / name, checkout / "tests" / name)
        # A folder named like a module of the standard library must not hide it.
        (checkout / "tests/queue").mkdir()
        (checkout / "tests/queue/__init__.py").touch()
        (checkout / "tests/__init__.py").touch()
        for name, source in modules.items():
            (checkout / f"tests/{name}.py").write_text(source, encoding="utf-8")
        return checkout

    def run_tests(self, *arguments: str, ci: bool = False, **modules: str) -> tuple[int, list[str]]:
        """Exit status and lines of a run over these modules; nothing may stay in the temporary directory."""
        checkout = self.checkout(**modules)
        scratch = checkout / "tmp"
        environment = os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": "", "CI": "true" if ci else ""}
        process = subprocess.run(
            [sys.executable, "tests/run.py", "--jobs", "2", *arguments],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(list(scratch.iterdir()), [])
        self.assertEqual([path.name for path in checkout.iterdir() if "trial" in path.name], [])
        return process.returncode, process.stdout.splitlines()

    def test_good(self) -> None:
        status, lines = self.run_tests("--seed", "5", test_good=GOOD)
        self.assertEqual((status, lines), (0, ["seed 5", "3 passed, 0 failed, 0 skipped"]))

    def test_skips(self) -> None:
        for ci, expected in [(False, 0), (True, 1)]:
            status, lines = self.run_tests(ci=ci, test_good=GOOD, test_skipped=SKIPPED)
            self.assertEqual(status, expected)
            self.assertEqual(lines[-2:], ["skipped 1: no such program", "3 passed, 0 failed, 1 skipped"])

    def test_every_fault_is_one_failure(self) -> None:
        status, lines = self.run_tests(test_good=GOOD, test_bad=BAD)
        self.assertEqual((status, lines[-1]), (1, "5 passed, 5 failed, 0 skipped"))
        failed = sorted(line.rpartition(".")[2] for line in lines if line.startswith("FAILED"))
        self.assertEqual(failed, ["test_b", "test_call_left", "test_error", "test_surprise", "test_wrong"])

    def test_broken_module(self) -> None:
        status, lines = self.run_tests(test_good=GOOD, test_broken="import no_such_module_anywhere\n")
        self.assertEqual((status, lines[-1]), (1, "3 passed, 1 failed, 0 skipped"))

    def test_names(self) -> None:
        for name in ["tests.test_good.Good", "tests/test_good.py"]:
            status, lines = self.run_tests(name, test_good=GOOD, test_bad=BAD)
            self.assertEqual(status, 0)
            self.assertIn(lines[-1], ["2 passed, 0 failed, 0 skipped", "3 passed, 0 failed, 0 skipped"])

    def test_terminated(self) -> None:
        """The runner ends at once when told to, with its processes, and cleans up."""
        checkout = self.checkout(test_slow=SLOW)
        process = subprocess.Popen(
            [sys.executable, "tests/run.py"],
            cwd=checkout,
            env=os.environ
            | {"TMPDIR": str(checkout / "tmp"), "PYTHONPATH": "", "PIPE": str(checkout / "pipe")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.kill)
        # The test opens the pipe when it runs; we read its end when its process is gone.
        with (checkout / "pipe").open("rb") as pipe:
            self.assertEqual(pipe.read(1), b"x")
            process.terminate()
            self.assertEqual(pipe.read(), b"")
        self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
        self.assertEqual(list((checkout / "tmp").iterdir()), [])

    def test_nothing_to_run(self) -> None:
        status, lines = self.run_tests(test_empty="")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 0 failed, 0 skipped"))


class Packages(SynchronousTestCase):
    """What `.ci/run` installs, and what tests ask for."""

    def test_programs_that_tests_ask_for_are_installed(self) -> None:
        lines = (CHECKOUT / ".ci/packages").read_text(encoding="utf-8").splitlines()
        installed = {line.split()[0] for line in lines if not line.startswith("#")}
        self.assertLessEqual(set(PACKAGES.values()), installed)
