"""The quota of a Maildir, as Maildir++ keeps it in the file `maildirsize`. Blocking; standard library only.

Used when a letter is moved into a Maildir. The first line of the file says what the Maildir may hold
(`100000S` octets, `1000C` letters, or both with a comma between); each further line adds octets and letters,
or takes them away. Where there is no such file, it has a second name (it could be anything then), or its
first line is none of these, there is no quota.
Folders of a Maildir count to it. What the file says is believed until a letter would be too much, or the file
grows long; then the letters are counted, unless that was done a short while ago.

Errors: `OSError`, with EDQUOT where the letter is too much.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from postoffice.delivery.files import kept_its_name, still_named, write_all

_TRIES = 5
LONGEST = 5120
"""A file that is longer, in octets, is written anew."""

RECENT = 900.0
"""Seconds for which a count is believed."""

_OPEN = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LIMIT = re.compile(rb"([0-9]{1,18})([SC])\Z")
_SIZE = re.compile(r",S=([0-9]+)(?=[,:]|\Z)")


class Quota:
    """The quota of the Maildir at `root`, from its open file."""

    def __init__(self, root: str, descriptor: int, limits: dict[bytes, int], content: bytes) -> None:
        self._root = root
        self._descriptor = descriptor
        self._limits = limits
        self._content = content

    def admit(self, size: int, name: str) -> None:
        """Count a letter of so many octets, if there is room; `name` is its own, for a file in `tmp/`."""
        is_long = len(self._content) > LONGEST
        if is_long or self._is_over(*_sum(self._content), size):
            # One line behind the first is a count; it is no use to count again what was counted just now.
            counted = self._content.count(b"\n") <= 2
            age = time.time() - os.fstat(self._descriptor).st_mtime
            if is_long or not counted or age > RECENT:
                self._count(name)
            if self._is_over(*_sum(self._content), size):
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        write_all(self._descriptor, b"%d 1\n" % size)

    def give_back(self, size: int) -> None:
        """The letter did not come to be after all."""
        write_all(self._descriptor, b"%d -1\n" % -size)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _is_over(self, octets: int, letters: int, size: int) -> bool:
        most, many = self._limits.get(b"S", 0), self._limits.get(b"C", 0)
        return bool((most and octets + size > most) or (many and letters + 1 > many))

    def _count(self, name: str) -> None:
        """Write the file anew, by what is there."""
        sizes = list(_sizes(self._root))
        first = self._content.partition(b"\n")[0]
        content = b"%b\n%d %d\n" % (first, sum(sizes), len(sizes))
        place = f"{self._root}/tmp/{name}.size"
        descriptor = os.open(place, _MAKE, 0o600)
        try:
            write_all(descriptor, content)
            # A crash must not leave an empty file under that name: it would be no quota.
            os.fsync(descriptor)
            os.rename(place, f"{self._root}/maildirsize")
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(place)
            raise
        os.close(self._descriptor)
        self._descriptor, self._content = descriptor, content


def quota_of(maildir: str) -> Quota | None:
    """The quota of a Maildir, or of the one it is a folder of."""
    parent, _, name = maildir.rpartition("/")
    root = parent if name.startswith(".") and os.path.isdir(f"{parent}/cur") else maildir
    descriptor = _open_ours(f"{root}/maildirsize")
    if descriptor is None:
        return None
    try:
        content = os.read(descriptor, 2 * LONGEST)
    except BaseException:
        os.close(descriptor)
        raise
    limits = _limits(content.partition(b"\n")[0])
    if limits:
        return Quota(root, descriptor, limits, content)
    os.close(descriptor)
    return None


def _open_ours(path: str) -> int | None:
    """Open the file, None if there is none that is ours. Another delivery may replace it meanwhile."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, _OPEN)
        except FileNotFoundError:
            return None
        try:
            ours = _is_ours(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if ours:
            return descriptor
        os.close(descriptor)
    return None


def _is_ours(path: str, descriptor: int) -> bool:
    """Whether the open file is a regular one that has no other name than this.

    One that another delivery replaced meanwhile has no name any more.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return False
    if not status.st_nlink:
        return True
    there = still_named(path, status)
    return there is not None and there.st_nlink == 1 and kept_its_name(path, descriptor, status)


def _limits(line: bytes) -> dict[bytes, int]:
    found = [_LIMIT.match(word.strip()) for word in line.split(b",")]
    return {limit[2]: int(limit[1]) for limit in found if limit and int(limit[1])}


def _sum(content: bytes) -> tuple[int, int]:
    octets = letters = 0
    for line in content.split(b"\n")[1:]:
        words = line.split()
        with suppress(ValueError):
            if len(words) == 2:
                octets, letters = octets + int(words[0]), letters + int(words[1])
    return octets, letters


def _sizes(root: str) -> Iterator[int]:
    """The sizes of all letters in a Maildir and its folders."""
    with os.scandir(root) as entries:
        folders = [entry.path for entry in entries if entry.name.startswith(".") and entry.is_dir()]
    for folder in (root, *folders):
        for part in ("new", "cur"):
            with suppress(FileNotFoundError), os.scandir(f"{folder}/{part}") as letters:
                for letter in letters:
                    told = _SIZE.search(letter.name)
                    with suppress(FileNotFoundError):
                        yield int(told[1]) if told else letter.stat(follow_symlinks=False).st_size
