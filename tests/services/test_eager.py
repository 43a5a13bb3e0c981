"""Connections that are written to at once and read in larger pieces while much comes in."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.testing import MemoryReactor, MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.eager import READ, READ_MORE, EagerReactor, EagerServer


class Reader(Protocol):
    """Notes how much came at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def dataReceived(self, data: bytes) -> None:
        self.sizes.append(len(data))


class Sizes(SynchronousTestCase):
    """How much is read at a time."""

    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_MORE)
            self.addCleanup(end.close)
        self.peer.setblocking(False)
        self.reader = Reader()
        reactor: Any = MemoryReactor()
        self.connection = EagerServer(ours, self.reader, ("", 0), None, 1, reactor)
        self.reader.makeConnection(self.connection)

    def test_more_while_much_comes_in_and_little_again_behind_it(self) -> None:
        self.assertEqual(self.peer.send(bytes(READ + 10)), READ + 10)
        self.connection.doRead()
        self.connection.doRead()
        self.assertEqual(self.peer.send(bytes(READ + 20)), READ + 20)
        self.connection.doRead()
        self.assertEqual(self.reader.sizes, [READ, 10, READ])

    def test_larger_once_a_read_was_full(self) -> None:
        self.assertEqual(self.peer.send(bytes(READ)), READ)
        self.connection.doRead()
        self.assertEqual(self.peer.send(bytes(READ + 30)), READ + 30)
        self.connection.doRead()
        self.assertEqual(self.reader.sizes, [READ, READ + 30])

    def test_nothing_to_read_is_no_end(self) -> None:
        self.assertIsNone(self.connection.doRead())
        self.assertEqual(self.reader.sizes, [])

    def test_written_at_once(self) -> None:
        self.connection.write(b"250 OK\r\n")
        self.assertEqual(self.peer.recv(100), b"250 OK\r\n")


class UnixSockets(SynchronousTestCase):
    """Connections that we make to unix sockets."""

    def test_written_at_once_and_read(self) -> None:
        path = self.mktemp()
        reader = Reader()
        reactor: Any = MemoryReactorClock()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            EagerReactor(reactor).connectUNIX(path, ClientFactory.forProtocol(lambda: reader))
            reactor.advance(0)
            peer, _ = listening.accept()
        with peer:
            transport: Any = reader.transport
            transport.write(b"hello")
            self.assertEqual(peer.recv(100), b"hello")
            peer.send(b"and to you")
            transport.doRead()
            self.assertEqual(reader.sizes, [10])
            transport.abortConnection()
            reactor.advance(0)
            self.assertEqual(peer.recv(100), b"")
