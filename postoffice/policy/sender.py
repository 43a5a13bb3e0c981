"""Whom a letter may be from.

Asked by `postoffice.policy.policy` at MAIL. `nodaemon` refuses the null sender. `verify-from` asks that a
report could be sent back: an address of ours must exist (else it is a wrong number), any other must be in a
domain that takes mail. And only our own people may speak in the name of the system's users; those of virtual
domains may be anywhere. Who is logged in is held to addresses of his own elsewhere.

When things fail: `Refusal` with 451 where directory or DNS cannot tell. RFC 7505 section 4.2.
"""

from __future__ import annotations

from attrs import frozen

from postoffice.interfaces import IDirectory, IResolver, WrongNumber
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.policy.domain import standing

NO_DAEMONS = Reply(550, (7, 1), "We take no mail from the null sender <>")
NOT_OURS = Reply(553, (1, 8), "That sender is one of our users: log in to send in his name")
NOBODY = Reply(553, (1, 8), "There is no such user here to send mail")


@frozen
class SenderSettings:
    """Options, by their names."""

    verify_from: bool = True
    nodaemon: bool = False


class Senders:
    """Judges senders."""

    def __init__(self, settings: SenderSettings, directory: IDirectory, resolver: IResolver) -> None:
        self.settings = settings
        self._directory = directory
        self._resolver = resolver

    async def check(self, client: Client, sender: Address | None) -> None:
        """Errors: `Refusal`, `WrongNumber` among them."""
        if sender is None:
            if self.settings.nodaemon:
                raise Refusal(NO_DAEMONS)
        elif self.settings.verify_from and client.login is None:
            if await self._directory.is_local(sender.domain):
                await self._check_ours(client, sender)
            else:
                await self._check_domain(sender.domain)

    async def _check_ours(self, client: Client, sender: Address) -> None:
        if not client.may_relay and not await self._directory.is_virtual(sender.domain):
            raise Refusal(NOT_OURS)
        try:
            await self._directory.check(sender)
        except Refusal as refusal:
            if refusal.reply.temporary:
                raise
            raise WrongNumber(NOBODY, refusal.why) from None

    async def _check_domain(self, domain: str) -> None:
        name = printable(domain, 255)
        match await standing(self._resolver, domain):
            case "none":
                text = f"The sender's domain {name} has neither MX nor address, no reply could reach it"
                raise Refusal(Reply(553, (1, 8), text))
            case "null":
                raise Refusal(Reply(550, (7, 27), f"The sender's domain {name} says that it takes no mail"))
