"""What was acknowledged is there whole after SIGKILL at any moment, and what the disk refused is not.

Security checklist E1.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.trial.unittest import TestCase

from postoffice.interfaces import IContent
from postoffice.spool.sqlite import SqliteSpool
from tests.contracts import read, waiting
from tests.spool.office import content_of
from tests.support import program

reactor: Any = any_reactor
PROGRAM = [sys.executable, "-m", "tests.spool.office"]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def words(output: bytes, first: str) -> set[str]:
    """The ids of all whole lines that begin with a word."""
    lines = [line.split() for line in output.decode().splitlines(keepends=True) if line.endswith("\n")]
    return {line[-1] for line in lines if line[0] == first}


class Office(TestCase):
    """Runs of the program, and what they must have left."""

    timeout = 240

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.stored: set[str] = set()
        self.unsure: set[str] = set()
        self.settled: set[str] = set()
        self.refused: set[str] = set()
        self.expanded: set[str] = set()
        self.served: set[str] = set()
        self.runs = 0

    def arguments(self, count: int, sessions: int = 5) -> list[str]:
        self.runs += 1
        return [*PROGRAM, str(self.directory), f"R{self.runs}", str(count), str(sessions)]

    def note(self, output: bytes) -> None:
        self.stored |= words(output, "stored")
        self.unsure |= words(output, "settling")
        self.settled |= words(output, "settled")
        # What came in before and could not be recorded since is no refused letter.
        self.refused |= words(output, "error") - self.stored
        self.expanded |= words(output, "expanded")
        self.served |= words(output, "served")

    async def check(self) -> None:
        """Everything acknowledged and not delivered is there whole; nothing is there in part."""
        spool = SqliteSpool(str(self.directory), reactor)
        await spool.open()
        try:
            entries = await spool.entries()
            present = {entry.letter.id for entry in entries}
            for entry in entries:
                # Replaced by all who stand for it, or not at all; who was served is not served again.
                left = [recipient.address.local for recipient in entry.recipients]
                self.assertIn(left, (["ann"], ["bob", "carol"], ["carol"]))
                if entry.letter.id in self.expanded:
                    self.assertNotEqual(left, ["ann"])
                if entry.letter.id in self.served:
                    self.assertEqual(left, ["carol"])
            self.assertEqual(self.stored - self.unsure - present, set())
            self.assertEqual(self.settled & present, set())
            self.assertEqual(self.refused & present, set())
            claimed: dict[str, IContent] = {}
            while claims := await spool.claim(500):
                claimed |= {claim.letter.id: content for claim, content in claims}
            self.assertEqual(set(claimed), present)
            files = 0
            for letter_id, content in claimed.items():
                self.assertEqual(await read(content), content_of(letter_id))
                files += content.held is None
            self.assertEqual(len(os.listdir(self.directory / "content")), files)
        finally:
            await spool.close()


class Killed(Office):
    """SIGKILL."""

    @waiting
    async def test_at_random_moments(self) -> None:
        chance = random.Random(self.id())
        for _ in range(12):
            process = subprocess.Popen(self.arguments(10**9), stdout=subprocess.PIPE, env=ENVIRONMENT)
            assert process.stdout is not None
            output = b""
            for _ in range(chance.randrange(1, 150)):
                output += process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            output += process.stdout.read()
            process.stdout.close()
            process.wait()
            self.note(output)
            await self.check()
        self.assertTrue(self.stored - self.unsure)
        self.assertTrue(self.settled)
        self.assertTrue(self.served)

    @waiting
    async def test_at_each_system_call_that_changes_the_disk(self) -> None:
        strace = program("strace")
        kept = self.mktemp()
        finished = 0
        for call in ("fsync", "fdatasync", "unlink", "pwrite64", "write"):
            for number in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377):
                shutil.rmtree(self.directory, ignore_errors=True)
                self.setUp()
                inject = f"inject={call}:signal=KILL:when={number}"
                command = [strace, "-f", "-qq", "-o", kept, "-e", f"trace={call}", "-e", inject]
                process = subprocess.run(
                    [*command, *self.arguments(6, 3)], stdout=subprocess.PIPE, env=ENVIRONMENT, check=False
                )
                self.note(process.stdout)
                await self.check()
                if b"done" in process.stdout:
                    finished += 1
                    break
        self.assertEqual(finished, 5)
