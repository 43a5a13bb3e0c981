"""What local commands can do here: hand in letters, look after the queue and what else is kept.

The door for them (`postoffice.server.local`) calls this through `IOffice`; letters go through the same
intake as those that come by SMTP. Callers are on this machine, so they may relay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve
from zope.interface import implementer

from postoffice.interfaces import (
    IDirectory,
    IFilters,
    IGreylist,
    IPolicy,
    IScreening,
    IVirtualFiles,
)
from postoffice.mail.address import Address, path
from postoffice.mail.client import Client
from postoffice.mail.destination import Explanation
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.server.intake import Incoming, Intake
from postoffice.server.office import ILetters, IOffice, ISubmission
from postoffice.server.screened import ScreenedIncoming


@implementer(ISubmission)
class Submission:
    """A letter that a local command is handing in."""

    def __init__(
        self, client: Client, incoming: Incoming, policy: IPolicy, screening: IScreening | None
    ) -> None:
        self._client = client
        self._incoming = incoming
        self._policy = policy
        self._screening = screening

    def write(self, data: bytes) -> Awaitable[None] | None:
        return self._incoming.write(data)

    async def finish(self) -> str:
        try:
            letter_id = await self._incoming.finish()
        finally:
            self._end_screening()
        self._policy.accepted(self._client, self._incoming.envelope)
        self._incoming.pass_on()
        return letter_id

    def abort(self) -> None:
        self._incoming.abort()
        self._end_screening()

    def _end_screening(self) -> None:
        if self._screening is not None:
            self._screening.close()


@implementer(IOffice)
class LocalOffice:
    """The service as local commands see it. `full_name` gives that of an account, empty where it has none."""

    def __init__(
        self,
        intake: Intake,
        letters: ILetters,
        directory: IDirectory,
        policy: IPolicy,
        greylist: IGreylist,
        virtual: IVirtualFiles,
        full_name: Callable[[str], str],
        filters: IFilters | None = None,
    ) -> None:
        self.letters = letters
        self.greylist = greylist
        self.virtual = virtual
        self._intake = intake
        self._directory = directory
        self._policy = policy
        self._full_name = full_name
        self._filters = filters

    async def explain(self, address: Address) -> Explanation:
        return await self._directory.explain(address)

    async def begin(
        self, client: Client, sender: Address | None, recipients: Sequence[Address], warning: str | None
    ) -> tuple[ISubmission, list[tuple[Address, Reply]]]:
        self._intake.check_room(None)
        good: dict[tuple[str, str], Address] = {}
        refused: list[tuple[Address, Reply]] = []
        for address in recipients:
            try:
                await self._directory.check(address)
            except Refusal as refusal:
                refused.append((address, refusal.reply))
            else:
                good.setdefault((address.local, address.domain_key), address)
        if not good:
            raise Refusal(refused[0][1])
        host = self._intake.settings.host
        extra = f"X-Authentication-Warning: {host}: {printable(warning)}\r\n" if warning else ""
        addresses = (*good.values(), *(() if sender is None else (sender,)))
        international = any(address.international for address in addresses)
        envelope = Envelope(sender, tuple(good.values()), "8BITMIME", smtputf8=international)
        # Who sends as somebody else does not lend him his own name.
        name = self._full_name(client.user) if client.user and not warning else ""
        lines = extra.encode("ascii")
        screening = None if self._filters is None else self._filters.begin(client, "127.0.0.1", 0)
        if screening is None:
            incoming = self._intake.begin(client, envelope, lines, name)
        else:
            envelope = await _told(screening, client, envelope, refused)
            incoming = ScreenedIncoming(self._intake, client, envelope, screening, lines, name)
        return Submission(client, incoming, self._policy, screening), refused


async def _told(
    screening: IScreening, client: Client, envelope: Envelope, refused: list[tuple[Address, Reply]]
) -> Envelope:
    """What the filters leave of the recipients, told as a session would. Errors: `Refusal`."""
    try:
        await screening.client(client)
        await screening.sender(client, envelope.sender, path(envelope.sender).encode())
        for address, reply in [*refused]:
            await screening.refused_recipient(address, path(address).encode(), reply)
        good = []
        for address in envelope.recipients:
            try:
                await screening.recipient(address, path(address).encode())
                good.append(address)
            except Refusal as refusal:
                refused.append((address, refusal.reply))
        if not good:
            raise Refusal(refused[-1][1])
        await screening.data(len(good))
    except BaseException:
        screening.close()
        raise
    return evolve(envelope, recipients=tuple(good))
