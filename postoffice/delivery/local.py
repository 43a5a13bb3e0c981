"""Delivery on this machine: to mailboxes, files and commands.

Called by the queue with a letter and the recipients that share a destination, which get one copy. What the
account we run as may write is written in threads, because it waits for the disk: a letter that is in memory
in one go, a larger one piece by piece, without ever holding all of it. Everything else is done by a process
that has become the user (`postoffice.delivery.as_user`). What goes in front of a letter is in
`postoffice.delivery.final`.

When things fail: what the disk, the permissions, the spool, a command or somebody else's lock say is an
outcome, and the mailbox is as before. After a crash the letter may be delivered again. RFC 5321 section 4.4
and 6.3.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.delivery.as_user import AsUser
from postoffice.delivery.command import outcome_of_end
from postoffice.delivery.files import Deposit, MailboxBusy, UnsafeMailbox, within
from postoffice.delivery.final import Prepared, prepare, unread
from postoffice.delivery.gather import Gathering, InThread
from postoffice.delivery.identities import Lost, NotAllowed
from postoffice.delivery.job import Job
from postoffice.delivery.maildir import MaildirFile
from postoffice.delivery.mbox import MboxFile, append_together
from postoffice.delivery.turns import Place, Turns, Whole
from postoffice.interfaces import IContent, IDelivery, SpoolFailed
from postoffice.mail.address import Address
from postoffice.mail.destination import Command, Destination, File, Mailbox
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply, legible, printable

_NOWHERE = "/dev/null"


@frozen
class LocalDeliverySettings:
    """Our name, whether mboxes get their `From ` lines quoted, and below what missing folders are made.

    `own` is the account we run as where other accounts have mailboxes, too; None where all mailboxes are
    ours. Those of virtual users are `vuser`'s. A command may take `command_timeout` seconds, 0 for no limit.
    """

    host: str
    escape_from: bool = True
    tree: str = ""
    own: str | None = None
    vuser: str = ""
    command_timeout: float = 300.0


@implementer(IDelivery)
class LocalDelivery:
    """Delivers to `Mailbox`, `File` and `Command` destinations.

    The clock tells epoch seconds. Cancelling a delivery lets go of it at once; what a thread is doing is
    finished and, unless the letter was stored by then, undone.
    """

    def __init__(
        self, in_thread: InThread, clock: IReactorTime, settings: LocalDeliverySettings, as_user: AsUser
    ) -> None:
        self._in_thread = in_thread
        self._as_user = as_user
        self._clock = clock
        self._settings = settings
        self._gathering = Gathering(in_thread)
        self._turns = Turns(self._together, clock)
        self._under_way = 0
        self._idle: list[Deferred[None]] = []

    def adapt(self, settings: LocalDeliverySettings) -> None:
        """Take over other settings, for files that are opened from now on."""
        self._settings = settings

    def deliver(
        self, letter: Letter, content: IContent, destination: Destination, recipients: Sequence[Recipient]
    ) -> Deferred[dict[int, Outcome]]:
        if not isinstance(destination, Mailbox | File | Command):
            raise TypeError(f"{destination} is not on this machine")
        job = Job()
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
        job: Job,
        sender: Address | None,
        content: IContent,
        destination: Mailbox | File | Command,
        recipients: Sequence[Recipient],
    ) -> dict[int, Outcome]:
        letter = await prepare(sender, content, recipients)
        if letter.recipients:
            outcome = await self._outcome(job, destination, sender, letter)
            letter.settled.update((recipient.key, outcome) for recipient in letter.recipients)
        return letter.settled

    async def _outcome(
        self, job: Job, destination: Mailbox | File | Command, sender: Address | None, letter: Prepared
    ) -> Outcome:
        what = _named(destination)
        try:
            match destination:
                case Mailbox():
                    await self._store(job, destination, sender, letter)
                case File():
                    if destination.path != _NOWHERE:
                        place, account = destination.path, destination.account
                        await self._append(job, place, "", account, _who(sender), letter)
                case Command():
                    return await self._run(job, destination, sender, letter)
        except MailboxBusy:
            return Postponed(Reply(451, (2, 0), f"{what}: busy"))
        except UnsafeMailbox as error:
            return Postponed(Reply(451, (2, 0), f"{what}: {error}"))
        except NotAllowed as error:
            reply = Reply(550 if error.never else 451, (7, 0), printable(f"{what}: {error}"))
            return Failed(reply) if error.never else Postponed(reply)
        except Lost as error:
            return Postponed(Reply(451, (3, 0), f"{what}: {error}"))
        except SpoolFailed as error:
            return unread(error)
        except OSError as error:
            return _refused(error, what)
        return Delivered(Reply(250, (0, 0), f"delivered to the {what}"), destination.path)

    async def _store(self, job: Job, mailbox: Mailbox, sender: Address | None, letter: Prepared) -> None:
        account = mailbox.owner if mailbox.home else self._settings.vuser
        as_user = self._settings.own not in (None, account)
        if mailbox.kind == "mbox":
            tree = mailbox.home or self._settings.tree
            await self._append(job, mailbox.path, tree, account if as_user else None, _who(sender), letter)
        elif as_user:
            unlocked = partial(job.unlocked, self._clock)
            await self._as_user.store(account, self._maildir_job(mailbox), letter, unlocked)
        elif letter.rest is None:
            await self._gathering.put(partial(self._maildir, mailbox), letter.begin, job.is_wanted)
        else:
            await self._deposit(job, partial(self._maildir, mailbox), letter)

    async def _append(
        self, job: Job, path: str, tree: str, account: str | None, who: str, letter: Prepared
    ) -> None:
        """Append a letter to an mbox, as somebody else where `account` is not None."""
        now, quote = self._clock.seconds(), self._settings.escape_from
        if letter.rest is None:
            await self._turns.put(Place(path, tree, quote, account), job, (who, now, letter.begin))
        elif account is None:
            opened = partial(MboxFile, path, who, now, tree, quote=quote)
            await self._turns.take(path, partial(self._deposit, job, opened, letter))
        else:
            message = {"do": "mbox", "path": path, "sender": who, "now": now, "tree": tree, "quote": quote}
            unlocked = partial(job.unlocked, self._clock)
            await self._turns.take(path, partial(self._as_user.store, account, message, letter, unlocked))

    async def _run(self, job: Job, command: Command, sender: Address | None, letter: Prepared) -> Outcome:
        recipient = letter.recipients[0].address
        environment = {
            "SENDER": str(sender or ""),
            "RECIPIENT": str(recipient),
            "EXTENSION": command.extension,
        }
        message = {
            "do": "command",
            "text": command.text,
            "environment": environment,
            "sender": _who(sender),
            "now": self._clock.seconds(),
            "timeout": self._settings.command_timeout,
        }
        job.check()
        end = await self._as_user.run(command.account, message, letter, job.waits)
        return outcome_of_end(end, command.text)

    async def _mbox_as(
        self, job: Job, account: str, mailbox: Mailbox, who: str, letter: Prepared, own_tree: bool = True
    ) -> None:
        message = {
            "do": "mbox",
            "path": mailbox.path,
            "sender": who,
            "now": self._clock.seconds(),
            "tree": (mailbox.home or self._settings.tree) if own_tree else "",
            "quote": self._settings.escape_from,
        }
        await self._as_user.store(account, message, letter, partial(job.unlocked, self._clock))

    async def _together(self, place: Place, letters: Sequence[Whole]) -> list[Exception | None]:
        """Append letters to an mbox under one lock."""
        if place.account is None:
            append = partial(append_together, quote=place.quote)
            return await self._in_thread(append, place.path, letters, place.tree)
        message = {"do": "append", "path": place.path, "tree": place.tree, "quote": place.quote}
        return await self._as_user.append(place.account, message, letters)

    async def _deposit(self, job: Job, opened: Callable[[], Deposit], letter: Prepared) -> None:
        """Write a letter that comes in pieces."""
        deposit = await job.unlocked(self._clock, partial(self._in_thread, opened))
        try:
            await self._in_thread(deposit.write, letter.begin)
            if letter.rest is not None:
                async for piece in letter.rest:
                    job.check()
                    await self._in_thread(deposit.write, piece)
            job.check()
            await self._in_thread(deposit.commit)
        except Exception:
            await self._in_thread(deposit.abort)
            raise

    def _maildir(self, mailbox: Mailbox) -> MaildirFile:
        job = self._maildir_job(mailbox)
        return MaildirFile(job["path"], job["now"], job["host"], job["tree"])

    def _maildir_job(self, mailbox: Mailbox) -> dict[str, Any]:
        settings = self._settings
        tree = mailbox.home or settings.tree
        parent, _, name = mailbox.path.rpartition("/")
        if mailbox.home and name.startswith(".") and not within(parent, mailbox.home):
            # A folder of a Maildir outside of the home, which may not be there yet.
            tree = parent
        return {
            "do": "maildir",
            "path": mailbox.path,
            "now": self._clock.seconds(),
            "host": settings.host,
            "tree": tree,
        }


def _who(sender: Address | None) -> str:
    """The sender as the `From ` line tells him."""
    return legible(str(sender)) if sender else ""


def _named(destination: Mailbox | File | Command) -> str:
    match destination:
        case Mailbox(owner=owner):
            return f"mailbox of {owner}"
        case File(path=place):
            return f"file {printable(place)}"
        case Command(account=account):
            return f"command of {account}"


def _refused(error: OSError, what: str) -> Outcome:
    """The outcome of what the system said. Nearly everything can be mended by an operator or the owner."""
    text = f"{what}: {error.strerror}"
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
