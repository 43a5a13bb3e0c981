"""What the chain knows of each of its filters besides the filter itself."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Literal

from attrs import define, field, frozen

from postoffice.config.values import Disposition, Network
from postoffice.interfaces import IFilter
from postoffice.mail.client import Client

OnError = Literal["tempfail", "accept", "reject", "shutdown", "quarantine"]
When = Literal["smtp", "submit", "all"]


@frozen
class Terms:
    """How the administrator wants a filter used. A `lazy` one is not opened before the first letter.

    `skip` names clients that it has no part in: networks, and `login` for those that have logged in.
    """

    on_error: OnError = "tempfail"
    when: When = "all"
    lazy: bool = False
    skip: tuple[Network | Literal["login"], ...] = ()

    def applies(self, submission: bool) -> bool:
        """Whether it takes part; `submission` is mail that comes by a submission port or a command."""
        return self.when == "all" or (self.when == "submit") == submission

    def skips(self, client: Client) -> bool:
        """Whether it has no part in what this client does now."""
        return bool(self.skip) and any(
            client.login is not None if one == "login" else bool(client.ip) and ip_address(client.ip) in one
            for one in self.skip
        )


@define
class Member:
    """A filter of the chain, and what became of it so far, for DEBUG."""

    filter: IFilter
    terms: Terms
    counts: Counter[str] = field(factory=Counter)
    last_failure: str = ""

    def describe(self) -> str:
        """Its name and state."""
        state = f"failing: {self.last_failure}" if self.last_failure else "ready"
        counted = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return f"Filter: {self.filter.name} ({state}{'; ' if counted else ''}{counted})"


@frozen
class ChainSettings:
    """`size` is the largest letter (0: no limit); with `safe` who has logged in is not asked about."""

    host: str
    spam: Disposition
    safe: bool = False
    size: int = 0
