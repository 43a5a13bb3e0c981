"""Delivery to mailboxes of this machine.

Called by the queue with a letter and the recipients that share a mailbox, which get one copy. The
work is done in threads, because it waits for the disk: a letter that is in memory in one go, a
larger one piece by piece, without ever holding all of it. At final delivery `Return-Path:` and a
`Delivered-To:` for each recipient go in front; a letter that already carries our `Delivered-To:`
for a recipient is looping.

When things fail: what the disk, the permissions, the spool or somebody else's lock say is an outcome, and
the mailbox is as before. After a crash the letter may be delivered again. RFC 5321 section 4.4 and 6.3.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.delivery.files import Deposit, MailboxBusy, UnsafeMailbox, put, within
from postoffice.delivery.gather import Gathering, InThread
from postoffice.delivery.maildir import MaildirFile
from postoffice.delivery.mbox import MboxFile
from postoffice.interfaces import IContent, IDelivery, SpoolFailed
from postoffice.mail.address import Address, path
from postoffice.mail.destination import Destination, Mailbox
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.header import read_headers
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply, legible, printable

T = TypeVar("T")
Pieces = AsyncIterator[bytes]

LOCK_WAIT = 10.0
LOCK_PAUSE = 0.25
HEADER_LIMIT = 1 << 20


@frozen
class MailboxSettings:
    """Our name, whether mboxes get their `From ` lines quoted, and below what missing folders are made."""

    host: str
    escape_from: bool = True
    tree: str = ""


class _Job:
    """One delivery under way; cancelling it takes effect between two steps."""

    def __init__(self) -> None:
        self.cancelled = False
        self._pause: Deferred[None] | None = None

    def cancel(self, _: object = None) -> None:
        self.cancelled = True
        if self._pause is not None:
            self._pause.cancel()

    def is_wanted(self) -> bool:
        return not self.cancelled

    def check(self) -> None:
        if self.cancelled:
            raise CancelledError

    async def sleep(self, clock: IReactorTime, seconds: float) -> None:
        self.check()
        self._pause = deferLater(clock, seconds)
        try:
            await self._pause
        finally:
            self._pause = None


@implementer(IDelivery)
class MailboxDelivery:
    """Delivers to `Mailbox` destinations.

    The clock tells epoch seconds. Cancelling a delivery lets go of it at once; what a thread is doing is
    finished and, unless the letter was stored by then, undone.
    """

    def __init__(self, in_thread: InThread, clock: IReactorTime, settings: MailboxSettings) -> None:
        self._in_thread = in_thread
        self._clock = clock
        self._settings = settings
        self._gathering = Gathering(in_thread)
        self._turns: dict[str, DeferredLock] = {}
        self._under_way = 0
        self._idle: list[Deferred[None]] = []

    def adapt(self, settings: MailboxSettings) -> None:
        """Take over other settings, for files that are opened from now on."""
        self._settings = settings

    def deliver(
        self, letter: Letter, content: IContent, destination: Destination, recipients: Sequence[Recipient]
    ) -> Deferred[dict[int, Outcome]]:
        if not isinstance(destination, Mailbox):
            raise TypeError(f"{destination} is no mailbox")
        job = _Job()
        result: Deferred[dict[int, Outcome]] = Deferred(job.cancel)
        work = self._deliver(job, letter.sender, content, destination, recipients)
        self._under_way += 1
        Deferred.fromCoroutine(work).addBoth(self._ended, result)
        return result

    def stop(self) -> Deferred[None]:
        """Fires when no thread works for us any more."""
        if not self._under_way:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        return waiting

    def _ended(self, outcomes: dict[int, Outcome] | Failure, result: Deferred[dict[int, Outcome]]) -> None:
        self._under_way -= 1
        if not self._under_way:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)
        if not result.called:
            result.callback(outcomes)

    async def _deliver(
        self,
        job: _Job,
        sender: Address | None,
        content: IContent,
        mailbox: Mailbox,
        recipients: Sequence[Recipient],
    ) -> dict[int, Outcome]:
        first, rest = content.held, None
        if first is None:
            rest = content.pieces()
            try:
                first = await _beginning(rest)
            except SpoolFailed as error:
                return dict.fromkeys((recipient.key for recipient in recipients), _unread(error))
        seen = _delivered_to(first)
        looping = [recipient for recipient in recipients if _key(recipient.address) in seen]
        outcomes: dict[int, Outcome] = {recipient.key: _loop(recipient.address) for recipient in looping}
        fresh = [recipient for recipient in recipients if recipient.key not in outcomes]
        if fresh:
            begin = _trace(sender, [recipient.address for recipient in fresh]) + first
            outcome = await self._outcome(job, mailbox, sender, begin, rest)
            outcomes.update((recipient.key, outcome) for recipient in fresh)
        return outcomes

    async def _outcome(
        self, job: _Job, mailbox: Mailbox, sender: Address | None, begin: bytes, rest: Pieces | None
    ) -> Outcome:
        try:
            if mailbox.kind == "maildir":
                opened = partial(self._maildir, mailbox)
                if rest is None:
                    await self._gathering.put(opened, begin, job.is_wanted)
                else:
                    await self._store(job, opened, begin, rest)
            else:
                who = legible(str(sender)) if sender else ""
                await self._in_turn(job, mailbox.path, partial(self._mbox, mailbox, who), begin, rest)
        except MailboxBusy:
            return Postponed(Reply(451, (2, 0), f"mailbox of {mailbox.owner}: busy"))
        except UnsafeMailbox as error:
            return Postponed(Reply(451, (2, 0), f"mailbox of {mailbox.owner}: {error}"))
        except SpoolFailed as error:
            return _unread(error)
        except OSError as error:
            return _refused(error, mailbox.owner)
        return Delivered(Reply(250, (0, 0), f"delivered to the mailbox of {mailbox.owner}"), mailbox.path)

    async def _in_turn(
        self, job: _Job, place: str, opened: Callable[[], Deposit], begin: bytes, rest: Pieces | None
    ) -> None:
        """Letters for one mbox wait for each other here, not in threads."""
        turn = self._turns.setdefault(place, DeferredLock())
        await turn.acquire()
        try:
            await self._store(job, opened, begin, rest)
        finally:
            turn.release()
            # What waited may have run to its end within `release`.
            if not turn.locked and self._turns.get(place) is turn:
                del self._turns[place]

    async def _store(
        self, job: _Job, opened: Callable[[], Deposit], begin: bytes, rest: Pieces | None
    ) -> None:
        if rest is None:
            await self._unlocked(job, partial(put, opened, begin))
            return
        deposit = await self._unlocked(job, opened)
        try:
            await self._in_thread(deposit.write, begin)
            async for piece in rest:
                job.check()
                await self._in_thread(deposit.write, piece)
            job.check()
            await self._in_thread(deposit.commit)
        except Exception:
            await self._in_thread(deposit.abort)
            raise

    async def _unlocked(self, job: _Job, step: Callable[[], T]) -> T:
        """Take a step, again and again while the mailbox is busy, for up to `LOCK_WAIT` seconds."""
        until = self._clock.seconds() + LOCK_WAIT
        while True:
            job.check()
            try:
                return await self._in_thread(step)
            except MailboxBusy:
                if self._clock.seconds() >= until:
                    raise
            await job.sleep(self._clock, LOCK_PAUSE)

    def _maildir(self, mailbox: Mailbox) -> MaildirFile:
        settings = self._settings
        tree = mailbox.home or settings.tree
        parent, _, name = mailbox.path.rpartition("/")
        if mailbox.home and name.startswith(".") and not within(parent, mailbox.home):
            # A folder of a Maildir outside of the home, which may not be there yet.
            tree = parent
        return MaildirFile(mailbox.path, self._clock.seconds(), settings.host, tree)

    def _mbox(self, mailbox: Mailbox, sender: str) -> Deposit:
        settings = self._settings
        tree = mailbox.home or settings.tree
        return MboxFile(mailbox.path, sender, self._clock.seconds(), tree, quote=settings.escape_from)


async def _beginning(pieces: Pieces) -> bytes:
    """The pieces up to the one that holds the end of the header block."""
    begin = b""
    async for piece in pieces:
        begin += piece
        if len(begin) > HEADER_LIMIT or read_headers(begin, final=False) is not None:
            break
    return begin


def _key(address: Address) -> bytes:
    """An address in the form it is compared in to find loops."""
    return legible(str(address)).lower().encode()


def _delivered_to(begin: bytes) -> set[bytes]:
    """Whom the letter was delivered to before, as `_key` writes them."""
    headers = read_headers(begin, final=True)
    if headers is None or b"delivered-to" not in headers.block.lower():
        return set()
    return {value.lower() for value in headers.values(b"Delivered-To")}


def _trace(sender: Address | None, addresses: Sequence[Address]) -> bytes:
    lines = [f"Return-Path: {legible(path(sender))}\r\n"]
    lines.extend(f"Delivered-To: {legible(str(address))}\r\n" for address in addresses)
    return "".join(lines).encode()


def _loop(address: Address) -> Outcome:
    return Failed(
        Reply(554, (4, 6), f"The letter is looping: it was delivered to {printable(str(address))} before")
    )


def _unread(error: SpoolFailed) -> Outcome:
    return Postponed(Reply(451, (3, 0), f"the letter cannot be read: {printable(str(error))}"))


def _refused(error: OSError, owner: str) -> Outcome:
    """The outcome of what the system said. Nearly everything can be mended by an operator or the owner."""
    text = f"mailbox of {owner}: {error.strerror}"
    match error.errno:
        case errno.ENAMETOOLONG:
            return Failed(Reply(550, (2, 0), text))
        case errno.ENOSPC:
            return Postponed(Reply(452, (3, 1), text))
        case errno.EDQUOT | errno.EFBIG:
            return Postponed(Reply(452, (2, 2), text))
        case errno.EACCES | errno.EPERM | errno.ENOENT | errno.ENOTDIR | errno.EISDIR | errno.ELOOP:
            return Postponed(Reply(451, (2, 0), text))
    return Postponed(Reply(451, (3, 0), text))
