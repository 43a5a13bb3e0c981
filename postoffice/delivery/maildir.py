"""Writing a letter into a Maildir. Blocking; standard library only.

Called by `postoffice.delivery.local` in a thread. The letter is written under a new name in
`tmp/`, synced, moved to `new/`, and that directory is synced: a letter in `new/` is always whole,
and stays there after `commit` returned. A missing Maildir is made, with mode 0700.

A Maildir with a quota (`postoffice.delivery.quota`) takes no letter beyond it, and the names of its letters
tell their sizes.

Errors: `OSError`; nothing is left behind in `tmp/` then. A crash may leave a file there, which
readers of Maildirs remove after 36 hours.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from postoffice.delivery.files import make_directory, sync_directory, write_all
from postoffice.delivery.lines import LineWriter
from postoffice.delivery.quota import quota_of

_counter = itertools.count()
_PROCESS = os.urandom(6).hex()
_FOREIGN = re.compile(r"[^A-Za-z0-9.-]")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class MaildirFile:
    """A `Deposit` into the Maildir at `path`.

    `now` is in epoch seconds, `host` is our name; `tree` is the directory below which missing parents
    may be made, or "".
    """

    def __init__(self, path: str, now: float, host: str, tree: str) -> None:
        self._path = path
        self._name = unique_name(now, host)
        self._place = f"{path}/tmp/{self._name}"
        self._lines = LineWriter(quote=False)
        try:
            self._descriptor = os.open(self._place, _FLAGS, 0o600)
        except FileNotFoundError:
            make_maildir(path, tree)
            self._descriptor = os.open(self._place, _FLAGS, 0o600)

    def write(self, data: bytes) -> None:
        write_all(self._descriptor, self._lines.feed(data))

    def commit(self) -> None:
        sync_directory(self.move())
        self._place = ""

    def start_sync(self) -> None:
        """Have the system begin to write what it holds back, without waiting for it."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def move(self) -> str:
        """Sync the letter and move it to `new/`; the directory that is still to be synced."""
        rest = self._lines.finish()
        if rest:
            write_all(self._descriptor, rest)
        os.fsync(self._descriptor)
        new = f"{self._path}/new"
        quota = quota_of(self._path)
        if quota is None:
            self._close()
            self._rename(f"{new}/{self._name}")
            return new
        try:
            size = os.fstat(self._descriptor).st_size
            self._close()
            quota.admit(size, self._name)
            try:
                self._rename(f"{new}/{self._name},S={size}")
            except OSError:
                quota.give_back(size)
                raise
        finally:
            quota.close()
        return new

    def _rename(self, place: str) -> None:
        os.rename(self._place, place)
        self._place = place

    def abort(self) -> None:
        self._close()
        if self._place:
            with suppress(FileNotFoundError):
                os.unlink(self._place)
            self._place = ""

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def put_together(letters: Sequence[tuple[Callable[[], MaildirFile], bytes]]) -> list[Exception | None]:
    """Deposit several whole letters step by step, so that they share the disk's work.

    A step that fails ends only the letter it was for; what went wrong with each letter, None if nothing.
    """
    errors: list[Exception | None] = [None] * len(letters)
    written: dict[int, MaildirFile] = {}
    for at, (opened, letter) in enumerate(letters):
        try:
            deposit = opened()
            written[at] = deposit
            deposit.write(letter)
            deposit.start_sync()
        except Exception as error:
            errors[at] = error
    moved: dict[str, list[int]] = {}
    for at, deposit in written.items():
        if errors[at] is None:
            try:
                moved.setdefault(deposit.move(), []).append(at)
            except Exception as error:
                errors[at] = error
    for directory, members in moved.items():
        try:
            sync_directory(directory)
        except OSError as error:
            errors = [error if at in members else earlier for at, earlier in enumerate(errors)]
    for at, deposit in written.items():
        if errors[at] is not None:
            # One that cannot be removed must not make the others count as failed: they would come twice.
            with suppress(OSError):
                deposit.abort()
    return errors


def unique_name(now: float, host: str) -> str:
    """A file name that no other delivery uses; `now` is in epoch seconds.

    The random digits tell apart processes of the same number in different containers.
    """
    seconds, micro = divmod(int(now * 1e6), 1_000_000)
    delivery = f"M{micro}P{os.getpid()}Q{next(_counter)}R{_PROCESS}"
    return f"{seconds}.{delivery}.{_FOREIGN.sub('_', host)[:64]}"


def make_maildir(path: str, tree: str) -> None:
    """Make what is missing of a Maildir, durably."""
    make_directory(path, tree)
    # The one a delivery begins in comes last: where it is, the others are, for other threads too.
    for part in ("new", "cur", "tmp"):
        make_directory(f"{path}/{part}", "")
