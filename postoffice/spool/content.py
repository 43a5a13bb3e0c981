"""Drafts and contents: how letters get onto the disk and off it without being held in memory.

A draft up to the cut-off stays in memory and becomes a row of the transaction that makes it a
letter. A longer one is written to a file as it comes, by worker threads; the file is synced when
the draft is committed, and only then does the writer sync its directory and refer to it in a row
(docs/notes/spool-contents.md has the figures behind this). Nothing that fails leaves a letter: a
file that no row names is removed at once, or after a crash at the next start.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import AsyncIterator
from functools import partial
from io import FileIO

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from postoffice.interfaces import IContent, SpoolFailed, SpoolFull
from postoffice.spool.workers import Workers

PIECE = 256 * 1024
"""The most that is read at a time."""

ROOM = 512 * 1024
"""The most that waits to be written before the sender must."""

BATCH = 256 * 1024
"""What is written at a time."""

_STEP = 4096

_MOST_PARTS = 1024
"""What the kernel takes with one call (IOV_MAX)."""


def checksum(data: bytes) -> int:
    """The CRC-32 of content in a row."""
    view, value = memoryview(data), 0
    # For more at a time zlib lets go of the interpreter lock, and waits for it longer than it takes to count.
    for at in range(0, len(data), _STEP):
        value = zlib.crc32(view[at : at + _STEP], value)
    return value


def trouble(error: BaseException) -> SpoolFull | SpoolFailed:
    """What an error of the operating system means to the stage that asked."""
    if isinstance(error, SpoolFull | SpoolFailed):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFull(str(error))
    return SpoolFailed(f"{type(error).__name__}: {error}")


@implementer(IContent)
class HeldContent:
    """Content in memory."""

    __slots__ = ("held", "size")

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.held: bytes | None = data

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield it in pieces."""
        data = self.held
        assert data is not None
        if len(data) <= PIECE:
            if data:
                yield data
            return
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]


@implementer(IContent)
class FileContent:
    """Content in a file, read by a worker thread. The file may go while it is read; it stays readable."""

    __slots__ = ("_path", "_workers", "held", "size")

    def __init__(self, path: str, size: int, workers: Workers) -> None:
        self._path = path
        self._workers = workers
        self.size = size
        self.held: bytes | None = None

    def _open(self) -> tuple[FileIO, bytes]:
        # A file object, because it is closed with the last reference however the reader ends.
        file = FileIO(self._path, opener=_no_links)
        return file, file.read(PIECE)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the file in pieces. Errors: `SpoolFailed`, also when it is not as long as it was."""
        read = 0
        try:
            file, piece = await self._workers.call(self._open)
            while piece and read + len(piece) <= self.size:
                read += len(piece)
                yield piece
                piece = await self._workers.call(lambda: file.read(PIECE)) if read < self.size else b""
            file.close()
        except OSError as error:
            raise SpoolFailed(str(error)) from error
        if read != self.size or piece:
            raise SpoolFailed(f"{self._path} is not {self.size} octets long any more")


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


class Outgoing:
    """A content file while it is written: one piece of work at a time, in order.

    After an error the file is gone, and everything asked of it later fails with the same error.
    """

    def __init__(self, path: str, workers: Workers) -> None:
        self.path = path
        self._workers = workers
        # An object, so that it is closed with the last reference when the spool is closed under a draft.
        self._file: FileIO | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        self._busy = False
        self._last = False
        self._error: SpoolFull | SpoolFailed | None = None
        self._abandoned = False
        self._room: list[Deferred[None]] = []
        self._done: Deferred[None] | None = None
        self._flushed: Deferred[None] | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take data; the Deferred fires when there is room for more."""
        if self._error is not None:
            return fail(self._error)
        self._waiting.append(data)
        self._size += len(data)
        if not self._busy and self._size >= BATCH:
            self._start()
        if self._size < ROOM:
            return None
        room: Deferred[None] = Deferred()
        self._room.append(room)
        return room

    def finish(self) -> Deferred[None]:
        """Write the rest; the Deferred fires when the file (not yet its directory) was synced."""
        if self._error is not None:
            return fail(self._error)
        self._last = True
        self._done = Deferred()
        done = self._done
        if not self._busy:
            self._start()
        return done

    def flush(self) -> Deferred[None]:
        """The Deferred fires when everything taken so far can be read in the file."""
        if self._error is not None:
            return fail(self._error)
        self._flushed = Deferred()
        flushed = self._flushed
        if not self._busy:
            self._start()
        return flushed

    def abandon(self) -> None:
        """Remove the file, as soon as nothing writes to it any more. Harmless when that was done."""
        if not self._abandoned:
            self._abandoned = True
            if not self._busy:
                self._workers.submit(self._remove, _ignore)

    def _start(self) -> None:
        data, self._waiting, self._size = self._waiting, [], 0
        self._busy = True
        last = self._last
        self._workers.submit(partial(self._work, data, last), partial(self._ended, last))

    def _work(self, data: list[bytes], last: bool) -> None:
        """Write some of it; in a worker thread."""
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = FileIO(os.open(self.path, flags, 0o600), "wb")
        descriptor = self._file.fileno()
        _write_all(descriptor, data)
        if last:
            # The mode is set again because a umask may have taken from it.
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _remove(self) -> None:
        self._close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass

    def _ended(self, last: bool, _: object, error: BaseException | None) -> None:
        """Work was done, or failed; in the reactor."""
        self._busy = False
        finished = last and error is None
        room, self._room = self._room, []
        if error is not None:
            self._error = trouble(error)
            self._abandoned = True
        if self._abandoned:
            self._waiting.clear()
            self._workers.submit(self._remove, _ignore)
            self._error = self._error or SpoolFailed("the draft was discarded")
        elif not finished and (
            self._done is not None or self._size >= BATCH or (self._flushed is not None and self._waiting)
        ):
            self._start()
        for waiter in room:
            waiter.callback(None) if self._error is None else waiter.errback(self._error)
        if self._flushed is not None and not (self._busy and self._error is None):
            flushed, self._flushed = self._flushed, None
            flushed.callback(None) if self._error is None else flushed.errback(self._error)
        if self._done is not None and (finished or self._error is not None):
            done, self._done = self._done, None
            done.callback(None) if self._error is None else done.errback(self._error)


def _write_all(descriptor: int, parts: list[bytes]) -> None:
    """One call for all parts, where the disk takes them: each costs a wait for the interpreter lock."""
    size = sum(map(len, parts))
    written = os.writev(descriptor, parts) if len(parts) <= _MOST_PARTS else 0
    if written < size:
        view = memoryview(b"".join(parts))[written:]
        while view:
            view = view[os.write(descriptor, view) :]


def _ignore(_: object, __: BaseException | None) -> None:
    """A file that could not be removed is removed at the next start."""
