"""A filter that does as it is told, by libmilter as Python programs use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.peers.filters.milter import Milter
from tests.peers.peer import text_of
from tests.support import CHECKOUT, SYSTEM_PYTHON, need_module


class Scripted(Milter):
    """`tests/peers/filters/puppet.py` with a script: what it does at the end of a letter, and its last word.

    An action is a list of the name of a method of pymilter's and its arguments, such as
    `["addheader", "X-New", "value"]`; `last` is what it then says (`ACCEPT`, `CONTINUE`, `REJECT`,
    `TEMPFAIL`, `DISCARD`) or `DIE`. `events` are verdicts at other events, by the name of the event, behind
    which may stand its first argument.
    """

    def __init__(
        self,
        directory: Path,
        actions: Sequence[Sequence[Any]] = (),
        *,
        last: str = "ACCEPT",
        **events: str | Sequence[str],
    ) -> None:
        need_module("Milter", "python3-milter")
        super().__init__(directory)
        self.does(actions, last=last, **events)
        self.start()

    def does(
        self, actions: Sequence[Sequence[Any]] = (), *, last: str = "ACCEPT", **events: str | Sequence[str]
    ) -> None:
        """Another script, from the next connection on."""
        self.write("script", [json.dumps({"actions": actions, "last": last, "events": events})])

    def command(self) -> Sequence[str | Path]:
        """By Debian's Python, with a socket that everybody may use."""
        return self.opened(SYSTEM_PYTHON, self._copy(), self.socket, self.directory / "script")

    def seen(self) -> list[list[Any]]:
        """What it was told in the last connection, in order: an event, then its arguments.

        The last of a letter is `end`, with the macros.
        """
        told = self.all_seen()
        begins = [at for at, event in enumerate(told) if event[0] == "connect"]
        return told[begins[-1] :] if begins else []

    def all_seen(self) -> list[list[Any]]:
        """What it was told in all connections, mingled where there were several at once."""
        return [json.loads(line) for line in text_of(self.stdout).splitlines()]

    def _copy(self) -> Path:
        """The program where the account it runs as can read it."""
        copy = self.directory / "puppet.py"
        copy.write_text((CHECKOUT / "tests/peers/filters/puppet.py").read_text())
        return copy
