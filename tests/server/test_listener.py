"""Who is let in, and what becomes of those who are still being looked up."""

from __future__ import annotations

import gc
import weakref

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice.server.listener import peer_of
from tests.server.support import INSIDE, OUTSIDE, Door, Visit


class SlowNames:
    """A DNS that is asked for reverse names, and takes its time."""

    def __init__(self) -> None:
        self.asked: list[Deferred[str | None]] = []

    def reverse(self, ip: str) -> Deferred[str | None]:
        self.asked.append(Deferred())
        return self.asked[-1]


class LookingUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()
        self.names = SlowNames()
        self.door.judge(self.names)  # type: ignore[arg-type]

    def tearDown(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.door.office.scheduler.stop(1.0)))
        self.assertEqual(self.door.office.clock.getDelayedCalls(), [])
        self.assertEqual(self.door.doorkeeper.sessions, set())

    def test_the_banner_waits_for_the_name(self) -> None:
        visit = Visit(self.door, OUTSIDE)
        self.assertEqual(visit.heard(), b"")
        self.names.asked[0].callback("client.example")
        self.assertEqual(visit.heard()[:4], b"220 ")
        visit.leave()

    def test_stopping_waits_for_no_name(self) -> None:
        visit = Visit(self.door, OUTSIDE)
        stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
        self.successResultOf(stopped)
        self.assertRegex(visit.heard(), rb"^421 4\.3\.2 [^\n]*\r\n$")
        self.assertTrue(visit.closed)
        visit.leave()


class LeavingTests(SynchronousTestCase):
    def test_a_session_that_is_over_leaves_no_circle(self) -> None:
        """Full garbage collections are rare: what sessions leave to them is kept for long."""
        for ip in (INSIDE, OUTSIDE):
            door = Door()
            visit = door.visit(ip)
            visit.send(b"EHLO x\r\n")
            visit.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
            visit.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            link = weakref.ref(visit.link)
            visit.leave()
            gc.disable()
            try:
                # As a connection does when it is lost.
                visit.transport.protocol = visit.transport.producer = None
                del visit
                self.assertIsNone(link())
            finally:
                gc.enable()


class PeerTests(SynchronousTestCase):
    def test_only_a_unix_socket_is_at_home_without_an_address(self) -> None:
        self.assertEqual(peer_of(UNIXAddress(b"")), "127.0.0.1")
        self.assertEqual(peer_of(IPv4Address("TCP", "192.0.2.1", 5)), "192.0.2.1")
        self.assertEqual(peer_of(IPv4Address("TCP", "", 5)), "0.0.0.0")
        self.assertEqual(peer_of(None), "0.0.0.0")
        self.assertFalse(Door().doorkeeper.at_home("0.0.0.0"))
