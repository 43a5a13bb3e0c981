"""The embedded spool: `ISpool` on one SQLite database and a folder of large contents.

Made by the service, used by intake, queue and the local socket. A letter is acknowledged when the
commit that holds all of it was synced (`writer` has the order of operations); after a crash at any
instant it is there whole. When the disk is full nothing of the letter is kept and the caller gets
`SpoolFull`; the next letter tries again. A damaged database is named and left as it is.

`SqliteSpool` only builds objects; thread, lock and files come with `open`. One service of a node's
name may use a directory at a time; services of different names may share it. While none runs, commands
open it by `enter` or, to read only, by `browse`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import apsw
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from zope.interface import implementer

from postoffice.interfaces import IContent, IDraft, ISpool, NewLetter, SpoolDamaged, SpoolFailed
from postoffice.mail.address import Address
from postoffice.mail.envelope import Claim, Entry, Replacement, Settlement
from postoffice.spool import names, schema
from postoffice.spool.content import FileContent, HeldContent, Outgoing, trouble
from postoffice.spool.expansion import expand
from postoffice.spool.home import Home
from postoffice.spool.reader import Reader
from postoffice.spool.store import Place, Store
from postoffice.spool.work import Call, Insert, Settle
from postoffice.spool.workers import Clockwork, Workers
from postoffice.spool.writer import Writer

CUTOFF = 96 * 1024
"""Octets up to which content is a row; longer ones are files. See docs/notes/spool-contents.md."""

PATIENCE = 10.0
"""Seconds a service waits for a command that works on the spool, or for the service before it to end."""


@implementer(IDraft)
class Draft:
    """A letter that is coming in: in memory up to the cut-off, then in a file."""

    __slots__ = ("_file", "_parts", "_size", "_spool")

    def __init__(self, spool: SqliteSpool) -> None:
        self._spool = spool
        self._parts: list[bytes] | None = []
        self._size = 0
        self._file: tuple[str, Outgoing] | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append content; wait for the Deferred, where there is one."""
        if self._parts is None:
            raise RuntimeError("the draft was committed or discarded")
        self._size += len(data)
        if self._file is None:
            self._parts.append(bytes(data))
            if self._size <= self._spool.cutoff:
                return None
            data = b"".join(self._parts)
            self._parts = []
            self._file = self._spool.outgoing()
        return self._file[1].write(bytes(data))

    def written(self) -> Deferred[IContent]:
        """What was written so far."""
        if self._parts is None:
            raise RuntimeError("the draft was committed or discarded")
        if self._file is not None:
            return ensureDeferred(self._flushed(*self._file))
        data = b"".join(self._parts)
        self._parts = [data]
        return succeed(HeldContent(data))

    async def _flushed(self, name: str, file: Outgoing) -> IContent:
        size = self._size
        await file.flush()
        return self._spool.file(name, size)

    def commit(self, new: NewLetter, claim: bool) -> Deferred[tuple[Claim, IContent] | None]:
        """Make it a letter."""
        if self._parts is None:
            raise RuntimeError("the draft was committed or discarded")
        parts, self._parts = self._parts, None
        if self._file is None:
            return self._spool.insert(new, claim, parts[0] if len(parts) == 1 else b"".join(parts))
        return ensureDeferred(self._commit_file(new, claim, *self._file))

    async def _commit_file(
        self, new: NewLetter, claim: bool, name: str, file: Outgoing
    ) -> tuple[Claim, IContent] | None:
        await file.finish()
        # From here on the file is the writer's: it removes it if the letter cannot be stored.
        return await self._spool.insert(new, claim, (name, self._size))

    def discard(self) -> None:
        """Forget it."""
        if self._parts is not None:
            self._parts = None
            if self._file is not None:
                self._file[1].abandon()


