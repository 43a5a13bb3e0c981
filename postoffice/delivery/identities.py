"""The service's side of the helper: children that are users, asked to do jobs, and never waited for.

Made by the service; used by delivery to mailboxes, files and commands, for files in users' homes, and for
passwords. A child is asked for when there is a job for its account, does many jobs, and is let go when it has
had none for a while; a command has one of its own, and so has the check of a password. How many jobs are
under way at once is bounded, for all and for each account, whose home or commands may take their time: the
others wait here.

When things fail: `Lost` where a helper or a child ended before it answered, or took too long (try again
later), `NotAllowed` where the helper will not have anything done as that account. A helper that ends is
started again by its supervisor, and told as a warning.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from postoffice.delivery.files import MailboxBusy, UnsafeMailbox
from postoffice.delivery.helper import packets
from postoffice.delivery.packet_link import PacketLink
from postoffice.home_file import Unsafe
from postoffice.interfaces import IHomes

# Jobs of each kind at once: of all accounts, and of each.
AT_ONCE = {
    "files": (128, 32),
    "places": (64, 16),
    "command": (40, 10),
    "check": (20, 20),
    "shadow": (4, 4),
    "pam": (16, 4),
}
# Purposes of children that do one job.
FRESH = frozenset({"command", "shadow", "pam"})
# Children of one account, and of all together, where some have nothing to do.
WIDTH = 2
MOST = 100
# Seconds: how long a child may have nothing to do, how long a job may take, and how long the last ones at a
# stop.
IDLE = 5.0
TIMEOUT = 300.0
LAST = 3.0


class Lost(Exception):
    """Who was asked is gone; whether the job was done is not known."""


class NotAllowed(Exception):
    """Nothing is done as that account; `never` where that will not change by itself or by an operator.

    It may be by a `rule` about accounts, or because something went wrong.
    """

    def __init__(self, text: str, never: bool, rule: bool = True) -> None:
        super().__init__(text)
        self.never = never
        self.rule = rule


@define(eq=False)
class _Job:
    """A job that is not answered."""

    done: Deferred[tuple[dict[str, Any], bytes]]
    overdue: IDelayedCall | None

    def end(self) -> Deferred[tuple[dict[str, Any], bytes]]:
        """Nothing is waited for any more; who waits for the answer."""
        if self.overdue is not None and self.overdue.active():
            self.overdue.cancel()
        return self.done


class Helping(Protocol):
    """Who finds a child. See `postoffice.delivery.helper_process`."""

    def request(self, account: str, purpose: str, connection: int) -> None:
        """Hand a copy of one end of a socket pair to somebody who becomes the account. Errors: `OSError`."""

    async def stop(self) -> None:
        """Let the helper end."""


@define(eq=False)
class _Child:
    """A process that is an account. `since` is when it last had something to do."""

    key: tuple[str, str]
    link: PacketLink = field(init=False)
    jobs: dict[int, _Job] = field(factory=dict)
    since: float = 0.0
    refusal: NotAllowed | None = None
    gone: bool = False


class Identities:
    """`helper` gets a new socket pair's other end to somebody who becomes the account.

    Mboxes of users lie in `mail_folder`, if anywhere; only letters for these have to do with its group.
    """

    def __init__(self, reactor: Any, helper: Helping, mail_folder: str = "") -> None:
        self._reactor = reactor
        self._helper = helper
        self._mail_folder = mail_folder
        self._children: dict[tuple[str, str], list[_Child]] = {}
        # Those with nothing to do, who had it longest first.
        self._resting: dict[_Child, None] = {}
        self._count = 0
        self._stopped = False
        self._room = {kind: DeferredSemaphore(most) for kind, (most, _) in AT_ONCE.items()}
        self._shares: dict[tuple[str, str], DeferredSemaphore] = {}
        self._under_way = 0
        self._number = 0
        self._sweeper: IDelayedCall | None = None
        self._idle: Deferred[None] | None = None

    async def store(self, account: str, message: dict[str, Any], letter: int) -> None:
        """Have a letter stored. Errors also: `MailboxBusy`, `UnsafeMailbox`, `OSError`."""
        key = (account, self._purpose(account, message["path"]))
        answer, _ = await self._ask(key, message, letter, TIMEOUT)
        wrong = _wrong(answer)
        if wrong is not None:
            raise wrong

    async def append(self, account: str, message: dict[str, Any], letters: int) -> list[Exception | None]:
        """Have letters appended to an mbox together; what went wrong with each, as `store` raises it."""
        key = (account, self._purpose(account, message["path"]))
        answer, _ = await self._ask(key, message, letters, TIMEOUT)
        wrong = _wrong(answer)
        if wrong is not None:
            raise wrong
        return [_wrong(told) for told in answer["letters"]]

    async def run(
        self,
        account: str,
        message: dict[str, Any],
        letter: int,
        begun: Callable[[Deferred[Any]], None],
        kind: str = "command",
    ) -> dict[str, Any]:
        """Have a command run; how it ended. Cancelling what `begun` is given kills it. Errors: as above.

        One of the kind `check` does not wait for those that users have run.
        """
        timeout = message["timeout"]
        patience = timeout + LAST if timeout else 0.0
        answer, _ = await self._ask((account, "command"), message, letter, patience, begun, kind)
        if "unsafe" in answer:
            raise NotAllowed(answer["unsafe"], never=True)
        _raise_error(answer)
        return answer

    async def read(self, account: str, name: str) -> bytes | None:
        """What a file in an account's home says. Errors also: `Unsafe`, `OSError`."""
        answer, content = await self._ask((account, "files"), {"do": "read", "name": name}, -1, TIMEOUT)
        if "unsafe" in answer:
            raise Unsafe(answer["unsafe"])
        _raise_error(answer)
        return content if answer["found"] else None

    async def check(self, account: str, purpose: str, name: str, password: int) -> bool:
        """Have the password of an account, in a file, checked by a child that is `account`.

        Errors also: `OSError` where that could not be found out.
        """
        answer, _ = await self._ask((account, purpose), {"do": "password", "name": name}, password, TIMEOUT)
        if "trouble" in answer:
            raise OSError(errno.EIO, answer["trouble"])
        return answer["right"] is True

    async def stop(self) -> None:
        """Wait a little for what is under way, then let everybody go, the helper last."""
        if self._under_way:
            self._idle = Deferred()
            late = self._reactor.callLater(LAST, self._abandon)
            await self._idle
            if late.active():
                late.cancel()
        self._abandon()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self._helper.stop()

    def _purpose(self, account: str, path: str) -> str:
        """What a child is for that stores a letter at `path`.

        A place that the account chose, by its words or by links on the way, must not be written to with the
        group of the mail folder: other users' mailboxes could be made there.
        """
        folder, _, name = path.rpartition("/")
        own = folder == self._mail_folder and (name == account or name.startswith(f"{account}:"))
        return "files" if own or not self._mail_folder else "places"

    async def _ask(
        self,
        key: tuple[str, str],
        message: dict[str, Any],
        letter: int,
        patience: float,
        begun: Callable[[Deferred[Any]], None] | None = None,
        kind: str = "",
    ) -> tuple[dict[str, Any], bytes]:
        kind = kind or key[1]
        room = self._room[kind]
        share = self._shares.get((key[0], kind))
        if share is None:
            share = self._shares[key[0], kind] = DeferredSemaphore(AT_ONCE[kind][1])
        self._under_way += 1
        try:
            await share.acquire()
            try:
                await room.acquire()
                try:
                    return await self._asked(key, message, letter, patience, begun)
                finally:
                    room.release()
            finally:
                share.release()
                if share.tokens == share.limit:
                    self._shares.pop((key[0], kind), None)
        finally:
            self._under_way -= 1
            if self._idle is not None and not self._under_way and not self._idle.called:
                self._idle.callback(None)

    async def _asked(
        self,
        key: tuple[str, str],
        message: dict[str, Any],
        letter: int,
        patience: float,
        begun: Callable[[Deferred[Any]], None] | None,
    ) -> tuple[dict[str, Any], bytes]:
        """Ask now, since there is room."""
        if self._stopped:
            raise Lost("the service is stopping")
        child = self._child(key)
        self._number += 1
        number = self._number
        done: Deferred[tuple[dict[str, Any], bytes]] = Deferred(lambda _: self._gone(child))
        overdue = self._reactor.callLater(patience, self._gone, child) if patience else None
        self._resting.pop(child, None)
        child.jobs[number] = _Job(done, overdue)
        if begun is not None:
            begun(done)
        child.link.send({**message, "id": number}, letter)
        return await done

    def _child(self, key: tuple[str, str]) -> _Child:
        """The child for a job: one that has room, or a new one. Errors: `Lost`."""
        children = self._children.get(key, [])
        if key[1] not in FRESH and children:
            least = min(children, key=lambda child: len(child.jobs))
            if not least.jobs or len(children) >= WIDTH:
                return least
        if self._count >= MOST and self._resting:
            self._gone(next(iter(self._resting)))
        child = _Child(key)
        ours, theirs = packets.pair()
        with theirs:
            try:
                self._helper.request(key[0], key[1], theirs.fileno())
            except OSError as error:
                ours.close()
                raise Lost(f"the helper cannot be asked: {error.strerror}") from None
        child.link = PacketLink(
            self._reactor,
            ours,
            lambda answer, file: self._answered(child, answer, file),
            lambda: self._gone(child),
        )
        self._children.setdefault(key, []).append(child)
        self._count += 1
        if self._sweeper is None:
            self._sweeper = self._reactor.callLater(IDLE, self._sweep)
        return child

    def _answered(self, child: _Child, answer: dict[str, Any], file: int) -> None:
        content = b""
        if file >= 0:
            content = b"".join(packets.pieces(file))
            os.close(file)
        if "refused" in answer:
            child.refusal = NotAllowed(answer["refused"], answer["never"], answer["rule"])
            self._gone(child)
            return
        job = child.jobs.pop(answer["id"], None)
        if job is None:
            return
        done = job.end()
        if child.key[1] in FRESH:
            self._gone(child)
        elif not child.jobs:
            child.since = self._reactor.seconds()
            self._resting[child] = None
        done.callback((answer, content))

    def _gone(self, child: _Child) -> None:
        """A child is no more, or no more wanted: what it did not answer is lost."""
        if child.gone:
            return
        child.gone = True
        child.link.close()
        self._count -= 1
        self._resting.pop(child, None)
        children = self._children[child.key]
        children.remove(child)
        if not children:
            del self._children[child.key]
        jobs = list(child.jobs.values())
        child.jobs.clear()
        for job in jobs:
            done = job.end()
            if not done.called:
                done.errback(child.refusal or Lost(f"the process that was {child.key[0]} ended"))

    def _sweep(self) -> None:
        """Let go of children that had nothing to do for a while."""
        self._sweeper = None
        now = self._reactor.seconds()
        for child in [child for child in self._resting if now - child.since >= IDLE]:
            self._gone(child)
        if self._children:
            self._sweeper = self._reactor.callLater(IDLE, self._sweep)

    def _abandon(self) -> None:
        self._stopped = True
        for child in [child for children in self._children.values() for child in children]:
            self._gone(child)


@implementer(IHomes)
class HelpedHomes:
    """Files in the homes of all accounts, read by children that are these."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    async def read(self, account: str, name: str) -> bytes | None:
        try:
            return await self._identities.read(account, name)
        except Lost as error:
            raise OSError(os.EX_TEMPFAIL, str(error)) from None
        except NotAllowed as error:
            raise Unsafe(str(error)) from None


def _wrong(answer: dict[str, Any]) -> Exception | None:
    """What a child says went wrong with a letter; None where it was stored."""
    if "busy" in answer:
        return MailboxBusy()
    if "unsafe" in answer:
        return UnsafeMailbox(answer["unsafe"])
    if "errno" in answer:
        return OSError(answer["errno"], os.strerror(answer["errno"]))
    return None


def _raise_error(answer: dict[str, Any]) -> None:
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
