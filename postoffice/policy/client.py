"""Who a client is: its name, and whether it may relay.

Asked by `postoffice.policy.policy` when a client connects. Whose word is trusted for relaying is decided
here: this machine's own addresses and `trusted` hosts.

When things fail: a reverse look-up that fails leaves the client without a name.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from attrs import evolve, frozen

from postoffice.interfaces import IResolver, NoSuchDomain, ResolverFailure
from postoffice.mail.client import Client


@frozen
class ClientSettings:
    """`trusted` hosts, names and addresses, are treated like this machine."""

    trusted: frozenset[str] = frozenset()


class Clients:
    """`at_home` tells whether an address is this machine's own."""

    def __init__(self, settings: ClientSettings, at_home: Callable[[str], bool], resolver: IResolver) -> None:
        self.settings = settings
        self._at_home = at_home
        self._resolver = resolver

    async def introduce(self, client: Client) -> Client:
        """The client with its confirmed name, and whether it may relay."""
        ip = client.ip
        if self._at_home(ip):
            name = "localhost" if ip_address(ip).is_loopback else None
            return evolve(client, name=name, here=True, may_relay=True)
        try:
            name = await self._resolver.reverse(ip)
        except (NoSuchDomain, ResolverFailure):
            name = None
        trusted = self.settings.trusted
        return evolve(client, name=name, may_relay=ip in trusted or (name or "").lower() in trusted)
