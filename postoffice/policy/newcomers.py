"""What the greylist means for a letter: who is put off, who is not asked, and whom we get to know.

Asked by `postoffice.policy.policy`. Clients that may relay, and those a list of welcome clients has
(`dnswl`), are no newcomers. Nothing here fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from postoffice.interfaces import IDirectory
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Refusal, Reply
from postoffice.policy.greylist import Greylist, Never, Wait
from postoffice.policy.lists import Lists


class Newcomers:
    """`directory` knows which addresses are ours."""

    def __init__(self, greylist: Greylist, lists: Lists, directory: IDirectory) -> None:
        self._greylist = greylist
        self._lists = lists
        self._directory = directory

    async def judge(self, client: Client, sender: Address | None) -> Refusal | None:
        """The answer to DATA, where a letter of this sender is put off."""
        if client.may_relay or (client.ip and await self._lists.welcome(client.ip)):
            return None
        match self._greylist.consult(client, sender):
            case Wait(seconds):
                text = f"Greylisted: senders that are new here wait; try again in {seconds} seconds"
                return Refusal(Reply(451, (7, 1), text), "greylist")
            case Never():
                text = "System busy. Try again later"
                return Refusal(Reply(451, (7, 1), text), "forbidden in the greylist")
        return None

    def begin_anew(self, client: Client, sender: Address | None) -> None:
        """The client guesses recipients: what it has waited does not count."""
        if not client.may_relay:
            self._greylist.forget(client, sender)

    def learn(self, client: Client, envelope: Envelope) -> None:
        """A letter of the client was stored: whom our users write to may answer without waiting.

        Neither the letter nor its client waits for what that takes.
        """
        if client.may_relay and envelope.sender is not None:
            Deferred.fromCoroutine(self._learn(envelope.recipients))

    async def _learn(self, recipients: Sequence[Address]) -> None:
        for address in recipients:
            # Else whoever forges one of our own addresses would pass.
            if not await self._is_local(address):
                self._greylist.wrote_to(address)

    async def _is_local(self, address: Address) -> bool:
        """Whether an address is ours, or may be."""
        try:
            return await self._directory.is_local(address.domain)
        except Refusal:
            return True
