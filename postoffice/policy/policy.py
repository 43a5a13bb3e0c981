"""What the session asks before it takes anything: policy, in the order a letter meets it.

Made by the service from one part for each question. `IPolicy` says who asks what, and what comes of it when
things fail. What a client that may relay is not asked, it is not asked here: its name in HELO, and whether a
DNS list has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from zope.interface import implementer

from postoffice.interfaces import IPolicy, IResolver, NoSuchDomain, ResolverFailure, WrongNumber
from postoffice.mail.address import Address
from postoffice.mail.client import Client, is_loopback, plain_ip
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.policy.client import Clients
from postoffice.policy.domain import standing
from postoffice.policy.lists import Lists
from postoffice.policy.newcomers import Newcomers
from postoffice.policy.rates import Rates
from postoffice.policy.sender import Senders

IMPOSTOR = Reply(521, (7, 1), "You greet with a name of ours; greet with your own host name")


@frozen
class PolicySettings:
    """`host` is our name; with `forward_all` the host that all mail goes to judges domains of recipients."""

    host: str
    checkhelo: bool = False
    forward_all: bool = False


@frozen
class Judges:
    """Who answers what: clients at connect, senders at MAIL, lists at both, rates before the content.

    Without `newcomers` there is no greylist.
    """

    clients: Clients
    senders: Senders
    lists: Lists
    rates: Rates
    newcomers: Newcomers | None = None


@implementer(IPolicy)
class Policy:
    """The policy of the service. `own_addresses` are this machine's."""

    def __init__(
        self,
        settings: PolicySettings,
        judges: Judges,
        resolver: IResolver,
        own_addresses: Callable[[], frozenset[str]],
    ) -> None:
        self.settings = settings
        self._judges = judges
        self._resolver = resolver
        self._own_addresses = own_addresses

    async def client(self, client: Client) -> Client:
        client = await self._judges.clients.introduce(client)
        if not client.may_relay:
            self._judges.lists.begin(client.ip)
        return client

    async def helo(self, client: Client) -> None:
        name = client.helo
        asked = self.settings.checkhelo and not client.may_relay
        if asked and name is not None and await self._is_ours(name):
            raise Refusal(IMPOSTOR)

    async def sender(self, client: Client, sender: Address | None) -> Refusal | None:
        if not client.may_relay:
            await self._judges.lists.check(client.ip)
        try:
            await self._judges.senders.check(client, sender)
        except WrongNumber:
            self.wrong_number(client, sender)
            raise
        newcomers = self._judges.newcomers
        return None if newcomers is None else await newcomers.judge(client, sender)

    async def recipient(self, client: Client, sender: Address | None, address: Address) -> None:
        if self.settings.forward_all:
            return
        name = printable(address.domain, 255)
        match await standing(self._resolver, address.domain):
            case "none":
                raise Refusal(Reply(553, (1, 2), f"The domain {name} has neither MX nor address"))
            case "null":
                raise Refusal(Reply(556, (1, 10), f"The domain {name} says that it takes no mail"))

    async def content(self, client: Client, sender: Address | None, recipients: Sequence[Address]) -> None:
        self._judges.rates.debit(client)

    def wrong_number(self, client: Client, sender: Address | None) -> None:
        if self._judges.newcomers is not None:
            self._judges.newcomers.begin_anew(client, sender)

    def rejected(self, client: Client, sender: Address | None) -> None:
        self.wrong_number(client, sender)

    def accepted(self, client: Client, envelope: Envelope) -> None:
        if self._judges.newcomers is not None:
            self._judges.newcomers.learn(client, envelope)

    async def _is_ours(self, name: str) -> bool:
        """Whether a name from HELO, or an address literal, is one of ours. A failing DNS says nothing."""
        if name.startswith("["):
            return self._is_own(name.strip("[]").lower().removeprefix("ipv6:"))
        if name.lower().rstrip(".") == self.settings.host.lower():
            return True
        try:
            return any(map(self._is_own, await self._resolver.addresses(name)))
        except (NoSuchDomain, ResolverFailure):
            return False

    def _is_own(self, text: str) -> bool:
        try:
            ip = plain_ip(text)
        except ValueError:
            return False
        return is_loopback(ip) or ip in self._own_addresses()
