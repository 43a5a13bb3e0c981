"""Packets between the service, the helper and its children: a frame of JSON, and files beside it.

Blocking and standard library only; the service has a side of its own that never waits
(`postoffice.delivery.identities`).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence

from postoffice.wire import Decoder, WireError, encode_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 1 << 18
"""The most octets of a packet."""

_PIECE = 1 << 18
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ANCILLARY = socket.CMSG_SPACE(array.array("i").itemsize)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for packets."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(connection: socket.socket, message: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a packet. Errors: `OSError`."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    connection.sendmsg([encode_json(message)], ancillary, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket, flags: int = 0) -> tuple[dict[str, Any], int] | None:
    """The next packet, and the file beside it (-1 for none), which is the caller's now; None at the end.

    Errors: `OSError`, `WireError` for what is no packet of ours.
    """
    data, ancillary, _, _ = connection.recvmsg(LARGEST, _ANCILLARY, flags | socket.MSG_CMSG_CLOEXEC)
    files = array.array("i")
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(value[: len(value) - len(value) % files.itemsize])
    if not data:
        close(files)
        return None
    try:
        (message,) = Decoder().feed(data)
        if not isinstance(message, dict):
            raise WireError("a packet that is no object")
    except (ValueError, WireError) as error:
        close(files)
        raise WireError(str(error)) from None
    return message, files[0] if files else -1


def close(files: Sequence[int]) -> None:
    """Close files that are not wanted."""
    for descriptor in files:
        if descriptor >= 0:
            os.close(descriptor)


def memory_file() -> int:
    """A file in memory, empty, for `seal`."""
    return os.memfd_create("letter", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(descriptor: int) -> None:
    """Nobody can change the file any more; it is read from its beginning."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    os.lseek(descriptor, 0, os.SEEK_SET)


def is_sealed(descriptor: int) -> bool:
    """Whether nobody can change it any more."""
    with contextlib.suppress(OSError, ValueError):
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    return False


def pieces(descriptor: int) -> Iterator[bytes]:
    """The content of a file, from its beginning."""
    at = 0
    while piece := os.pread(descriptor, _PIECE, at):
        yield piece
        at += len(piece)
