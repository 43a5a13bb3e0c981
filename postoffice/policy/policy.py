"""What the session asks before it takes anything: policy, in the order a letter meets it.

Made by the service; `IPolicy` says who asks what, and what comes of it when things fail.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from postoffice.interfaces import IPolicy
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Refusal
from postoffice.policy.client import Clients


@implementer(IPolicy)
class Policy:
    """The policy of the service."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def client(self, client: Client) -> Client:
        return await self._clients.introduce(client)

    async def helo(self, client: Client) -> None:
        pass

    async def sender(self, client: Client, sender: Address | None, size: int | None) -> Refusal | None:
        return None

    async def recipient(self, client: Client, sender: Address | None, address: Address) -> None:
        pass

    async def content(self, client: Client, sender: Address | None, recipients: Sequence[Address]) -> None:
        pass

    def wrong_number(self, client: Client, sender: Address | None) -> None:
        pass

    def accepted(self, client: Client, envelope: Envelope) -> None:
        pass
