"""The floor: a bare Twisted protocol that answers every SMTP command and stores nothing.

Run as `python bench/bare.py PORT`. What it takes a message is what Twisted, Python and the kernel's TCP take;
nothing that does the work of a mail server can be faster.
"""

from __future__ import annotations

import sys

from twisted.internet import epollreactor

epollreactor.install()  # type: ignore[no-untyped-call]

from twisted.internet import reactor  # noqa: E402
from twisted.internet.interfaces import ITCPTransport  # noqa: E402
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402


class Bare(Protocol):
    """One client. Outside a letter a line is a command, inside only the end of data counts."""

    transport: ITCPTransport
    rest = b""
    letter = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.write(b"220 bare\r\n")

    def dataReceived(self, data: bytes) -> None:
        data = self.rest + data
        while data:
            mark = b"\r\n.\r\n" if self.letter else b"\r\n"
            line, found, after = data.partition(mark)
            if not found:
                data = data[-4:] if self.letter else data
                break
            data, verb = after, line[:4].upper()
            self.letter = not self.letter and verb == b"DATA"
            self.transport.write(
                b"354 go\r\n" if self.letter else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
            )
            if verb == b"QUIT":
                self.transport.loseConnection()
        self.rest = data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.rest = b""


if __name__ == "__main__":
    factory = ServerFactory()
    factory.protocol = Bare
    reactor.listenTCP(int(sys.argv[1]), factory, backlog=1000, interface="127.0.0.1")
    reactor.run()
