"""Clients that come through a proxy: PROXY in front of a connection, and XCLIENT inside one."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.internet.defer import Deferred

from postoffice.policy.access import Denied
from tests.doubles import StaticResolver
from tests.server.support import INSIDE, OUTSIDE, Visit
from tests.server.test_session import Conversation

PROXY = "198.51.100.7"
NETS = (ip_network("198.51.100.0/28"), ip_network("127.0.0.0/8"))
LETTER = b"MAIL FROM:<s@example.org>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n"
ELSEWHERE = b"MAIL FROM:<s@example.org>\r\nRCPT TO:<x@far.example>\r\n"


class Announced(Conversation):
    """The PROXY protocol."""

    def setUp(self) -> None:
        super().setUp()
        self.door.change(proxy=NETS)

    def arrive(self, header: bytes, ip: str = PROXY) -> Visit:
        """A client whom a proxy announced."""
        visit = self.visit(ip)
        visit.transport.protocol = visit.protocol
        self.assertEqual(visit.heard(), b"")
        visit.protocol.dataReceived(header)
        visit.protocol = visit.transport.protocol
        return visit

    def line(self, ip: str) -> bytes:
        family = "TCP6" if ":" in ip else "TCP4"
        other = "::1" if ":" in ip else "192.0.2.1"
        return f"PROXY {family} {ip} {other} 4321 25\r\n".encode()

    def may_relay(self, visit: Visit) -> bool:
        visit.heard()
        visit.send(b"EHLO x\r\n")
        return visit.send(ELSEWHERE).count(b"250") == 2

    def test_who_was_announced_is_the_client(self) -> None:
        visit = self.arrive(self.line(OUTSIDE))
        self.assertTrue(
            visit.heard().startswith(b"220 mx.example.org ESMTP Postoffice greets client.example\r\n")
        )
        visit.send(b"EHLO me.example\r\n")
        visit.send(LETTER)
        self.assertIn(b"250 2.0.0", visit.send(b"\r\n.\r\n"))
        self.assertIn(b"from me.example (client.example [192.0.2.9])", self.door.contents()[0])

    def test_in_pieces_and_with_what_follows(self) -> None:
        visit = self.visit(PROXY)
        visit.transport.protocol = visit.protocol
        for octet in self.line(OUTSIDE):
            self.assertEqual(visit.heard(), b"")
            visit.protocol.dataReceived(bytes([octet]))
        visit.protocol = visit.transport.protocol
        self.assertEqual(visit.heard()[:4], b"220 ")

    def test_A5_a_client_that_spoke_before_the_banner(self) -> None:
        visit = self.arrive(self.line(OUTSIDE) + b"EHLO x\r\n")
        self.assertEqual(visit.heard()[:4], b"554 ")
        self.assertTrue(visit.closed)

    def test_C1_it_is_required(self) -> None:
        for start in (
            b"EHLO x\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 1 2 3 4\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
        ):
            visit = self.visit(PROXY)
            visit.protocol.dataReceived(start)
            self.assertEqual(visit.heard(), b"")
            self.assertTrue(visit.transport.disconnected)
        self.assertEqual(self.door.doorkeeper.expected, set())
        self.assertEqual(len(self.facts("refused")), 4)

    def test_it_must_come_in_time(self) -> None:
        visit = self.visit(PROXY)
        visit.protocol.dataReceived(b"PROXY TCP4 ")
        self.door.office.clock.advance(10)
        self.assertTrue(visit.transport.disconnected)

    def test_C1_from_others_it_is_a_bad_command(self) -> None:
        visit = self.visit(OUTSIDE)
        self.assertEqual(visit.heard()[:4], b"220 ")
        self.assertEqual(visit.send(self.line(INSIDE))[:4], b"500 ")
        self.assertFalse(self.may_relay(visit))

    def test_C1_nobody_is_announced_home(self) -> None:
        local = (INSIDE, "127.9.9.9", "::1", "::ffff:127.0.0.1", "198.51.100.1", "::ffff:198.51.100.1")
        for header in (*map(self.line, local), b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"):
            for proxy in (PROXY, INSIDE):
                visit = self.arrive(header, proxy)
                self.assertEqual(visit.link.engine.buffered, 0)
                self.assertFalse(self.may_relay(visit), (header, proxy))
                self.assertNotIn(b"localhost", visit.send(b"RSET\r\n"))
                (session,) = (one for one in self.door.doorkeeper.sessions if one.link is visit.link)
                self.assertFalse(session.client.here)

    def test_C1_a_proxy_lends_nobody_its_rights(self) -> None:
        self.door.judge(trusted=frozenset({PROXY}))
        for header in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"):
            self.assertFalse(self.may_relay(self.arrive(header)), header)
        self.assertTrue(self.may_relay(self.arrive(self.line(PROXY))))

    def test_announced_trusted_hosts_may_relay(self) -> None:
        self.door.judge(trusted=frozenset({OUTSIDE}))
        self.assertTrue(self.may_relay(self.arrive(self.line(OUTSIDE))))
        self.assertTrue(self.may_relay(self.arrive(self.line("::ffff:" + OUTSIDE))))

    def test_limits_are_those_of_who_was_announced(self) -> None:
        self.door.doorkeeper.limits = self.door.doorkeeper.limits.__class__(100, 1)
        first = self.arrive(self.line(OUTSIDE))
        self.assertEqual(first.heard()[:4], b"220 ")
        second = self.arrive(self.line(OUTSIDE))
        self.assertEqual(second.heard()[:4], b"451 ")
        other = self.arrive(self.line("192.0.2.77"))
        self.assertEqual(other.heard()[:4], b"220 ")
        for home in (True, False):
            self.assertEqual(self.arrive(self.line(INSIDE)).heard()[:4], b"220 " if home else b"451 ")

    def test_proxies_that_wait_count(self) -> None:
        self.door.doorkeeper.limits = self.door.doorkeeper.limits.__class__(1, 20)
        waiting = self.visit(PROXY)
        self.assertEqual(self.visit(PROXY).heard()[:4], b"451 ")
        self.assertEqual(self.visit(OUTSIDE).heard()[:4], b"451 ")
        waiting.leave()
        self.assertEqual(self.visit(OUTSIDE).heard()[:4], b"220 ")

    def test_stopping_waits_for_no_proxy(self) -> None:
        visit = self.visit(PROXY)
        self.successResultOf(Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0)))
        self.assertTrue(visit.transport.disconnected)


class Believed(Conversation):
    """XCLIENT."""

    def setUp(self) -> None:
        super().setUp()
        self.door.change(xclient=NETS)
        self.door.resolver = StaticResolver(
            addresses={"client.example": [OUTSIDE], "proxy.example": [PROXY]},
            reverse={OUTSIDE: "client.example", PROXY: "proxy.example"},
        )
        self.door.judge()

    def greeted(self, ip: str = PROXY) -> Visit:
        visit = self.visit(ip)
        visit.heard()
        visit.send(b"EHLO proxy.example\r\n")
        return visit

    def relays(self, visit: Visit) -> bool:
        return visit.send(ELSEWHERE).count(b"250") == 2

    def test_it_is_announced_to_whom_it_is_for(self) -> None:
        for ip, there in ((PROXY, True), (INSIDE, True), (OUTSIDE, False)):
            visit = self.visit(ip)
            said = visit.send(b"EHLO x\r\n")
            line = b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"
            self.assertEqual(line in said.replace(b"250 XCLIENT", b"250-XCLIENT"), there)
            self.assertEqual(visit.send(b"XCLIENT ADDR=192.0.2.9\r\n")[:3], b"220" if there else b"502")

    def test_the_session_starts_over(self) -> None:
        visit = self.greeted()
        visit.send(b"MAIL FROM:<s@example.org>\r\nRSET\r\n")
        self.assertTrue(
            visit.send(b"XCLIENT ADDR=192.0.2.9 PORT=77 HELO=me.example PROTO=ESMTP\r\n").startswith(
                b"220 mx.example.org ESMTP Postoffice greets client.example\r\n"
            )
        )
        visit.send(LETTER)
        self.assertIn(b"250 2.0.0", visit.send(b"\r\n.\r\n"))
        content = self.door.contents()[0]
        self.assertIn(b"from me.example (client.example [192.0.2.9])", content)
        self.assertIn(b"with ESMTP id", content)

    def test_names_and_log_ins_are_believed(self) -> None:
        visit = self.greeted()
        said = visit.send(b"XCLIENT NAME=other.example ADDR=192.0.2.33 LOGIN=S\r\n")
        self.assertIn(b"greets other.example\r\n", said)
        self.assertTrue(self.relays(visit))
        # As if he had logged in here.
        self.assertEqual(visit.send(b"MAIL FROM:<other@example.org>\r\n")[:9], b"553 5.7.1")
        visit.send(b"RSET\r\n")
        said = visit.send(b"XCLIENT NAME=[UNAVAILABLE] LOGIN=[UNAVAILABLE]\r\n")
        self.assertIn(b"greets [192.0.2.33]\r\n", said)
        self.assertFalse(self.relays(visit))

    def test_C1_nobody_is_announced_home(self) -> None:
        for ip in (PROXY, INSIDE):
            for words in (
                b"ADDR=127.0.0.1",
                b"ADDR=IPV6:::1",
                b"ADDR=198.51.100.1 NAME=localhost",
                b"HELO=x",
            ):
                visit = self.greeted(ip)
                self.assertEqual(visit.send(b"XCLIENT " + words + b"\r\n")[:4], b"220 ")
                self.assertFalse(self.relays(visit), words)
                (session,) = (one for one in self.door.doorkeeper.sessions if one.link is visit.link)
                self.assertFalse(session.client.here)

    def test_C1_a_proxy_lends_nobody_its_rights(self) -> None:
        self.door.judge(trusted=frozenset({PROXY}))
        for words in (b"ADDR=192.0.2.9", b"ADDR=[UNAVAILABLE]", b"NAME=[TEMPUNAVAIL]", b"HELO=x"):
            visit = self.greeted()
            self.assertTrue(self.relays(visit))
            visit.send(b"RSET\r\n")
            self.assertEqual(visit.send(b"XCLIENT " + words + b"\r\n")[:4], b"220 ")
            self.assertFalse(self.relays(visit), words)

    def test_who_has_logged_in_may_relay_wherever_he_is(self) -> None:
        for words in (b"ADDR=192.0.2.9", b"ADDR=127.0.0.1", b"ADDR=[UNAVAILABLE]"):
            visit = self.greeted()
            visit.send(b"XCLIENT LOGIN=S " + words + b"\r\n")
            self.assertTrue(self.relays(visit), words)

    def test_C1_one_address_has_one_spelling(self) -> None:
        self.door.access.denied[OUTSIDE] = Denied("we know you", final=True)
        visit = self.greeted()
        self.assertEqual(visit.send(b"XCLIENT ADDR=IPV6:::ffff:192.0.2.9\r\n")[:4], b"521 ")

    def test_who_is_refused_is_refused(self) -> None:
        self.door.access.denied[OUTSIDE] = Denied("we know you", final=True)
        visit = self.greeted()
        self.assertEqual(visit.send(b"XCLIENT ADDR=192.0.2.9\r\n")[:4], b"521 ")
        self.assertTrue(visit.closed)

    def test_limits_are_those_of_who_was_announced(self) -> None:
        self.door.doorkeeper.limits = self.door.doorkeeper.limits.__class__(100, 2)
        first, second, third = self.greeted(), self.greeted(), None
        for visit in (first, second):
            self.assertEqual(visit.send(b"XCLIENT ADDR=192.0.2.9\r\n")[:4], b"220 ")
        third = self.greeted()
        self.assertEqual(third.send(b"XCLIENT ADDR=192.0.2.9\r\n")[:4], b"421 ")
        self.assertTrue(third.closed)
        for visit in (first, second, third):
            self.visits.remove(visit)
            visit.leave()
        self.assertEqual(self.door.doorkeeper._from, {})

    def test_malformed(self) -> None:
        visit = self.greeted()
        self.assertEqual(visit.send(b"XCLIENT FOO=bar\r\n")[:4], b"501 ")
        self.assertEqual(visit.send(b"MAIL FROM:<s@example.org>\r\n")[:4], b"250 ")

    def test_C1_whom_a_proxy_announced_is_not_believed_himself(self) -> None:
        self.door.change(proxy=NETS)
        visit = self.visit(PROXY)
        visit.transport.protocol = visit.protocol
        visit.protocol.dataReceived(b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n")
        visit.protocol = visit.transport.protocol
        visit.send(b"EHLO x\r\n")
        self.assertEqual(visit.send(b"XCLIENT ADDR=192.0.2.9\r\n")[:4], b"502 ")
