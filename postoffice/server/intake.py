"""Intake: how every letter comes in, whichever door it uses.

A door opens an `Incoming` once sender and recipients are agreed, writes the content into it as it
arrives, finishes it, acknowledges it and passes it on to the queue. Intake looks at the header block
only, puts our trace field (and, for mail submitted by our own people, the fields that are missing) in
front of it, and has the letter durably stored before `finish` returns: what is acknowledged after that
cannot be lost.

When things fail: `Refusal` with 452 4.3.1 for a full spool, 451 4.3.0 for one that cannot write, 554
5.4.6 for a letter that has passed too many hosts. Nothing is kept then. RFC 5321 sections 3.7.2, 4.4
and 6.3; RFC 5322 section 3.6.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formataddr

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from postoffice.interfaces import (
    IContent,
    IDirectory,
    IDraft,
    IJournal,
    IQueue,
    ISpool,
    NewLetter,
    SpoolFailed,
    SpoolFull,
)
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.envelope import Claim, Envelope
from postoffice.mail.header import Headers, date, read_headers, received
from postoffice.mail.reply import Refusal, Reply, printable

# The longest header block, in octets; what is longer is no letter a person wrote, and takes long to read.
HEADER_LIMIT = 256 * 1024
_BLANK_LINE = b"\r\n\r\n"

FULL = Reply(452, (3, 1), "Insufficient space to store the message, try again later")
BROKEN = Reply(451, (3, 0), "The message could not be stored, try again later")
TOO_MANY_HOPS = Reply(554, (4, 6), "Too many hops, this message is looping")
HEADER_TOO_LONG = Reply(554, (6, 0), "The header of the message is too long")


@frozen
class IntakeSettings:
    """`host` is our name, `hops` the most Received fields (0: no limit), `minfree` the least octets that
    must stay free on the spool's file system (0: no limit). Local copies of what marked clients send go to
    the folder `forbidden`, where it is set."""

    host: str
    hops: int
    minfree: int
    spool: str
    forbidden: str = ""


class Intake:
    """Begins letters, for the whole service. `free` tells the octets a directory's file system has left."""

    def __init__(
        self,
        spool: ISpool,
        queue: IQueue,
        directory: IDirectory,
        journal: IJournal,
        settings: IntakeSettings,
        clock: IReactorTime,
        free: Callable[[str], int] | None = None,
    ) -> None:
        self.spool = spool
        self.queue = queue
        self.directory = directory
        self.journal = journal
        self.settings = settings
        self.clock = clock
        self._free = free or _free_octets
        self._room_known_until = 0.0
        self._room = 0

    def check_room(self, size: int | None) -> None:
        """Refuse (452) what would leave less than `minfree` on the spool's file system, 451 if it is gone."""
        if not self.settings.minfree:
            return
        now = self.clock.seconds()
        if now >= self._room_known_until:
            try:
                self._room = self._free(self.settings.spool)
            except OSError as error:
                raise Refusal(BROKEN, f"the spool cannot be looked at: {error}") from error
            self._room_known_until = now + 1.0
        if self._room - (size or 0) < self.settings.minfree:
            raise Refusal(FULL, f"{self._room} octets free in {self.settings.spool}, minfree asks for more")

    def begin(self, client: Client, envelope: Envelope, extra: bytes = b"", full_name: str = "") -> Incoming:
        """Open a letter.

        `extra` are header lines (CRLF ended) to go right below our trace field, `full_name` is for a From
        field where one has to be added.
        """
        return Incoming(self, client, envelope, extra, full_name)


