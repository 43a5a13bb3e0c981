"""Configuration files that are read again when they change.

Stages keep one `Watched` for each of their files. A file is looked at when it is asked for,
at most once a second, and read again when its modification time, size or inode changed. Small files
are read in the reactor's thread. Those longer than `SMALL` octets are read and understood in another
one, where there is one, while the last good version stays in use; else what is longer than `LIMIT`
is not read at all.

When things fail: a mistake in the file, or a file that cannot be read any more, is told once as a
warning that names file and line, and the last good version stays in use. Where there never was a
good version, `get` raises `Unreadable`, so that nothing final is answered from ignorance. A file
that was not there from the beginning is an empty one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")

SMALL = 1 << 16
LIMIT = 1 << 20
LIMIT_IN_THREAD = 1 << 28
PERIOD = 1.0

_Identity = tuple[int, int, int]


class Mistake(Exception):
    """What is wrong in a file, and in which line (from 1). The text quotes nothing that may be secret."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Unreadable(Exception):
    """A file could not be read since the start; nothing is known of what it says."""


@define(eq=False)
class Watch:
    """What every watched file needs of the world: a clock in seconds, where warnings go, and threads.

    `in_thread` calls a function in another thread; without it every file is read at once. `kept` remembers
    who watches which files as long as anybody does, so that what is known outlives a change of settings.
    `demands` counts the calls of `look`.
    """

    seconds: Callable[[], float]
    warn: Callable[[str], None]
    in_thread: Callable[..., Deferred[Any]] | None = None
    kept: WeakValueDictionary[str, Any] = field(factory=WeakValueDictionary, repr=False)
    demands: int = 0

    def look(self) -> None:
        """Look at every file when it is asked for next, however short the time since the last look."""
        self.demands += 1

    def keep(self, path: str, make: Callable[[], T]) -> T:
        """Who watches what is at `path`; made if nobody does."""
        found: T | None = self.kept.get(path)
        if found is None:
            found = self.kept[path] = make()
        return found


class Watched(Generic[T]):
    """One file and the value made from it.

    `parse` makes the value from the file's octets, or raises `Mistake`. `missing` stands for a file
    that is not there; `start`, where given, is in use while there was no good version yet. `release` is
    called in a thread with the former value of a large file, for letting go of it takes time too.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes], T],
        missing: T,
        watch: Watch,
        start: T | None = None,
        release: Callable[[T], None] | None = None,
    ) -> None:
        self._path = path
        self._parse = parse
        self._missing = missing
        self._watch = watch
        self._value = start
        self._release = release
        self._identity: _Identity | None = None
        self._look = float("-inf")
        self._demands = watch.demands
        self._good = False
        self._told = ""
        # The callers that wait for the file while it is read in a thread, None while it is not.
        self._waiting: list[Deferred[None]] | None = None

    def get(self) -> T:
        """The value of the last good version. Errors: `Unreadable` when there was none."""
        now = self._watch.seconds()
        # The clock may have been set back.
        if not self._look - PERIOD <= now < self._look or self._demands != self._watch.demands:
            self._look, self._demands = now + PERIOD, self._watch.demands
            if self._waiting is None:
                self._refresh()
        if self._value is None:
            raise Unreadable(self._path)
        return self._value

    async def current(self) -> T:
        """Like `get`, but waits for a large file that is being read for the first time."""
        try:
            return self.get()
        except Unreadable:
            if self._waiting is None:
                raise
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        await waiting
        return self.get()

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            if _identity(status) == self._identity:
                return
            if status.st_size > SMALL and self._watch.in_thread is not None:
                self._waiting = []
                self._watch.in_thread(self._load, LIMIT_IN_THREAD).addBoth(self._loaded)
                return
            self._take(self._load(LIMIT))
        except (Mistake, OSError) as error:
            self._failed(error)

    def _load(self, limit: int) -> tuple[_Identity, T | Mistake]:
        """Read and understand the file; in whichever thread. Errors: `OSError`."""
        identity, data = read(self._path, limit)
        try:
            return identity, self._parse(data)
        except Mistake as mistake:
            return identity, mistake

    def _loaded(self, result: tuple[_Identity, T | Mistake] | Failure) -> None:
        waiting, self._waiting = self._waiting or (), None
        former = self._value
        try:
            if isinstance(result, Failure):
                result.raiseException()
            self._take(result)
        except (Mistake, OSError) as error:
            self._failed(error)
        finally:
            for one in waiting:
                one.callback(None)
        if former not in (None, self._missing, self._value) and self._release is not None:
            assert self._watch.in_thread is not None
            self._watch.in_thread(self._release, former)

    def _take(self, loaded: tuple[_Identity, T | Mistake]) -> None:
        self._identity, value = loaded
        if isinstance(value, Mistake):
            raise value
        self._value = value
        self._good = True
        self._told = ""

    def _failed(self, error: Mistake | OSError) -> None:
        match error:
            case FileNotFoundError():
                self._vanished()
            case Mistake(line=line):
                self._tell(f"{self._path}:{line}: {error}")
            case OSError(strerror=what):
                self._identity = None
                self._tell(f"{self._path}: {what}")

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


def read(path: str, limit: int = LIMIT) -> tuple[_Identity, bytes]:
    """Read a whole regular file. Not blocking: a FIFO in its place must not hold up the reactor.

    Errors: OSError, also for what is not a regular file or longer than `limit`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        identity = _identity(status)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        if status.st_size > limit:
            raise OSError(0, f"longer than {limit} octets")
        pieces: list[bytes] = []
        size = 0
        while size <= limit and (piece := os.read(descriptor, LIMIT + 1)):
            pieces.append(piece)
            size += len(piece)
    finally:
        os.close(descriptor)
    return identity, pieces[0] if len(pieces) == 1 else b"".join(pieces)
