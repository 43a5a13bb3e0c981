"""Every dialogue, held with the whole service in memory: all but network, spool and clock are real."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from postoffice.assembly.parts import World
from postoffice.config.settings import Settings
from postoffice.service import make_office
from postoffice.services.privileges import Account
from postoffice.spool.memory import MemorySpool
from tests.dialogues.play import Line, Play, Stage
from tests.dialogues.script import (
    ACCOUNT,
    OWN_ADDRESS,
    Dialogue,
    dialogues,
    furnish,
    logged,
    newest_last,
    serve,
    settings,
)
from tests.doubles import MemoryGreylist
from tests.services.dns.network import Network

NAME_SERVER = ("127.0.0.53", 53)


class MemoryLine(Line):
    """A connection to a factory of the office, over a transport that keeps what is written."""

    def __init__(self, stage: MemoryStage, ip: str, door: str) -> None:
        self.stage = stage
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", ip, 40000))
        protocol: Any = stage.office.doors.entrances[door].buildProtocol(self.transport.getPeer())
        # Who reads may change, as with real transports.
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self.lost = False
        stage.settle()

    def send(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)
        self.stage.settle()

    def heard(self, wait: bool = True) -> str | None:
        line, found, rest = self.transport.value().partition(b"\r\n")
        self.transport.clear()
        self.transport.write(rest)
        return line.decode("utf-8") if found else None

    def is_closed(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def hang_up(self) -> None:
        if not self.lost:
            self.lost = True
            self.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.stage.settle()


class MemoryStage(Stage):
    """The assembled service on a clock that is moved by hand."""

    def __init__(self, dialogue: Dialogue, directory: Path) -> None:
        furnish(directory, dialogue)
        self.directory = directory
        self.average = 0.0
        self.network = Network()
        self.network.advance(1_800_000_000)
        self.network.servers[NAME_SERVER] = serve(dialogue.dns)
        lines = [*settings(directory, dialogue), "nameserver=127.0.0.53", f"log={directory}/log"]
        # Nothing is listened on, but the office is to know that there is a door.
        text = "\n".join(["listen=127.0.0.1:25", "msp=127.0.0.1:587", *lines])
        me = Account(ACCOUNT, os.getuid() or 65534, os.getgid(), str(directory))
        world = World(
            spool=lambda path, clock: MemorySpool(clock),
            greylist=lambda path, bounds, journal, clock: MemoryGreylist(clock.seconds, bounds),
            in_thread=lambda reactor, pool, work, *args, **words: maybeDeferred(work, *args, **words),
            addresses=lambda now: lambda: frozenset({"127.0.0.1", "::1", OWN_ADDRESS}),
            load=lambda: (self.average, 0.0, 0.0),
            # There is no helper that could act as others.
            uid=lambda: me.uid,
        )
        self.office = make_office(
            Settings.from_text(text, f"{dialogue.name}.cf"), me, self.network, foreground=True, world=world
        )
        self.office.parts.journal.open()
        self.office.parts.spool.open()
        self.office.parts.greylist.open()

    def connect(self, ip: str, door: str) -> Line:
        return MemoryLine(self, ip, door)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.network.advance(1)
        self.settle()

    def settle(self) -> None:
        """Let everything that needs no time happen."""
        for _ in range(5):
            self.network.advance(0)

    def letters(self, user: str, count: int) -> list[bytes]:
        self.settle()
        return newest_last(self.directory, user)

    def logged(self, pattern: str) -> bool:
        return logged((self.directory / "log").read_text("utf-8"), pattern)

    def told(self, pattern: str) -> bool:
        return self.logged(pattern)

    def load(self, average: float) -> None:
        self.average = average

    def rewrite(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def operate(self, verb: str, record: str) -> None:
        greylist = self.office.doors.local_factory.office.greylist
        {"approve": greylist.approve, "forbid": greylist.forbid}[verb](record)

    def end(self) -> list[object]:
        """Stop as the service does; what is left to do afterwards."""
        parts = self.office.parts
        for stopping in (parts.doorkeeper.stop(1.0), parts.scheduler.stop(1.0)):
            Deferred.fromCoroutine(stopping)
        self.network.advance(20)
        parts.resolver.close()
        parts.journal.stop()
        self.settle()
        return [call for call in self.network.getDelayedCalls() if call.active()]


class InMemory(SynchronousTestCase):
    """One test for each dialogue."""

    def hold(self, dialogue: Dialogue) -> None:
        with tempfile.TemporaryDirectory(prefix="dialogue-") as directory:
            stage = MemoryStage(dialogue, Path(directory))
            Play(dialogue, stage).run()
            self.assertEqual(stage.end(), [])


def method(dialogue: Dialogue) -> Callable[[InMemory], None]:
    """The test of one dialogue."""

    def test(self: InMemory) -> None:
        self.hold(dialogue)

    test.__doc__ = dialogue.title
    return test


for one in dialogues():
    setattr(InMemory, f"test_{one.identifier}", method(one))
