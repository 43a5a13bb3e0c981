"""Where the recipients of a claimed letter go: each is resolved, and replaced by what it stands for.

Used by the scheduler at every attempt. Recipients that stand for others are replaced in the spool before
anything is delivered, so that each copy succeeds, waits or fails alone and none is made twice. Those that
cannot be looked up now may turn out to stand for somebody who is served meanwhile: for that the spool is
told what the others stand for.

When things fail: what cannot be resolved is an outcome; whatever else goes wrong postpones its recipient.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred

from postoffice.interfaces import IDirectory, IJournal, IQueue
from postoffice.mail.destination import Copy, Destination, in_folder
from postoffice.mail.envelope import Claim, Recipient, Replacement
from postoffice.mail.outcome import Failed, Outcome, Postponed
from postoffice.mail.reply import Refusal, Reply
from postoffice.queue.settlement import Settler

BUG = Reply(451, (3, 0), "Delivery failed for an unforeseen reason, it will be tried again")
# Recipients that are looked up before others get their turn.
_AT_ONCE = 100

_Answer = Destination | tuple[Copy, ...] | Failed | Postponed


@frozen
class Sorted:
    """A letter sorted out: the claim as it is now, and each recipient of it in a group or refused."""

    claim: Claim
    groups: Mapping[Destination, Sequence[Recipient]]
    refused: Mapping[int, Outcome]


class Sorter:
    """Sorts letters for a queue. `pause` lets others work and comes back."""

    def __init__(
        self,
        queue: IQueue,
        directory: IDirectory,
        settler: Settler,
        journal: IJournal,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self.directory = directory
        self._queue = queue
        self._settler = settler
        self._journal = journal
        self._pause = pause

    async def sort(self, claim: Claim) -> Sorted | None:
        """Find out where each recipient goes; None where the claim turned out not to be ours any more."""
        groups: dict[Destination, list[Recipient]] = {}
        refused: dict[int, Outcome] = {}
        pending: Sequence[Recipient] = claim.recipients
        while pending:
            expanded: list[tuple[Recipient, tuple[Copy, ...]]] = []
            placed: list[tuple[Recipient, Destination]] = []
            for recipient, answer in zip(pending, await self._resolve(pending), strict=True):
                match answer:
                    case tuple():
                        expanded.append((recipient, answer))
                    case Failed() | Postponed():
                        refused[recipient.key] = answer
                    case _:
                        groups.setdefault(in_folder(answer, claim.letter.folder), []).append(recipient)
                        placed.append((recipient, answer))
            unknown = any(isinstance(outcome, Postponed) for outcome in refused.values())
            if not expanded and not (unknown and placed):
                break
            standing = [Copy(one.address, (), one.fixed, where).key for one, where in placed]
            replaced = await self._expand(claim, expanded, standing)
            if replaced is None:
                return None
            before = {recipient.key for recipient in claim.recipients}
            fresh = [recipient for recipient in replaced.recipients if recipient.key not in before]
            claim, pending = replaced, _known(fresh, expanded, groups, claim.letter.folder)
        return Sorted(claim, groups, refused)

    async def _expand(
        self, claim: Claim, expanded: Sequence[tuple[Recipient, tuple[Copy, ...]]], standing: Sequence[str]
    ) -> Claim | None:
        queue = self._queue
        here, elsewhere = queue.first_due(True), queue.first_due(False)
        replacements = [
            Replacement(
                recipient.key,
                # Where an address has yet to be looked up, another host is likely.
                tuple((copy, elsewhere if copy.destination is None else here) for copy in copies),
            )
            for recipient, copies in expanded
        ]
        replaced = await self._settler.expand(claim, replacements, standing)
        if replaced is not None:
            for recipient, copies in expanded:
                self._journal.expanded(claim.letter, recipient, copies)
            if expanded and not queue.immediate:
                queue.wake(elsewhere)
        return replaced

    async def _resolve(self, recipients: Sequence[Recipient]) -> list[_Answer]:
        """Look all up, those that have to wait at the same time."""
        if len(recipients) == 1:
            return [await self._answer(recipients[0])]
        answers: list[_Answer] = []
        for at in range(0, len(recipients), _AT_ONCE):
            if at:
                await self._pause()
            share = recipients[at : at + _AT_ONCE]
            begun = [Deferred.fromCoroutine(self._answer(recipient)) for recipient in share]
            answers.extend([await answer for answer in begun])
        return answers

    async def _answer(self, recipient: Recipient) -> _Answer:
        try:
            return await self.directory.resolve(recipient.address, recipient.fixed, recipient.path)
        except Refusal as refusal:
            reply = refusal.reply
            return Failed(reply) if reply.permanent else Postponed(reply)
        except CancelledError:
            raise
        except Exception as error:
            self._journal.error(f"cannot resolve {recipient.address}", error)
            return Postponed(BUG)


def _known(
    fresh: Sequence[Recipient],
    expanded: Sequence[tuple[Recipient, tuple[Copy, ...]]],
    groups: dict[Destination, list[Recipient]],
    folder: str,
) -> list[Recipient]:
    """Put new recipients into groups where it is known where they go; those that are yet to be looked up."""
    where = {
        (copy.address, copy.fixed): copy.destination
        for _, copies in expanded
        for copy in copies
        if copy.destination is not None
    }
    unknown: list[Recipient] = []
    for recipient in fresh:
        destination = where.get((recipient.address, recipient.fixed))
        if destination is None:
            unknown.append(recipient)
        else:
            groups.setdefault(in_folder(destination, folder), []).append(recipient)
    return unknown
