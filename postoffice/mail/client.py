"""Who is talking to us: the facts of one session, which RSET does not touch."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Protocol = Literal["SMTP", "ESMTP", "LOCAL"]


@frozen
class Client:
    """The facts of a session that policy, headers and logs are made from.

    `ip` is the textual address, an IPv4-mapped IPv6 address as plain IPv4; empty for a local command.
    `name` is the forward-confirmed reverse name, `None` where there is none. `helo` is the name the
    client gave itself. `user` is the account it logged in to, or the account of a local command.
    """

    ip: str
    port: int = 0
    name: str | None = None
    helo: str | None = None
    protocol: Protocol = "SMTP"
    user: str | None = None
    may_relay: bool = False

    def __str__(self) -> str:
        """How logs name it: `name [ip]`, `[ip]`, or `user@localhost` for a local command."""
        if not self.ip:
            return f"{self.user}@localhost"
        return f"{self.name} [{self.ip}]" if self.name else f"[{self.ip}]"
