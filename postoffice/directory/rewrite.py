"""Files that several people change: replaced as a whole, so that no change is lost and none is half done.

Called by `postoffice.directory.virtual_files` in a thread. A change holds a lock on the file's directory
(flock(2), which excludes threads and processes alike) from the reading to the replacing. The new file is
written and synced under another name, gets owner and mode of the old one, and takes its place in one
step; the directory is synced after that.

When things fail: `BlockingIOError` when somebody else holds the lock, or has changed the file meanwhile
without one: ask again. Other errors are `OSError` with the path. In every case the old file is as it was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from postoffice.watched import LIMIT_IN_THREAD

_PIECE = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_file(folder: str, name: str) -> bytes | None:
    """What the file says, None where there is none in the directory."""
    with _opened(folder) as directory, _told(folder, name):
        return _read(directory, name)[1]


def rewrite(folder: str, name: str, edit: Callable[[bytes], bytes]) -> None:
    """Put what `edit` makes of the file's content in its place. What `edit` raises changes nothing."""
    with _opened(folder) as directory:
        with _told(folder, name):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status, data = _read(directory, name)
        new = edit(data or b"")
        if len(new) > LIMIT_IN_THREAD:
            raise OSError(0, f"longer than {LIMIT_IN_THREAD} octets", os.path.join(folder, name))
        with _told(folder, name):
            _replace(directory, name, status, new)


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def _told(folder: str, name: str) -> Iterator[None]:
    """Errors name the whole path, whatever name the call that failed knew the file by."""
    try:
        yield
    except OSError as error:
        error.filename = os.path.join(folder, name)
        raise


def _read(directory: int, name: str) -> tuple[os.stat_result | None, bytes | None]:
    """A regular file that has no other name: links could lead to what is not the domain's."""
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise OSError(0, "not a regular file, or one with several names")
        if status.st_size > LIMIT_IN_THREAD:
            raise OSError(0, f"longer than {LIMIT_IN_THREAD} octets")
        pieces: list[bytes] = []
        while piece := os.read(descriptor, _PIECE):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return status, b"".join(pieces)


def _replace(directory: int, name: str, status: os.stat_result | None, data: bytes) -> None:
    # Nobody else uses this name while we hold the lock; what is there was left by a crash.
    new = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    descriptor = os.open(new, _NEW, 0o600, dir_fd=directory)
    try:
        try:
            if status is not None:
                _take_after(descriptor, status)
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if _identity(directory, name) != (status and _identity_of(status)):
            raise BlockingIOError("somebody else has changed it meanwhile")
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise
    os.fsync(directory)


def _take_after(descriptor: int, old: os.stat_result) -> None:
    """Give the new file the owner, group and mode of the old one."""
    own = os.fstat(descriptor)
    if own.st_uid != old.st_uid:
        os.fchown(descriptor, old.st_uid, -1)
    if own.st_gid != old.st_gid:
        try:
            os.fchown(descriptor, -1, old.st_gid)
        except PermissionError:
            # Which group it is makes a difference only where the group may do something.
            if old.st_mode & stat.S_IRWXG:
                raise
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o777)


def _identity(directory: int, name: str) -> tuple[int, int, int] | None:
    try:
        return _identity_of(os.lstat(name, dir_fd=directory))
    except FileNotFoundError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino
