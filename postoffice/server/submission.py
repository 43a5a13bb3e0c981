"""What local commands can do here: hand in letters, list the queue, run it.

The door for them (`postoffice.server.local`) calls this through `IOffice`; letters go through the same
intake as those that come by SMTP. Callers are on this machine, so they may relay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from zope.interface import implementer

from postoffice.interfaces import IDirectory, IGreylist, IPolicy, IQueue, ISpool
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Explanation
from postoffice.mail.envelope import Entry, Envelope
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.server.intake import Incoming, Intake
from postoffice.server.office import IOffice, ISubmission, Pattern


@implementer(ISubmission)
class Submission:
    """A letter that a local command is handing in."""

    def __init__(self, client: Client, incoming: Incoming, policy: IPolicy) -> None:
        self._client = client
        self._incoming = incoming
        self._policy = policy

    def write(self, data: bytes) -> Awaitable[None] | None:
        return self._incoming.write(data)

    async def finish(self) -> str:
        letter_id = await self._incoming.finish()
        self._policy.accepted(self._client, self._incoming.envelope)
        self._incoming.pass_on()
        return letter_id

    def abort(self) -> None:
        self._incoming.abort()


@implementer(IOffice)
class LocalOffice:
    """The service as local commands see it. `full_name` gives that of an account, empty where it has none."""

    def __init__(
        self,
        intake: Intake,
        spool: ISpool,
        queue: IQueue,
        directory: IDirectory,
        policy: IPolicy,
        greylist: IGreylist,
        full_name: Callable[[str], str],
    ) -> None:
        self.greylist = greylist
        self._intake = intake
        self._spool = spool
        self._queue = queue
        self._directory = directory
        self._policy = policy
        self._full_name = full_name

    async def entries(self) -> list[Entry]:
        return await self._spool.entries()

    async def run(self, pattern: Pattern | None) -> int:
        if pattern is None:
            return await self._queue.run(None)
        count = 0
        for entry in await self._spool.entries():
            if pattern.matches(entry):
                count += await self._queue.run(entry.letter.id)
        return count

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
        incoming = self._intake.begin(client, envelope, extra.encode("ascii"), name)
        return Submission(client, incoming, self._policy), refused
