"""Every dialogue once more, held with a running service by clients that come from other addresses.

Dialogues with the same office share one. Those that say `memory` are left out: they would take too long.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.dialogues.script import (
    OWN_ADDRESS,
    Broken,
    Dialogue,
    Line,
    Play,
    Stage,
    by_office,
    dialogues,
    furnish,
    logged,
    newest_last,
    serve,
    settings,
)
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
    """A running service; `begin` before each dialogue."""

    def __init__(self, group: Sequence[Dialogue], directory: Path) -> None:
        furnish(directory, group[0])
        self.directory = directory
        self.names = NameServer([line for dialogue in group for line in dialogue.dns])
        self.ports = {"smtp": free_port(), "msp": free_port()}
        lines = [
            f"listen={HOST}:{self.ports['smtp']}",
            f"msp={HOST}:{self.ports['msp']}",
            f"nameserver={HOST}:{self.names.port}",
            *settings(directory, group[0]),
            "log=stderr",
        ]
        try:
            self.office = Postoffice(lines, directory)
        except BaseException:
            self.names.stop()
            raise
        self._said = 0

    def begin(self) -> None:
        """Forget what was delivered and logged."""
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
        return wait_until(lambda: logged(self.office.log()[self._said :], pattern), PATIENCE)

    def rewrite(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def stop(self) -> None:
        """End the service and its name server."""
        self.office.stop()
        self.names.stop()


class Live(SynchronousTestCase):
    """One test for each office."""

    def setUp(self) -> None:
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        words = f"addr add {OWN_ADDRESS}/32 dev lo".split()
        subprocess.run([program("ip"), *words], check=True, capture_output=True)

    def hold(self, group: Sequence[Dialogue]) -> None:
        """Hold them one after the other; what went wrong is told of all of them."""
        with tempfile.TemporaryDirectory(prefix="dialogues-") as directory:
            stage = LiveStage(group, passable(Path(directory)))
            broken = []
            try:
                for dialogue in group:
                    stage.begin()
                    try:
                        Play(dialogue, stage).run()
                    except Broken as error:
                        broken.append(str(error))
                log = stage.office.log()
            finally:
                stage.stop()
        self.assertEqual(broken, [], log[-4000:])


def method(group: Sequence[Dialogue]) -> Callable[[Live], None]:
    """The test of one office."""

    def test(self: Live) -> None:
        self.hold(group)

    return test


for every in by_office([one for one in dialogues() if not one.memory]).values():
    more = f"_and_{len(every) - 1}_more" if len(every) > 1 else ""
    setattr(Live, f"test_{every[0].identifier}{more}", method(every))