class Incoming:
    """A letter that is coming in. `write` until it ends, then `finish`; or `abort` at any time."""

    def __init__(
        self,
        intake: Intake,
        client: Client,
        envelope: Envelope,
        extra: bytes,
        full_name: str,
        letter_id: str | None = None,
    ) -> None:
        self._intake = intake
        self._client = client
        self.envelope = envelope
        self._extra = extra
        self._full_name = full_name
        self._now = intake.clock.seconds()
        self.id = intake.spool.new_id() if letter_id is None else letter_id
        self._draft: IDraft | None = intake.spool.draft()
        self._head: bytearray | None = bytearray()
        self._look_at = 0
        self._international = False
        self._refusal: Refusal | None = None
        self._claimed: tuple[Claim, IContent] | None = None
        self._dues: set[float] = set()
        self._held_for = ""
        self.size = 0

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Take a piece of content; an awaitable means: wait before the next. Never raises: `finish` does."""
        if self._refusal is not None or self._draft is None:
            return None
        if self._head is None:
            return self._store(data)
        if not self._head and (headers := read_headers(data, final=False)):
            # The rule, and then what came with the header need not be copied.
            self._head = None
            return self._begin_content(headers, data)
        self._head += data
        size = len(self._head)
        if size < self._look_at and self._head.find(_BLANK_LINE, max(0, size - len(data) - 3)) < 0:
            return None
        head = bytes(self._head)
        headers = read_headers(head, final=False)
        if headers is None:
            if size > HEADER_LIMIT:
                self._refuse(Refusal(HEADER_TOO_LONG))
            # Looking at every piece would cost the square of the length where the pieces are small.
            self._look_at = min(2 * size, HEADER_LIMIT + 1)
            return None
        self._head = None
        return self._begin_content(headers, head)

    def check(self) -> None:
        """Raise the `Refusal` that `finish` would raise already."""
        if self._refusal is not None:
            raise self._refusal

    async def finish(self) -> str:
        """Store the letter durably; its queue id. `pass_on` comes next. Errors: `Refusal`."""
        if self._head is not None and self._refusal is None:
            head, self._head = bytes(self._head), None
            headers = read_headers(head, final=True)
            assert headers is not None
            waiting = self._begin_content(headers, head)
            if waiting is not None:
                await waiting
        self.check()
        try:
            await self._commit()
        except SpoolFull as error:
            raise Refusal(FULL, str(error)) from error
        except SpoolFailed as error:
            raise Refusal(BROKEN, str(error)) from error
        return self.id

    def pass_on(self) -> None:
        """Hand what was stored to the queue, which may begin with it before this returns."""
        queue, claimed = self._intake.queue, self._claimed
        self._claimed, taken = None, 0
        if claimed is not None:
            queue.take(*claimed)
            taken = len(claimed[0].recipients)
        if taken < len(self.envelope.recipients):
            # What was due at once is in the claim, so it is the later time that counts.
            queue.wake(max(self._dues) if taken else min(self._dues))

    def abort(self) -> None:
        """Forget the letter. Harmless after it was stored."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.discard()

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.abort()

    def _store(self, data: bytes) -> Awaitable[None] | None:
        assert self._draft is not None
        self.size += len(data)
        waiting = self._draft.write(data)
        return None if waiting is None else self._stored(waiting)

    async def _stored(self, waiting: Deferred[None]) -> None:
        try:
            await waiting
        except SpoolFull as error:
            self._refuse(Refusal(FULL, str(error)))
        except SpoolFailed as error:
            self._refuse(Refusal(BROKEN, str(error)))

    def _begin_content(self, headers: Headers, head: bytes) -> Awaitable[None] | None:
        """The header block is known: put our lines in front of it."""
        hops = self._intake.settings.hops
        if hops and headers.count(b"received") > hops:
            self._refuse(Refusal(TOO_MANY_HOPS))
            return None
        self._international = self._is_international(headers)
        lines = [
            received(self._client, self._intake.settings.host, self.id, self.envelope, self._now),
            self._extra,
            self._marks(),
            self._missing(headers.names()) if self._client.may_relay else b"",
        ]
        return self._place(lines, headers, head)

    def _place(self, lines: list[bytes], headers: Headers, head: bytes) -> Awaitable[None] | None:
        """Store our lines, and what has come of the content so far below them."""
        if headers.separated:
            return self._store(b"".join((*lines, head)))
        # A body must not be read as part of our header, so the empty line that is missing is added.
        rest = head[len(headers.block) :]
        return self._store(b"".join((*lines, headers.block, b"\r\n", rest)))

    def _is_international(self, headers: Headers) -> bool:
        """Whether a letter that was declared to be so is one that only hosts with SMTPUTF8 can take."""
        envelope = self.envelope
        return envelope.smtputf8 and (
            not headers.block.isascii()
            or (envelope.sender is not None and envelope.sender.international)
            or any(address.international for address in envelope.recipients)
        )

    def _marks(self) -> bytes:
        """Why policy would rather have refused the client, in front of any mark the letter came with."""
        reason = self._client.marked
        return f"X-Spam: {printable(reason, 400)}\r\n".encode("ascii") if reason else b""

    def _missing(self, names: list[bytes]) -> bytes:
        """Date, Message-ID and From for mail of our own people that has none (RFC 6409 section 8)."""
        host = self._intake.settings.host
        lines = []
        if b"date" not in names:
            lines.append(f"Date: {date(int(self._now))}\r\n")
        if b"message-id" not in names:
            lines.append(f"Message-ID: <{self.id}.{int(self._now)}@{host}>\r\n")
        if b"from" not in names:
            sender = self.envelope.sender
            who = f"MAILER-DAEMON@{host}" if sender is None else str(sender)
            who = who if "@" in who else f"{who}@{host}"
            name = " ".join(self._full_name.split())
            plain = not name.isprintable() or not who.isascii()
            lines.append(f"From: {who if plain else formataddr((name, who))}\r\n")
        return "".join(lines).encode("utf-8", "replace")

    async def _commit(self) -> None:
        intake, draft = self._intake, self._draft
        assert draft is not None
        queue = intake.queue
        envelope = self.envelope
        new = NewLetter(
            sender=envelope.sender,
            recipients=await self._first_due(envelope.recipients),
            body=envelope.body,
            received=self._now,
            client=str(self._client),
            id=self.id,
            smtputf8=self._international,
            ret=envelope.ret,
            envid=envelope.envid,
            folder=envelope.folder or (intake.settings.forbidden if self._client.marked else ""),
            requests=envelope.requests,
            held_for=self._held_for,
        )
        self._claimed = await draft.commit(new, queue.has_room())
        self._draft = None
        self._dues = {when for _, when in new.recipients}
        intake.journal.accepted(self.id, envelope, self.size, self._client)

    async def _first_due(self, recipients: Sequence[Address]) -> tuple[tuple[Address, float], ...]:
        """Each recipient with the time at which it is to be tried first."""
        queue, directory = self._intake.queue, self._intake.directory
        here = queue.first_due(True)
        if queue.immediate:
            return tuple((address, here) for address in recipients)
        elsewhere = queue.first_due(False)
        found: list[tuple[Address, float]] = []
        for address in recipients:
            try:
                local = await directory.is_local(address.domain)
            except Refusal:
                # It is looked up again when it is tried.
                local = True
            found.append((address, here if local else elsewhere))
        return tuple(found)


def _free_octets(directory: str) -> int:
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize
