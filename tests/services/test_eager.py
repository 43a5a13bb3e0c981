"""Connections that are written to at the end of a turn, and read in larger pieces while much comes in."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from postoffice.services.eager import READ, READ_MORE, SMALL, EagerReactor, EagerServer


@implementer(IPushProducer)
class Producer:
    """Notes whether it was asked to pause."""

    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        """It has nothing more."""

    def stopProducing(self) -> None:
        """It has nothing more."""


class Reader(Protocol):
    """Notes how much came at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def dataReceived(self, data: bytes) -> None:
        self.sizes.append(len(data))


class Connected(SynchronousTestCase):
    """A connection whose peer is the test."""

    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_MORE)
            self.addCleanup(end.close)
        self.peer.setblocking(False)
        self.reader = Reader()
        self.reactor: Any = MemoryReactorClock()
        self.connection = EagerServer(ours, self.reader, ("", 0), None, 1, self.reactor)
        self.reader.makeConnection(self.connection)

    def heard(self) -> bytes:
        """What the peer has got by now."""
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""


class Sizes(Connected):
    """How much is read at a time."""

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


class Writing(Connected):
    """When what is written is sent."""

    def test_small_things_at_the_end_of_the_turn_and_together(self) -> None:
        self.connection.write(b"250 OK\r\n")
        self.connection.writeSequence([b"221 ", b"Goodbye\r\n"])
        self.assertEqual(self.heard(), b"")
        self.reactor.advance(0)
        self.assertEqual(self.heard(), b"250 OK\r\n221 Goodbye\r\n")
        self.assertEqual(self.reactor.getWriters(), [])
        self.connection.write(b"another turn\r\n")
        self.reactor.advance(0)
        self.assertEqual(self.heard(), b"another turn\r\n")

    def test_large_things_at_once_and_behind_what_was_written_before(self) -> None:
        self.connection.write(b"x" * SMALL)
        self.assertEqual(self.heard(), b"x" * SMALL)
        for _ in range(2):
            self.connection.write(b"354 go on\r\n")
            self.connection.write(b"y" * SMALL)
            self.assertEqual(self.heard(), b"354 go on\r\n" + b"y" * SMALL)
        self.reactor.advance(0)
        self.assertEqual(self.heard(), b"")

    def test_many_small_things_do_not_gather(self) -> None:
        for _ in range(SMALL // 16):
            self.connection.write(b"250 2.1.5 OK!!\r\n")
        self.assertEqual(len(self.heard()), SMALL)

    def test_what_the_kernel_does_not_take_waits_in_order(self) -> None:
        much = bytes(range(256)) * (1 << 14)
        self.connection.write(much)
        self.connection.write(b"the end")
        self.assertEqual(self.reactor.getWriters(), [self.connection])
        heard = self.heard()
        while self.reactor.getWriters():
            self.connection.doWrite()
            heard += self.heard()
        self.assertEqual(heard, much + b"the end")

    def test_a_producer_is_told_when_the_peer_does_not_read(self) -> None:
        producer = Producer()
        self.connection.registerProducer(producer, True)
        for _ in range(1000):
            self.connection.write(b"z" * SMALL)
        self.assertTrue(producer.paused)

    def test_the_last_words_are_sent(self) -> None:
        self.connection.write(b"421 shutting down\r\n")
        self.connection.loseConnection()
        self.assertEqual(self.heard(), b"421 shutting down\r\n")

    def test_nothing_is_sent_where_the_connection_is_gone(self) -> None:
        self.connection.write(b"250 OK\r\n")
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(0)
        self.assertEqual(self.heard(), b"")

    def test_reactors_have_turns_of_their_own(self) -> None:
        self.connection.write(b"never sent\r\n")
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        reactor: Any = MemoryReactorClock()
        EagerServer(here, Reader(), ("", 0), None, 2, reactor).write(b"sent\r\n")
        reactor.advance(0)
        self.assertEqual(there.recv(100), b"sent\r\n")
        self.assertEqual(self.heard(), b"")


class UnixSockets(SynchronousTestCase):
    """Connections that we make to unix sockets."""

    def test_written_and_read(self) -> None:
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
            reactor.advance(0)
            self.assertEqual(peer.recv(100), b"hello")
            peer.send(b"and to you")
            transport.doRead()
            self.assertEqual(reader.sizes, [10])
            transport.abortConnection()
            reactor.advance(0)
            self.assertEqual(peer.recv(100), b"")
