"""Reading a file in somebody's home, as that somebody. Blocking; standard library only.

Used by the directory in a service that is its only user, and by the process that is a user otherwise. The
file is opened once, no link is followed below the home, and everything is judged by what was opened, so that
nobody can put another file in its place meanwhile: it and all directories below the home belong to the owner
or to root, and nobody else may write to them.
"""

from __future__ import annotations

import errno
import os
import stat

LIMIT = 1 << 18

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Unsafe(Exception):
    """The file could be somebody else's work; the text says why."""


def read_as_owner(home: str, uid: int, name: str) -> bytes | None:
    """The content of the file `name` (with `/` between directories) below a home; None where there is none.

    Errors: `Unsafe`, `OSError`.
    """
    *directories, last = name.split("/")
    opened: list[int] = []
    try:
        try:
            opened.append(os.open(home, _DIRECTORY))
        except NotADirectoryError:
            # Accounts without a home have /dev/null for one.
            return None
        _check(os.fstat(opened[-1]), uid, "the home")
        for directory in directories:
            opened.append(os.open(directory, _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
            _check(os.fstat(opened[-1]), uid, directory)
        opened.append(os.open(last, _FILE, dir_fd=opened[-1]))
        return _content(opened[-1], uid)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsafe("it is a symbolic link") from None
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _content(descriptor: int, uid: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Unsafe("it is not a regular file")
    _check(status, uid, "it")
    if status.st_size > LIMIT:
        raise Unsafe(f"it is longer than {LIMIT} octets")
    data = b""
    while len(data) <= LIMIT and (piece := os.read(descriptor, LIMIT + 1)):
        data += piece
    return data


def _check(status: os.stat_result, uid: int, what: str) -> None:
    if status.st_uid not in (0, uid):
        raise Unsafe(f"{what} belongs to somebody else")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unsafe(f"others may write to {what}")
