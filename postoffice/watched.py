"""Small configuration files that are read again when they change.

Stages keep one `Watched` for each of their files. A file is looked at when it is asked for,
at most once a second, and read again when its modification time, size or inode changed. Files are
read in the reactor's thread, so what is longer than `LIMIT` octets is not read at all.

When things fail: a mistake in the file, or a file that cannot be read any more, is told once as a
warning that names file and line, and the last good version stays in use. Where there never was a
good version, `get` raises `Unreadable`, so that nothing final is answered from ignorance. A file
that was not there from the beginning is an empty one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

LIMIT = 1 << 20
PERIOD = 1.0

_Identity = tuple[int, int, int]


class Mistake(Exception):
    """What is wrong in a file, and in which line (from 1). The text quotes nothing that may be secret."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Unreadable(Exception):
    """A file could not be read since the start; nothing is known of what it says."""


@frozen
class Watch:
    """What every watched file needs of the world: a clock in seconds, and where warnings go."""

    seconds: Callable[[], float]
    warn: Callable[[str], None]


class Watched(Generic[T]):
    """One file and the value made from it.

    `parse` makes the value from the file's octets, or raises `Mistake`. `missing` stands for a file
    that is not there; `start`, where given, is in use while there was no good version yet.
    """

    def __init__(
        self, path: str, parse: Callable[[bytes], T], missing: T, watch: Watch, start: T | None = None
    ) -> None:
        self._path = path
        self._parse = parse
        self._missing = missing
        self._watch = watch
        self._value = start
        self._identity: _Identity | None = None
        self._look = float("-inf")
        self._good = False
        self._told = ""

    def get(self) -> T:
        """The value of the last good version. Errors: `Unreadable` when there was none."""
        now = self._watch.seconds()
        # The clock may have been set back.
        if not self._look - PERIOD <= now < self._look:
            self._look = now + PERIOD
            self._refresh()
        if self._value is None:
            raise Unreadable(self._path)
        return self._value

    def look(self) -> None:
        """Look at the file when it is asked for next, however short the time since the last look."""
        self._look = float("-inf")

    def _refresh(self) -> None:
        try:
            if _identity(os.stat(self._path)) == self._identity:
                return
            self._identity, data = read(self._path)
            self._value = self._parse(data)
            self._good = True
            self._told = ""
        except FileNotFoundError:
            self._vanished()
        except Mistake as mistake:
            self._tell(f"{self._path}:{mistake.line}: {mistake}")
        except OSError as error:
            self._identity = None
            self._tell(f"{self._path}: {error.strerror}")

    def _vanished(self) -> None:
        self._identity = None
        if self._good:
            self._tell(f"{self._path}: the file is gone")
        else:
            self._value = self._missing
            self._told = ""

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            known = self._value is not None
            kept = "the last good version stays in use" if known else "what it says is not known"
            self._watch.warn(f"{problem}; {kept}")


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def read(path: str) -> tuple[_Identity, bytes]:
    """Read a whole regular file. Not blocking: a FIFO in its place must not hold up the reactor.

    Errors: OSError, also for what is not a regular file or longer than `LIMIT`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        identity = _identity(status)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        if status.st_size > LIMIT:
            raise OSError(0, f"longer than {LIMIT} octets")
        data = b""
        while len(data) <= LIMIT and (piece := os.read(descriptor, LIMIT + 1)):
            data += piece
    finally:
        os.close(descriptor)
    return identity, data
