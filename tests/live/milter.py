"""The scripted milter of `tests.filters.fake` on a real socket, each connection in a thread."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from tests.filters.fake import FakeMilter


class SocketMilter:
    """Listens at `path` for everybody, or on a free `port` without one; `connections` are those it got."""

    def __init__(self, path: str, answers: dict[bytes, bytes | Callable[[bytes], bytes] | None]) -> None:
        self.answers = answers
        self.connections: list[FakeMilter] = []
        self.path = path
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port = 0
        if path:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(path)
            os.chmod(path, 0o777)
        else:
            self._listening = socket.socket()
            self._listening.bind(("127.0.0.1", 0))
            self.port = self._listening.getsockname()[1]
        self._listening.listen(50)
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._sockets.append(connection)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        milter = FakeMilter(self.answers)
        milter.peer = _Peer(connection)
        self.connections.append(milter)
        try:
            while data := connection.recv(65536):
                milter.received(data)
        except OSError:
            pass
        milter.ended = "closed"

    def hang_up(self) -> None:
        """End every connection."""
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It has ended already.
                pass

    def stop(self) -> None:
        """Be down."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        if self.path:
            os.unlink(self.path)
        self.hang_up()
        for thread in self._threads:
            thread.join(30)
        for connection in self._sockets:
            connection.close()


class _Peer:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def dataReceived(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            # It ends at our next read.
            pass
