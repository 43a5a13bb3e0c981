"""What writing to mboxes and Maildirs has in common. Blocking; standard library only.

A deposit is one letter on its way into a mailbox: nothing of it counts before `commit` returned,
and after `abort` the mailbox is as it was. The header comes first, everything in CRLF form.

Errors: `OSError` as the system says it, and the two exceptions below.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol


class MailboxBusy(Exception):
    """Somebody else holds the lock of the mailbox. Worth another try in a moment; nothing was changed."""


class UnsafeMailbox(Exception):
    """The mailbox is not what a mailbox must be, as the text says; nothing was written to it."""


class Deposit(Protocol):
    """One letter on its way into a mailbox."""

    def write(self, data: bytes) -> None:
        """Append a piece of the letter."""

    def commit(self) -> None:
        """Make it part of the mailbox, durably."""

    def abort(self) -> None:
        """Leave the mailbox as it was. Harmless after `commit` and after an earlier `abort`."""


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however small the portions the system takes."""
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def still_named(path: str, status: os.stat_result) -> os.stat_result | None:
    """What `path` is now, if it is the file that `status` is of."""
    # Who takes a name away has the directory locked, and takes it from the count of names before it is gone.
    # This waits until it is gone; of a file it changes nothing.
    with suppress(OSError):
        os.rmdir(path)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return None
    return there if os.path.samestat(there, status) else None


def kept_its_name(path: str, descriptor: int, status: os.stat_result) -> bool:
    """Whether a file had the name all the time by which it was opened. Asked behind `still_named`.

    A name that is gone again, and was another one's before, has changed the time of the last change, which
    is no finer than some clocks; and the kernel knows that the name it was opened by is gone.
    """
    if os.fstat(descriptor).st_ctime_ns != status.st_ctime_ns:
        return False
    try:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return True
    return os.path.basename(name) == os.path.basename(path)


def sync_directory(path: str) -> None:
    """Make names that were made, moved or removed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: str, tree: str) -> None:
    """Make a private directory, durably; missing parents too where it lies in `tree` (absolute, or "")."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        # Another delivery may have made it a moment ago, and not have synced it yet.
        with suppress(PermissionError):
            sync_directory(os.path.dirname(path))
        return
    except FileNotFoundError:
        if not within(path, tree):
            raise
        make_directory(os.path.dirname(path), os.path.dirname(path))
        make_directory(path, "")
        return
    sync_directory(os.path.dirname(path))


def within(path: str, tree: str) -> bool:
    """Whether a path is that directory or lies below it, by its text."""
    return bool(tree) and (path == tree or path.startswith(f"{tree}/"))
