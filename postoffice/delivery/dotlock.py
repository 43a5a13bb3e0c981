"""The dot-lock of an mbox: a file beside it, with `.lock` behind its name. Blocking; standard library only.

Used by `postoffice.delivery.mbox`. The lock holds our process number on its first line, as other
programs write it, and on the second what tells whether that process is one this machine can ask after.

A lock that is left over is removed: at once if it is ours and the process is gone, else when it is
older than `STALE` seconds and no process of its number lives here. Where the directory does not
let us make a lock there is none: nobody else of our account can make one either, and the kernel's lock holds.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from functools import cache

from postoffice.delivery.files import MailboxBusy, write_all

STALE = 300.0

_INCARNATION = os.urandom(8).hex()
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DotLock:
    """The lock of the mbox at `path`, held from construction to `release`; `now` is in epoch seconds.

    Errors: `MailboxBusy` when somebody else has it, `OSError`.
    """

    def __init__(self, path: str, now: float) -> None:
        self._path = f"{path}.lock"
        # Kept open while the lock is held, so that no other file gets its inode number.
        self._descriptor = -1
        try:
            self._make()
        except FileExistsError:
            _remove_stale(self._path, now)
            try:
                self._make()
            except FileExistsError:
                raise MailboxBusy from None

    def refresh(self) -> None:
        """Say that it is still in use."""
        if self._descriptor >= 0:
            with suppress(FileNotFoundError):
                os.utime(self._path, follow_symlinks=False)

    def release(self) -> None:
        """Give it back, unless somebody else took it meanwhile."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(self._path), os.fstat(descriptor)):
                    os.unlink(self._path)
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        try:
            self._descriptor = os.open(self._path, _CREATE, 0o600)
        except PermissionError:
            return
        try:
            if os.fstat(self._descriptor).st_nlink != 1:
                raise MailboxBusy
            holder = f"{os.getpid()}\npostoffice {_machine()} {_INCARNATION}\n"
            write_all(self._descriptor, holder.encode())
        except BaseException:
            self.release()
            raise


def _remove_stale(path: str, now: float) -> None:
    """Remove a lock that is left over. Errors: `MailboxBusy` when it is not."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or not _is_stale(_read(path), now - status.st_mtime):
            raise MailboxBusy
        now_there = os.lstat(path)
        if os.path.samestat(now_there, status) and now_there.st_mtime_ns == status.st_mtime_ns:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _read(path: str) -> bytes:
    """The beginning of a lock; nothing where we may not read it."""
    try:
        descriptor = os.open(path, _READ)
    except PermissionError:
        return b""
    try:
        return os.read(descriptor, 200)
    finally:
        os.close(descriptor)


def _is_stale(content: bytes, age: float) -> bool:
    number, _, rest = content.partition(b"\n")
    digits = number.strip()
    process = int(digits) if digits.isdigit() and len(digits) < 10 else 0
    words = rest.split()
    if words[:1] != [b"postoffice"]:
        return age > STALE and not _lives(process)
    if words[1:2] != [_machine().encode()]:
        return age > STALE
    mine = words[2:3] == [_INCARNATION.encode()]
    return not _lives(process) or (process == os.getpid() and not mine)


def _lives(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def _machine() -> str:
    """Where a process number means what it means to us: this boot of this machine, this container."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
