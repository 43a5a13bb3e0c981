"""Appending a letter to an mbox file. Blocking; standard library only.

Called by `postoffice.delivery.local` in a thread, and by a child of the helper. The file is locked by a
dot-lock and by the kernel (an open-file lock, so that threads exclude each other too), checked to be a
regular file of ours with one name only, and made with mode 0600 where it is missing. The letter follows a
`From ` line and is followed by an empty line; the quoting is in `postoffice.delivery.lines`. RFC 4155.

Letters that wait for the same file are appended under one lock and made durable by one sync.

What fails leaves the file as it was: what was appended is cut off again. Only a crash amid a
letter can leave a part of it; the next letter then begins on a line of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from postoffice.delivery.dotlock import DotLock
from postoffice.delivery.files import (
    MailboxBusy,
    UnsafeMailbox,
    kept_its_name,
    make_directory,
    still_named,
    sync_directory,
    within,
    write_all,
)
from postoffice.delivery.lines import LineWriter

_OPEN = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRIES = 5
# struct flock: an exclusive lock on the whole file.
_LOCK = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class MboxFile:
    """A `Deposit` into the mbox at `path`, which stays locked until `commit` or `abort`.

    `sender` is for the `From ` line, "" for the null sender; `now` is in epoch seconds; `tree` is the
    directory below which missing parents may be made, or "". A file that is made is for the group `shared`
    too, where that is given.
    Errors: `MailboxBusy`, `UnsafeMailbox`, `OSError`.
    """

    def __init__(
        self, path: str, sender: str, now: float, tree: str, *, quote: bool, shared: int | None = None
    ) -> None:
        self._path = path
        self._shared = shared
        self._quote = quote
        self._descriptor = -1
        self._made = False
        self._lock = _dotlock(path, now, tree)
        try:
            self._size = self._open()
            # So much of the file are whole letters.
            self._whole = self._size
            self.begin(sender, now)
        except BaseException:
            self._close()
            raise

    def begin(self, sender: str, now: float) -> None:
        """Begin another letter, behind those that have ended."""
        self._lines = LineWriter(quote=self._quote)
        self._first = self._gap() + from_line(sender, now)
        self._last = b""

    def write(self, data: bytes) -> None:
        if not self._first:
            # A large letter takes its time: others must not take our lock for one that is left over.
            self._lock.refresh()
        text = self._first + self._lines.feed(data)
        self._first = b""
        if text:
            write_all(self._descriptor, text)
            self._last = text[-1:]

    def end(self) -> None:
        """End a letter: what becomes of another one is nothing to it."""
        rest = self._lines.finish()
        end = b"\n" if (rest or self._last)[-1:] == b"\n" else b"\n\n"
        write_all(self._descriptor, rest + end)
        self._whole = os.fstat(self._descriptor).st_size

    def cut(self) -> None:
        """Cut off what there is of a letter that has not ended."""
        os.ftruncate(self._descriptor, self._whole)

    def commit(self) -> None:
        self.end()
        self.sync()

    def sync(self) -> None:
        """Make the letters that have ended durable, and let go of the file."""
        os.fsync(self._descriptor)
        if self._made:
            sync_directory(os.path.dirname(self._path))
        self._close()

    def abort(self) -> None:
        if self._descriptor < 0:
            return
        try:
            os.ftruncate(self._descriptor, self._size)
            if self._made:
                with suppress(FileNotFoundError):
                    os.unlink(self._path)
        finally:
            self._close()

    def _open(self) -> int:
        """Open, lock and check the file; its size."""
        for _ in range(_TRIES):
            try:
                self._descriptor = os.open(self._path, _OPEN)
            except FileNotFoundError:
                try:
                    self._descriptor = os.open(self._path, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
                except FileExistsError:
                    continue
                self._made = True
                if self._shared is not None:
                    os.fchown(self._descriptor, -1, self._shared)
                    os.fchmod(self._descriptor, 0o660)
            _lock(self._descriptor)
            status = os.fstat(self._descriptor)
            check_mailbox(status)
            if _is_still_there(self._path, self._descriptor, status):
                return status.st_size
            # A mail program put another file in its place while we waited, or names come and go.
            os.close(self._descriptor)
            self._descriptor = -1
            self._made = False
        raise MailboxBusy

    def _gap(self) -> bytes:
        """What is missing for our `From ` line to follow an empty line."""
        end = os.pread(self._descriptor, 2, max(self._whole - 2, 0)) if self._whole else b"\n\n"
        return b"" if end == b"\n\n" else b"\n" if end.endswith(b"\n") else b"\n\n"

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if descriptor >= 0:
                os.close(descriptor)
        finally:
            self._lock.release()


def append_together(
    path: str,
    letters: Sequence[tuple[str, float, bytes]],
    tree: str,
    *,
    quote: bool,
    shared: int | None = None,
) -> list[Exception | None]:
    """Append several whole letters, each a sender, a time and a text, under one lock and with one sync.

    A letter that cannot be written is cut off, and the others stay; where the file cannot be opened, cut or
    synced they all fail. What went wrong with each letter, None if nothing.
    """
    try:
        box = MboxFile(path, *letters[0][:2], tree, quote=quote, shared=shared)
    except Exception as error:
        return [error] * len(letters)
    errors: list[Exception | None] = [None] * len(letters)
    try:
        for at, (sender, now, letter) in enumerate(letters):
            try:
                if at:
                    box.begin(sender, now)
                box.write(letter)
                box.end()
            except OSError as error:
                errors[at] = error
                box.cut()
        if all(errors):
            box.abort()
        else:
            box.sync()
    except Exception as error:
        errors = [error] * len(letters)
        with suppress(OSError):
            box.abort()
    return errors


def from_line(sender: str, now: float) -> bytes:
    """The line that begins a letter: sender (`<>` for the null sender) and time in UTC.

    Readers take the first blank for the sender's end, so blanks in a quoted local part become `_`.
    """
    who = "_".join(sender.split()) or "<>"
    return f"From {who} {time.asctime(time.gmtime(now))}\n".encode("utf-8", "replace")


def _dotlock(path: str, now: float, tree: str) -> DotLock:
    try:
        return DotLock(path, now)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if not within(directory, tree):
            raise
        make_directory(directory, tree)
        return DotLock(path, now)


def _lock(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise MailboxBusy from None
        raise


def check_mailbox(status: os.stat_result) -> None:
    """Whether this may be an mbox of ours. Errors: `UnsafeMailbox`."""
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeMailbox("it is not a regular file")
    if status.st_nlink > 1:
        raise UnsafeMailbox("the file has several names")
    if status.st_uid != os.geteuid():
        raise UnsafeMailbox("the file belongs to another account")


def _is_still_there(path: str, descriptor: int, status: os.stat_result) -> bool:
    """Whether the open file has that name, and had no other since `status` was read of it."""
    there = still_named(path, status)
    if there is None:
        return False
    # It may have had one name when it was opened, taken away since, and have two now.
    check_mailbox(there)
    return kept_its_name(path, descriptor, status)
