"""Who is talking to us: the facts of one session, which RSET does not touch."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Network, ip_address
from typing import Literal

from attrs import frozen

Protocol = Literal["SMTP", "ESMTP", "LOCAL"]
Door = Literal["smtp", "msp", "smtps"]


@frozen
class Tls:
    """What encrypts a session: `version` (TLSv1.3), `cipher` (as OpenSSL spells it), `bits` of its key.

    `server_name` is the name of ours that the client asked for (SNI), `None` if it asked for none.
    """

    version: str
    cipher: str
    bits: int
    server_name: str | None = None

    def __str__(self) -> str:
        """How trace fields and logs tell it."""
        return f"{self.version} with cipher {self.cipher} ({self.bits}/{self.bits} bits)"


@frozen
class Client:
    """The facts of a session that policy, headers and logs are made from.

    `ip` is the textual address, an IPv4-mapped IPv6 address as plain IPv4; empty for a local command. `name`
    is the forward-confirmed reverse name, `None` where there is none; `nameless` says for certain that there
    is no name to hold the client to, and `claimed` is a name of its address that does not lead back to it.
    `helo` is the name it gave itself. `user` is the account of a local command, `login` the one that was
    logged in to (`alice@example.org` of a virtual domain, or a user of the system) by the `mechanism` of
    AUTH, `here` whether the client is on this machine. `announced` says that a proxy's word is all we have
    for who it is, `anonymous` that the proxy does not give its address, so that `ip` is the proxy's own.
    `marked` is why policy would rather have refused it, empty for all whom it would not. `door` is the kind
    of listener it came to, `tls` what the session is encrypted with, if it is.
    """

    ip: str
    port: int = 0
    name: str | None = None
    helo: str | None = None
    protocol: Protocol = "SMTP"
    user: str | None = None
    login: str | None = None
    mechanism: str = ""
    here: bool = False
    announced: bool = False
    anonymous: bool = False
    may_relay: bool = False
    marked: str = ""
    nameless: bool = False
    claimed: str | None = None
    door: Door = "smtp"
    tls: Tls | None = None

    @property
    def keyword(self) -> str:
        """How the letter came, in the words of RFC 3848: ESMTP and what was added to it."""
        if self.protocol != "ESMTP":
            return self.protocol
        return f"ESMTP{'S' if self.tls else ''}{'A' if self.login else ''}"

    def __str__(self) -> str:
        """How logs name it: `name [ip]`, `[ip]`, or `user@localhost` for a local command."""
        if not self.ip:
            return f"{self.user}@localhost"
        return f"{self.name} [{self.ip}]" if self.name else f"[{self.ip}]"


@lru_cache(maxsize=1024)
def plain_ip(text: str) -> str:
    """An address as text in its one spelling: without a zone, IPv4 even where it came mapped into IPv6.

    Errors: ValueError.
    """
    address = ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@lru_cache(maxsize=1024)
def is_loopback(ip: str) -> bool:
    """Whether an address is of the loopback network."""
    return ip_address(ip).is_loopback


@lru_cache(maxsize=4096)
def network_of(ip: str) -> str:
    """What counts as one client's address: in IPv6 a host has a network of its own, 64 bits long."""
    return str(IPv6Network((ip, 64), strict=False)) if ":" in ip else ip
