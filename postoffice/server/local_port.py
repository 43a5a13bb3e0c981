"""The listening unix socket of the local commands.

Started and stopped by the assembly. The socket is made under another name and renamed into place once
it listens with mode 0666, so that nobody finds it half made and a stale one from a crash is replaced
in one step; a socket somebody answers on is left alone. Paths may be longer than the 107 octets the
kernel allows, since the directory is opened and named by its descriptor.

When things fail: `CannotListen` at start, with the reason. When descriptors run out later, nothing is
accepted for a second.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, ITransport
from twisted.internet.protocol import Factory
from zope.interface import implementer

from postoffice import wire
from postoffice.server.office import Caller

_BACKLOG = 512
_ACCEPT_AT_ONCE = 50
_PAUSE = 1.0
_SO_PEERGROUPS = 59
_MOST_GROUPS = 256


class CannotListen(Exception):
    """The socket cannot be made; the text says which and why."""


def caller_of(transport: ITransport) -> Caller:
    """Who connected, by the kernel. Errors: `OSError` when it does not know any more."""
    connection: socket.socket = transport.getHandle()  # type: ignore[attr-defined]
    return caller_behind(connection)


def caller_behind(connection: socket.socket) -> Caller:
    """The same for a plain socket."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=iII"))
    pid, uid, gid = struct.unpack("=iII", packed)
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError:
        # More groups than fit are as good as none: nobody gets rights by having many.
        more = b""
    return Caller(uid, pid, frozenset({gid, *struct.unpack(f"={len(more) // 4}I", more)}))


@implementer(IReadDescriptor)
class LocalPort:
    """Accepts connections at `path` for `factory`. Make it, `listen`, and `stop` at the end."""

    def __init__(self, path: str, factory: Factory, reactor: Any) -> None:
        self._folder, self._name = os.path.split(os.path.abspath(path))
        self._path = path
        self._factory = factory
        self._reactor = reactor
        self._socket: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._resting: IDelayedCall | None = None

    def listen(self) -> None:
        """Make the socket (and its directory, one level) and begin. Errors: `CannotListen`."""
        try:
            if not os.path.isdir(self._folder):
                os.mkdir(self._folder, 0o755)
            with wire.Folder(self._folder) as folder:
                self._check_free(folder)
                self._socket = self._bind(folder)
        except OSError as error:
            raise CannotListen(f"{self._path}: {error.strerror or error}") from error
        self._factory.doStart()
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Accept nothing more and remove the socket, unless another service has put its own there."""
        listening, self._socket = self._socket, None
        if listening is None:
            return
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        else:
            self._reactor.removeReader(self)
        listening.close()
        self._factory.doStop()
        try:
            with wire.Folder(self._folder) as folder:
                found = os.lstat(self._name, dir_fd=folder.descriptor)
                if (found.st_dev, found.st_ino) == self._identity:
                    os.unlink(self._name, dir_fd=folder.descriptor)
        except OSError:
            # It is gone, or the directory is not ours any more: the next start replaces it.
            pass

    def _check_free(self, folder: wire.Folder) -> None:
        """Errors: `CannotListen` when the path is not a socket, or one that is answered."""
        try:
            found = os.lstat(self._name, dir_fd=folder.descriptor)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise CannotListen(f"{self._path}: exists and is not a socket")
        try:
            wire.connect(os.path.join(self._folder, self._name)).close()
        except ConnectionRefusedError:
            return
        raise CannotListen(f"{self._path}: another service is running there")

    def _bind(self, folder: wire.Folder) -> socket.socket:
        new = f".{self._name[:40]}.{os.getpid()}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listening.setblocking(False)
            try:
                os.unlink(new, dir_fd=folder.descriptor)
            except FileNotFoundError:
                pass
            listening.bind(folder.address(new))
            os.chmod(new, 0o666, dir_fd=folder.descriptor)
            listening.listen(_BACKLOG)
            found = os.lstat(new, dir_fd=folder.descriptor)
            self._identity = found.st_dev, found.st_ino
            os.rename(new, self._name, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
        except BaseException:
            listening.close()
            raise
        return listening

    # What the reactor calls.

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "local"

    def doRead(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            if self._socket is None:
                return
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._rest()
                return
            with connection:
                connection.setblocking(False)
                try:
                    self._reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, self._factory)
                except OSError:
                    # Gone already, or no descriptor was left for it.
                    continue

    def _rest(self) -> None:
        """Without descriptors the socket would stay readable and the reactor spin."""
        self._reactor.removeReader(self)
        self._resting = self._reactor.callLater(_PAUSE, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self._reactor.addReader(self)

    def connectionLost(self, reason: object) -> None:
        self.stop()
