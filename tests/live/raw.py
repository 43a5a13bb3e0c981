"""Both ends of a conversation in raw bytes: a client that says anything, and a host that records everything.

`Wire` and `RecordingSink` know as little SMTP as possible, so that what a test sends and sees is what is on
the wire. `lenient` reads a record as the most careless receivers do. `Elsewhere` is a network in which
clients come from addresses that are not this machine's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.peers import HOST
from tests.support import need_root, program

PATIENCE = 30.0
"""Seconds to wait for the other end."""

CLONE_NEWNET = 0x40000000


class Wire:
    """A TCP connection on which every `send` leaves as a segment of its own."""

    def __init__(self, port: int, source: str = "", host: str = HOST) -> None:
        self.socket = socket.create_connection(
            (host, port), timeout=PATIENCE, source_address=(source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send it all; a server that closed meanwhile is no error here."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def segments(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        """Send pieces, each in a segment of its own, `pause` seconds apart."""
        for piece in pieces:
            self.send(piece)
            if pause:
                time.sleep(pause)

    def reply(self) -> bytes:
        """The next reply with all its lines; empty when the server closed."""
        reply = b""
        while True:
            line, found, rest = self._read.partition(b"\r\n")
            if found:
                self._read = rest
                reply += line + found
                if line[3:4] != b"-":
                    return reply
            elif not self._more():
                return reply

    def replies(self, count: int) -> list[int]:
        """The codes of the next `count` replies; 0 where there is none."""
        return [int(self.reply()[:3] or 0) for _ in range(count)]

    def ask(self, line: bytes) -> bytes:
        """Send a command line, without its CRLF, and get the reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def rest(self) -> list[bytes]:
        """All replies up to the end of the connection."""
        replies = []
        while reply := self.reply():
            replies.append(reply)
        return replies

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._read += data
        return bool(data)


def codes(replies: Iterable[bytes]) -> list[int]:
    """The codes of replies."""
    return [int(reply[:3]) for reply in replies]


class Taken(NamedTuple):
    """A letter as it was on the wire: `content` is what came behind the DATA line, up to its end."""

    sender: bytes
    recipients: list[bytes]
    content: bytes


Answer = Callable[[bytes], bytes | None]


class RecordingSink:
    """A host that records every byte it is sent, and takes letters that end in CRLF.CRLF.

    `answer` is given every command line, and `b"."` for the content: what it returns is sent as it stands,
    None stands for a yes.
    """

    def __init__(self, answer: Answer = lambda line: None) -> None:
        self.answer = answer
        self.taken: list[Taken] = []
        self.recorded: list[bytearray] = []
        self._listener = socket.create_server((HOST, 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """Close every socket and wait for every thread."""
        for connection in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                record = bytearray()
                self.recorded.append(record)
                self._connections.append(connection)
                thread = threading.Thread(target=self._converse, args=[connection, record], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _converse(self, connection: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b"220 sink.test ESMTP\r\n")
            sender, recipients, at = b"", [], 0
            ending = b"\r\n"
            while data := connection.recv(65536):
                record += data
                while (end := record.find(ending, at)) >= 0:
                    line = bytes(record[at:end])
                    at = end + len(ending)
                    if ending != b"\r\n":
                        # The CRLF of the DATA line counts for the end of an empty letter.
                        reply = self.answer(b".") or b"250 2.0.0 taken\r\n"
                        if reply.startswith(b"2"):
                            self.taken.append(Taken(sender, recipients, line[2:] + b"\r\n"))
                        sender, recipients, ending = b"", [], b"\r\n"
                        connection.sendall(reply)
                        continue
                    verb = line[:4].upper()
                    reply = self.answer(line) or _YES.get(verb, b"250 2.0.0 yes\r\n")
                    if verb == b"DATA" and not recipients:
                        reply = b"554 5.5.1 nobody wants it\r\n"
                    connection.sendall(reply)
                    if verb == b"QUIT":
                        return
                    if not reply.startswith((b"2", b"3")):
                        continue
                    if verb == b"MAIL":
                        sender, recipients = _path(line), []
                    elif verb == b"RCPT":
                        recipients.append(_path(line))
                    elif verb == b"DATA":
                        ending, at = b"\r\n.\r\n", at - 2


_YES = {
    b"EHLO": b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"DATA": b"354 go ahead\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


def _path(line: bytes) -> bytes:
    found = re.match(rb"[^<]*<(.*)>", line)
    return found[1] if found else line


def lenient(record: bytes) -> list[Taken]:
    """The letters a receiver finds to whom any CR or LF ends a line, who drops NULs, and to whom any line
    that holds a dot, be it with blanks behind it, ends the content."""
    letters: list[Taken] = []
    sender: bytes = b""
    recipients: list[bytes] = []
    content: list[bytes] | None = None
    for line in re.split(rb"\r\n|\r|\n", record.replace(b"\0", b"")):
        if content is not None:
            if line.rstrip(b" \t") == b".":
                letters.append(Taken(sender, recipients, b"".join(part + b"\r\n" for part in content)))
                content = None
            else:
                content.append(line)
        elif line[:5].upper() == b"MAIL ":
            sender, recipients = _path(line), []
        elif line[:5].upper() == b"RCPT ":
            recipients.append(_path(line))
        elif line.upper() == b"DATA":
            content = []
    return letters


class Elsewhere:
    """The calling thread, and what it starts, in a network of its own until `stop`; root only.

    There is a loopback device, and every address of 192.0.2.0/24 and 198.51.100.0/24 can be connected from,
    although no interface bears it.
    """

    def __init__(self) -> None:
        need_root()
        ip = program("ip")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = os.open(
            f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC
        )
        if self._libc.unshare(CLONE_NEWNET):
            os.close(self._home)
            raise OSError(ctypes.get_errno(), "unshare")
        for words in (
            "link set lo up",
            "route add local 192.0.2.0/24 dev lo",
            "route add local 198.51.100.0/24 dev lo",
        ):
            subprocess.run([ip, *words.split()], check=True, capture_output=True)

    def stop(self) -> None:
        """Back to the network we came from."""
        if self._libc.setns(self._home, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(self._home)


def resident(pid: int, peak: bool = False) -> int:
    """The resident size of a process in KiB, now or at its highest."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no {name}")
