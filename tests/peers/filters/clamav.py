"""ClamAV: the daemon that looks for viruses, of which it knows only ours, and its filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.peers.filters.milter import Milter
from tests.support import program

VIRUS = b"POSTOFFICE-VIRUS"
"""What the only signature finds; it is called NAME below."""

NAME = "SIMPLE-TEST-SIG"


class Clamd(Milter):
    """clamd with one signature of our own making."""

    def __init__(self, directory: Path) -> None:
        self._program = program("clamd")
        super().__init__(directory)
        (self.directory / "signatures").mkdir(exist_ok=True)
        self.write("signatures/ours.ndb", [f"{NAME}:0:*:{VIRUS.hex()}"])
        self.write(
            "clamd.conf",
            [
                f"DatabaseDirectory {self.directory}/signatures",
                f"TemporaryDirectory {self.directory}",
                f"LocalSocket {self.socket}",
                "Foreground true",
                "MaxThreads 2",
            ],
        )
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground."""
        return [self._program, "-c", self.directory / "clamd.conf"]

    def ready(self) -> bool:
        """Listens, which it does once it has read its signatures. It speaks another protocol."""
        return self.socket.exists()


class ClamavMilter(Milter):
    """clamav-milter: asks a clamd about each letter, and does `on_infected` with those that have a virus."""

    def __init__(self, directory: Path, clamd: Clamd, *, on_infected: str = "Reject") -> None:
        self._program = program("clamav-milter")
        super().__init__(directory)
        self.write(
            "clamav-milter.conf",
            [
                f"MilterSocket {self.socket}",
                "MilterSocketMode 666",
                f"ClamdSocket unix:{clamd.socket}",
                f"TemporaryDirectory {self.directory}",
                "Foreground true",
                f"OnInfected {on_infected}",
                "AddHeader Replace",
                *(["RejectMsg Virus %v found"] if on_infected == "Reject" else []),
            ],
        )
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground."""
        return [self._program, "-c", self.directory / "clamav-milter.conf"]
