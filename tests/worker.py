"""A process of the test runner: runs the tests it is told on stdin and reports each as a JSON line.

`tests/runner.py` starts it as `python -m tests.worker DIRECTORY`. It works in that directory, where trial
keeps
its files. What tests print goes to stderr.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from twisted.python import log
from twisted.trial import reporter
from twisted.trial.runner import TestLoader, TrialSuite


class Recorder(reporter.TestResult):
    """Writes one JSON line a test: its id, `passed`, `failed` or `skipped`, and what there is to say.

    A test may report more than one thing (a failure and a delayed call left over): the worst of them is the
    outcome.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.out = out
        self.outcome = "passed"
        self.details: list[str] = []

    def tell(self, **record: object) -> None:
        """Send one record to the parent."""
        self.out.write(json.dumps(record) + "\n")
        self.out.flush()

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.outcome, self.details = "passed", []
        self.tell(started=test.id())

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self.tell(id=test.id(), outcome=self.outcome, detail="\n".join(self.details))

    def fail(self, detail: str) -> None:
        """Note a fault of the running test."""
        self.outcome = "failed"
        self.details.append(detail)

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)
        self.fail(self._getFailure(fail).getTraceback())

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self.fail(self._getFailure(error).getTraceback())

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        if self.outcome == "passed":
            self.outcome = "skipped"
        self.details.append(str(reason))

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        super().addUnexpectedSuccess(test, todo)
        self.fail("expected to fail, and passed")


def flatten(suite: Any) -> list[Any]:
    """The single tests of a suite of suites."""
    try:
        members = list(suite)
    except TypeError:
        return [suite]
    return [test for member in members for test in flatten(member)]


def serve(directory: str) -> None:
    """Run the units that come on stdin, until it ends; records go to what was stdout."""
    units = os.fdopen(os.dup(0), encoding="utf-8")
    records = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    faulthandler.enable()
    os.chdir(directory)
    journal = Path("test.log").open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    log.startLogging(journal, setStdout=False)
    recorder = Recorder(records)
    loaded: dict[str, dict[str, Any]] = {}
    for line in units:
        module, ids = json.loads(line)
        if module not in loaded:
            suite = TestLoader().loadModule(importlib.import_module(module))
            loaded[module] = {test.id(): test for test in flatten(suite)}
        for test_id in ids:
            loaded[module].pop(test_id)(recorder)
        recorder.tell(done=True)
    TrialSuite()(recorder)


if __name__ == "__main__":
    serve(sys.argv[1])
