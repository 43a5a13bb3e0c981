"""Every dialogue once more, held with a running service by clients that come from other addresses.

One service is every office, one after the other: it is told with SIGHUP to read another configuration. Those
that say `memory` are left out: they would take too long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.dialogues.play import Broken, Line, Play, Stage
from tests.dialogues.script import (
    OWN_ADDRESS,
    Dialogue,
    dialogues,
    furnish,
    logged,
    newest_last,
    serve,
    settings,
)
from tests.live.office import run
from tests.live.raw import Elsewhere
from tests.peers import HOST, Postoffice, free_port, passable, wait_until
from tests.support import program

PATIENCE = 15.0


class NameServer:
    """A thread that answers queries by UDP."""

    def __init__(self, dns: Sequence[str]) -> None:
        self._answer = serve(dns)
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(4096)
            if not query:
                return
            for datagram in self._answer(query):
                self._socket.sendto(datagram, peer)

    def stop(self) -> None:
        """End the thread."""
        with socket.socket(type=socket.SOCK_DGRAM) as end:
            end.sendto(b"", (HOST, self.port))
        self._thread.join(PATIENCE)
        self._socket.close()


class LiveLine(Line):
    """A TCP connection."""

    def __init__(self, ip: str, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=PATIENCE, source_address=(ip, 0))
        self._read = b""

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def heard(self, wait: bool = True) -> str | None:
        self._socket.settimeout(PATIENCE if wait else 0.01)
        while b"\r\n" not in self._read and self._more():
            pass
        line, found, rest = self._read.partition(b"\r\n")
        self._read = rest
        return line.decode("utf-8") if found else None

    def is_closed(self) -> bool:
        self._socket.settimeout(PATIENCE)
        return not self._read and not self._more()

    def hang_up(self) -> None:
        self._socket.close()

    def _more(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except OSError:
            return False
        self._read += data
        return bool(data)


class LiveStage(Stage):
    """A running service, which is told with SIGHUP what office it is to be: `begin` before each dialogue."""

    def __init__(self, every: Sequence[Dialogue], directory: Path) -> None:
        self.directory = directory
        self.names = NameServer([line for dialogue in every for line in dialogue.dns])
        self.ports = {"smtp": free_port(), "msp": free_port()}
        furnish(directory, every[0])
        try:
            self.office = Postoffice(self._lines(every[0]), directory)
        except BaseException:
            self.names.stop()
            raise
        self._now = every[0].office
        self._said = 0

    def _lines(self, dialogue: Dialogue) -> list[str]:
        return [
            f"listen={HOST}:{self.ports['smtp']}",
            f"msp={HOST}:{self.ports['msp']}",
            f"nameserver={HOST}:{self.names.port}",
            *settings(self.directory, dialogue),
            "log=stderr",
        ]

    def begin(self, dialogue: Dialogue) -> None:
        """Be the office of this dialogue, and forget what was delivered and logged. Errors: `Broken`."""
        if dialogue.office != self._now:
            self._now = dialogue.office
            furnish(self.directory, dialogue)
            self.office.config.write_text("\n".join(self._lines(dialogue)))
            said = len(self.office.log())
            os.kill(self.office.pid, signal.SIGHUP)
            if not wait_until(lambda: "configuration read again" in self.office.log()[said:], PATIENCE):
                raise Broken(f"{dialogue.name}: its configuration was not taken: {self.office.log()[said:]}")
        for letter in (self.directory / "mail").rglob("new/*"):
            letter.unlink()
        self._said = len(self.office.log())

    def connect(self, ip: str, door: str) -> Line:
        return LiveLine(ip, self.ports[door])

    def wait(self, seconds: int) -> None:
        time.sleep(seconds)

    def letters(self, user: str, count: int) -> list[bytes]:
        if count:
            wait_until(lambda: len(newest_last(self.directory, user)) >= count, PATIENCE)
        else:
            time.sleep(0.1)
        return newest_last(self.directory, user)

    def logged(self, pattern: str) -> bool:
        return wait_until(lambda: self.told(pattern), PATIENCE)

    def told(self, pattern: str) -> bool:
        return logged(self.log(), pattern)

    def log(self) -> str:
        """What was logged since the dialogue began."""
        return self.office.log()[self._said :]

    def load(self, average: float) -> None:
        raise NotImplementedError("such a dialogue is held in memory only")

    def rewrite(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def operate(self, verb: str, record: str) -> None:
        done = run(self.office, "greylist", verb, record)
        if done.returncode:
            raise Broken(done.stderr.decode())

    def stop(self) -> None:
        """End the service and its name server."""
        self.office.stop()
        self.names.stop()


class Live(SynchronousTestCase):
    """All of them, one after the other."""

    def setUp(self) -> None:
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        words = f"addr add {OWN_ADDRESS}/32 dev lo".split()
        subprocess.run([program("ip"), *words], check=True, capture_output=True)

    def test_every_dialogue(self) -> None:
        every = sorted((one for one in dialogues() if not one.memory), key=lambda one: (one.office, one.name))
        directory = tempfile.TemporaryDirectory(prefix="dialogues-")
        self.addCleanup(directory.cleanup)
        stage = LiveStage(every, passable(Path(directory.name)))
        self.addCleanup(stage.stop)
        broken = []
        for dialogue in every:
            try:
                stage.begin(dialogue)
                Play(dialogue, stage).run()
            except Broken as error:
                broken.append(f"{error}\n{stage.log()}")
        if broken:
            self.fail("\n".join(broken))
