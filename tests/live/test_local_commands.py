"""The real commands against the real socket: a whole round, strangers' garbage, many at once."""

from __future__ import annotations

import os
import random
import socket
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from postoffice import wire
from postoffice.mail.address import Address
from postoffice.server.local import LocalFactory
from postoffice.server.local_port import LocalPort, caller_of
from postoffice.server.office import LocalSettings
from tests.server.test_local import Journal, Office, Submission
from tests.support import CHECKOUT


class Many(Office):
    """An office that begins a new submission each time."""

    def __init__(self) -> None:
        super().__init__()
        self.submissions: list[Submission] = []

    async def begin(self, *arguments: Any) -> Any:
        self.submission = Submission()
        self.submissions.append(self.submission)
        return await super().begin(*arguments)


class Commands(TestCase):
    timeout = 120

    def setUp(self) -> None:
        # Longer than the kernel takes in one piece.
        folder = os.path.join(os.path.abspath(self.mktemp()), "d" * 60, "d" * 60)
        os.makedirs(folder)
        self.path = os.path.join(folder, "control")
        self.file = os.path.join(folder, "x.cf")
        with open(self.file, "w") as file:
            file.write(f'control="{self.path}"\n')
        self.office, self.journal = Many(), Journal()
        settings = LocalSettings("mx.example", os.geteuid(), None, True, 10, 60.0)
        self.factory = LocalFactory(
            self.office, lambda uid: f"user{uid}", caller_of, self.journal, settings, reactor
        )
        port = LocalPort(self.path, self.factory, reactor)
        port.listen()
        self.addCleanup(self.factory.drain)
        self.addCleanup(port.stop)

    async def run_command(self, name: str, *arguments: str, given: str = "") -> tuple[str, str, int]:
        words = ["-m", f"postoffice.commands.{name}", "-C", self.file, *arguments]
        environment = dict(os.environ) | {"PYTHONPATH": str(CHECKOUT)}
        out, err, code = await getProcessOutputAndValue(
            sys.executable, words, environment, stdinBytes=given.encode()
        )
        return out.decode(), err.decode(), code

    async def test_a_round(self) -> None:
        out, err, code = await self.run_command(
            "postoffice", "-v", "carol@example.net", given="Subject: x\n\nhi\n"
        )
        self.assertEqual((out, err, code), ("Q7\n", "", 0))
        self.assertEqual(self.office.submission.content, b"Subject: x\r\n\r\nhi\r\n")
        self.assertEqual(self.office.begun[0][:2], (f"user{os.getuid()}", Address(f"user{os.getuid()}", "")))
        out, err, code = await self.run_command("mailq")
        self.assertEqual((out.count("\n"), err, code), (9, "", 0))
        self.assertEqual(await self.run_command("postoffice", "-bq"), ("", "", 0))
        self.assertEqual(self.office.letters.ran, [None])

    async def test_D5_garbage_ends_its_own_connection_only(self) -> None:
        octets = random.Random(5)
        strangers = []
        for _ in range(50):
            stranger = wire.connect(self.path)
            self.addCleanup(stranger.close)
            stranger.setblocking(False)
            stranger.send(octets.randbytes(octets.randrange(4, 2000)))
            strangers.append(stranger)
        ran = await gatherResults(
            [self.started("postoffice", "carol@example.net", given=f"letter {n}\n") for n in range(10)]
        )
        self.assertEqual(ran, [("", "", 0)] * 10)
        letters = sorted(one.content for one in self.office.submissions)
        self.assertEqual(letters, sorted(b"letter %d\r\n" % n for n in range(10)))
        for stranger in strangers:
            # Each was told so, or is still being listened to.
            try:
                (answer,) = wire.Decoder().feed(stranger.recv(1000))
            except BlockingIOError:
                continue
            self.assertEqual(answer["exit"], os.EX_PROTOCOL)  # type: ignore[index]
        self.assertEqual(self.journal.lines, [])

    def started(self, *arguments: str, **given: str) -> Any:
        return Deferred.fromCoroutine(self.run_command(*arguments, **given))

    async def test_descriptors_sent_along_are_closed(self) -> None:
        await self.started("mailq")
        before = len(os.listdir("/proc/self/fd"))
        with wire.connect(self.path) as stranger, open(os.devnull) as file:
            socket.send_fds(stranger, [b"\xff" * 4], [file.fileno()] * 10)
            stranger.shutdown(socket.SHUT_WR)
            await self.started("mailq")
        await self.started("mailq")
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
