"""What all filters share: a socket, and being ready once the milter protocol is spoken on it."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.peers.peer import HOST, NOBODY, Peer, passable, text_of
from tests.support import need_root, program

_OFFER = struct.pack(">IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF)
_QUIT = struct.pack(">Ic", 1, b"Q")


def negotiates(address: str) -> bool:
    """Does a filter answer our offer at this address, a path or HOST:PORT? It is left in good order."""
    try:
        with _connected(address) as connection:
            connection.sendall(_OFFER)
            answer = connection.recv(4096)
            connection.sendall(_QUIT)
            return answer[4:5] == b"O"
    except OSError:
        return False


def _connected(address: str) -> socket.socket:
    if not address.startswith("/"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=5)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(5)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


class Milter(Peer):
    """A filter on a unix socket in its directory, or on a TCP port where there is one."""

    patience = 60.0

    def __init__(self, directory: Path, port: int = 0, *, nameserver: str = "") -> None:
        super().__init__(passable(directory), port)
        self.user = NOBODY if os.geteuid() == 0 else None
        self.socket = self.directory / "socket"
        self.nameserver = nameserver

    @property
    def address(self) -> str:
        """Where it listens, as `filter=` names it."""
        return f"{HOST}:{self.port}" if self.port else str(self.socket)

    @property
    def postfix_address(self) -> str:
        """The same, as Postfix names it."""
        return f"inet:{self.address}" if self.port else f"unix:{self.address}"

    def ready(self) -> bool:
        """Negotiates."""
        return negotiates(self.address)

    def start(self) -> None:
        """Start it on a socket that nothing of an earlier run holds."""
        self.socket.unlink(missing_ok=True)
        self.own()
        # It becomes the user after it has changed what it sees of the machine.
        account, self.user = self.user, None if self.nameserver else self.user
        try:
            super().start()
        finally:
            self.user = account

    def opened(self, *words: str | Path) -> Sequence[str | Path]:
        """A command as it is run: its socket is for everybody, and it asks the name server it was told of."""
        words = ("/bin/sh", "-c", 'umask 0 && exec "$@"', "sh", *words)
        if not self.nameserver:
            return words
        need_root()
        nobody = pwd.getpwnam(NOBODY)
        known = self.write("resolv.conf", [f"nameserver {self.nameserver}"])
        change = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
        become = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        alone = [program("unshare"), "--mount", "sh", "-c", change, "sh", known]
        return [*alone, program("setpriv"), *become, *words]

    def stop(self, timeout: float = 0.2) -> int | None:
        """End it. libmilter looks up only every few seconds, and there is nothing to lose."""
        return super().stop(timeout)

    def log(self) -> str:
        """What it said."""
        return text_of(self.stderr) + text_of(self.stdout)

    def write(self, name: str, lines: Iterable[str]) -> Path:
        """A file in the directory."""
        path = self.directory / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def own(self) -> None:
        """Give the whole directory to the account it runs as."""
        super().own()
        if self.user is not None:
            for path in self.directory.rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(path, self.directory.stat().st_uid, self.directory.stat().st_gid)
