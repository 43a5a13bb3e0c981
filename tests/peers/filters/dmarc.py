"""OpenDMARC, which compares the author's domain with what filters in front of it found out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.peers.filters.milter import Milter
from tests.support import program


class OpenDmarc(Milter):
    """OpenDMARC that believes the findings of `authserv`, and asks `nameserver` for policies."""

    def __init__(
        self, directory: Path, authserv: str, *, nameserver: str = "", lines: Iterable[str] = ()
    ) -> None:
        self._program = program("opendmarc")
        super().__init__(directory, nameserver=nameserver)
        self.write(
            "opendmarc.conf",
            [
                f"Socket local:{self.socket}",
                "UMask 000",
                f"AuthservID {authserv}",
                f"TrustedAuthservIDs {authserv}",
                "Syslog false",
                *lines,
            ],
        )
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground."""
        return self.opened(self._program, "-f", "-c", self.directory / "opendmarc.conf")