@implementer(ISpool)
class SqliteSpool:
    """The spool in `directory`, for the node `node`, whose claims last `lease` seconds unless renewed.

    `open` waits `patience` seconds for others, and gives the write-ahead log so many octets of `room`.
    """

    def __init__(
        self,
        directory: str,
        reactor: Clockwork,
        node: str = "postoffice",
        lease: float = 300.0,
        random: names.Random = names.SYSTEM,
        cutoff: int = CUTOFF,
        patience: float = PATIENCE,
        room: int = 0,
    ) -> None:
        self.cutoff = cutoff
        self._patience = patience
        self._room = room
        self._random = random
        self._reactor = reactor
        self._home = Home(directory, node)
        self._workers = Workers(reactor)
        self._place = Place(lease, random, reactor.seconds, self.file)
        self._reader = Reader(self._home.database, self.file)
        self._writer: Writer | None = None
        self._readable = False
        # The time that decides which claims are live, as listings see it.
        self._seconds: Callable[[], float] = reactor.seconds

    def file(self, name: str, size: int) -> FileContent:
        """The content in a file of this name and size."""
        return FileContent(self._home.path(name), size, self._workers)

    def open(self) -> Deferred[None]:
        """Open, check and recover. Errors: `SpoolDamaged`; `SpoolFailed` if it cannot be used now."""
        return ensureDeferred(self._open(lambda: self._home.prepare(self._patience)))

    def enter(self) -> Deferred[None]:
        """Open a spool that is there as `open` does, for a command. Errors: the same; `SpoolInUse`."""
        return ensureDeferred(self._open(self._home.enter))

    def browse(self) -> Deferred[None]:
        """Open a spool that is there and read only, for a command. Errors: as `enter`.

        What is in it stays as it is, its tables included, and a service may begin to use it meanwhile.
        """
        return ensureDeferred(self._browse())

    async def _open(self, enter: Callable[[], None]) -> None:
        writer = Writer(self._reactor, self._home, self._place, self._discard)

        def prepare() -> None:
            enter()
            try:
                writer.open(self._room)
            except BaseException:
                self._home.leave()
                raise

        await self._prepare(prepare)
        writer.start()
        self._writer = writer

    async def _browse(self) -> None:
        await self._prepare(self._home.look)
        # Nobody of our name is alive, so no claim is: what it said of them is void at the next start.
        self._seconds = lambda: math.inf

    async def _prepare(self, prepare: Callable[[], None]) -> None:
        complaint = schema.too_old(apsw.SQLITE_VERSION_NUMBER)
        if complaint is not None:
            raise SpoolFailed(complaint)
        try:
            await self._workers.call(prepare)
        except SpoolDamaged:
            self._workers.stop()
            raise
        except Exception as error:
            self._workers.stop()
            raise trouble(error) from error
        self._readable = True

    def close(self) -> Deferred[None]:
        """Finish what was handed in, then close."""
        return ensureDeferred(self._close())

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if not self._readable:
            return
        self._readable = False
        if writer is not None:
            writer.flush()
            await self._workers.call(writer.stop)
        await self._workers.call(self._reader.close)
        self._workers.stop()
        self._home.leave()

    def _discard(self, files: list[str]) -> None:
        self._workers.submit(lambda: self._home.remove(files), lambda _, __: None)

    def outgoing(self) -> tuple[str, Outgoing]:
        """A fresh content file and its name."""
        name = names.file_name(self._home.node, self._random)
        return name, Outgoing(self._home.path(name), self._workers)

    def insert(
        self, new: NewLetter, claim: bool, content: bytes | tuple[str, int]
    ) -> Deferred[tuple[Claim, IContent] | None]:
        """Store a letter whose content is given, or lies synced in a file: its name and size."""
        deferred: Deferred[tuple[Claim, IContent] | None] = Deferred()
        return self._hand_in(Insert(deferred, new, claim, content))

    def _hand_in(self, work: Insert | Settle | Call) -> Deferred[Any]:
        if self._writer is None:
            return fail(SpoolFailed("the spool is not open"))
        self._writer.put(work)
        return work.deferred

    def _ask(self, function: Callable[[Store], Any]) -> Deferred[Any]:
        return self._hand_in(Call(Deferred(), function))

    def _read(self, function: Callable[[], Any]) -> Deferred[Any]:
        if not self._readable:
            return fail(SpoolFailed("the spool is not open"))
        return ensureDeferred(self._read_checked(function))

    async def _read_checked(self, function: Callable[[], Any]) -> Any:
        try:
            return await self._workers.call(function)
        except (apsw.Error, OSError) as error:
            raise SpoolFailed(f"{self._home.database}: {error}") from error

    def draft(self) -> IDraft:
        """Begin a letter."""
        return Draft(self)

    def new_id(self) -> str:
        """A fresh queue id."""
        return names.queue_id(self._random)

    def claim(self, limit: int) -> Deferred[list[tuple[Claim, IContent]]]:
        """Claim what is due."""
        return self._ask(lambda store: store.claim(limit))

    def renew(self, claims: Sequence[Claim]) -> Deferred[None]:
        """Lengthen leases."""
        return self._ask(lambda store: store.renew(claims))

    def settle(
        self, claim: Claim, settlements: Sequence[Settlement], bounce: tuple[NewLetter, bytes] | None = None
    ) -> Deferred[None]:
        """Record how attempts ended."""
        return self._hand_in(Settle(Deferred(), claim, settlements, bounce))

    def expand(
        self, claim: Claim, replacements: Sequence[Replacement], standing: Sequence[str]
    ) -> Deferred[Claim]:
        """Put copies in the place of recipients."""
        return self._ask(lambda store: expand(store, claim, replacements, standing))

    def next_due(self) -> Deferred[float | None]:
        """The earliest moment at which `claim` will find something."""
        return self._ask(lambda store: store.next_due())

    def entries(self) -> Deferred[list[Entry]]:
        """Every letter, oldest first."""
        return self._read(lambda: self._reader.entries(self._seconds()))

    def content(self, letter_id: str) -> Deferred[IContent | None]:
        """The content of a letter."""
        return self._read(lambda: self._reader.content(letter_id))

    def attempts(self, letter_id: str) -> Deferred[list[tuple[float, Address, str]]]:
        """The attempts kept with a letter."""
        return self._read(lambda: self._reader.attempts(letter_id))

    def requeue(self, letter_id: str | None) -> Deferred[int]:
        """Make waiting recipients due now."""
        return self._ask(lambda store: store.requeue(letter_id))

    def requeue_domain(self, domain: str, below: bool) -> Deferred[int]:
        """Make waiting recipients at a domain due now."""
        return self._ask(lambda store: store.requeue_domain(domain, below))

    def hold(self, letter_id: str) -> Deferred[bool]:
        """Set a letter aside."""
        return self._ask(lambda store: store.set_held(letter_id, True))

    def release(self, letter_id: str) -> Deferred[bool]:
        """End a hold."""
        return self._ask(lambda store: store.set_held(letter_id, False))

    def delete(self, letter_id: str) -> Deferred[bool]:
        """Remove a letter."""
        return self._ask(lambda store: store.delete(letter_id))
