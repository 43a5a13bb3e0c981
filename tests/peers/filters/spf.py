"""pyspf-milter, which asks the DNS whether a client may send for a domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.peers.filters.milter import Milter
from tests.peers.peer import NOBODY
from tests.support import SYSTEM_PYTHON, program


class PyspfMilter(Milter):
    """pyspf-milter: refuses what a domain's policy fails, which it asks `nameserver` for.

    `lines` are added to its configuration.
    """

    def __init__(self, directory: Path, *, nameserver: str = "", lines: Iterable[str] = ()) -> None:
        self._program = program("pyspf-milter")
        super().__init__(directory, nameserver=nameserver)
        self.write(
            "pyspf-milter.conf",
            [
                f"Socket = local:{self.socket}",
                f"PidFile = {self.directory}/pid",
                f"UserID = {NOBODY}:nogroup",
                "debugLevel = 1",
                # Nothing else makes it refuse.
                "TestOnly = 1",
                "HELO_reject = False",
                "Mail_From_reject = Fail",
                "skip_addresses = 127.0.0.0/8",
                *lines,
            ],
        )
        self.start()

    def start(self) -> None:
        """Start it; a file with the number of an earlier process would keep it from starting."""
        (self.directory / "pid").unlink(missing_ok=True)
        super().start()

    def command(self) -> Sequence[str | Path]:
        """By Debian's Python, with a socket that everybody may use."""
        return self.opened(SYSTEM_PYTHON, self._program, self.directory / "pyspf-milter.conf")
