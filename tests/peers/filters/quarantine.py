"""pyquarantine, which keeps what its rules find and asks an SMTP server for nothing meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.peers.filters.milter import Milter
from tests.peers.peer import HOST
from tests.support import program


class PyQuarantine(Milter):
    """pyquarantine with these `rules`; the storage `kept` is the directory `kept`."""

    def __init__(self, directory: Path, rules: Sequence[Mapping[str, Any]]) -> None:
        self._program = program("pyquarantine-milter")
        super().__init__(directory)
        self.kept = self.directory / "kept"
        self.kept.mkdir(exist_ok=True)
        config = {
            "socket": f"local:{self.socket}",
            "loglevel": "info",
            "storages": {"kept": {"type": "file", "directory": str(self.kept), "metadata": True}},
            "rules": [dict(rule) for rule in rules],
        }
        self.write("pyquarantine.conf", [json.dumps(config, indent=1)])
        self.start()

    def command(self) -> Sequence[str | Path]:
        """By Debian's Python, with a socket that everybody may use."""
        return self.opened(self._program, "-c", self.directory / "pyquarantine.conf")


def keep(port: int, **options: str) -> Mapping[str, Any]:
    """The action that takes a letter away: kept in `kept`; it would be released to the server at `port`."""
    return {
        "name": "keep",
        "type": "quarantine",
        "options": {"storage": "kept", "smtp_host": HOST, "smtp_port": port, **options},
    }
