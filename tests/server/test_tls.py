"""Conversations that are encrypted from the beginning or half-way, over real TLS without a network."""

from __future__ import annotations

import gc
import weakref
from ipaddress import ip_network
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from postoffice.server.link import HANDSHAKE, LINGER, READ_AHEAD
from postoffice.server.listener import Limits
from postoffice.server.turnstile import AT_ONCE
from postoffice.services.tls import Pair
from tests.certificates import NAME, TlsClient, converse, make_pair
from tests.server.support import OUTSIDE, Door, Visit

STARTTLS = b"STARTTLS\r\n"
GO_AHEAD = b"220 2.0.0 Go ahead with TLS\r\n"


class Encrypted:
    """A visit whose client agrees on TLS: from now on `send` and `heard` are what is inside."""

    def __init__(self, visit: Visit, client: TlsClient | None = None) -> None:
        self.visit = visit
        self.client = client or TlsClient(NAME)
        self.carry()

    def carry(self) -> None:
        converse(self.client, self.visit.transport)

    def send(self, data: bytes) -> bytes:
        """Say something inside; what came back inside at once."""
        self.client.say(data)
        self.carry()
        return self.heard()

    def heard(self) -> bytes:
        self.carry()
        return self.client.heard()


class TlsCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.pair: Pair = make_pair(directory, NAME)
        self.door = Door()
        self.door.secure(self.pair)
        self.visits: list[Visit] = []

    def visit(self, ip: str = OUTSIDE) -> Visit:
        visit = self.door.visit(ip)
        self.visits.append(visit)
        return visit

    def encrypted(self, ip: str = OUTSIDE, before: bytes = b"") -> Encrypted:
        """A session that was encrypted by STARTTLS, behind the commands `before`."""
        visit = self.visit(ip)
        visit.heard()
        for line in before.splitlines(keepends=True):
            self.assertEqual(visit.send(line)[:1], b"2")
        self.assertEqual(visit.send(STARTTLS), GO_AHEAD)
        return Encrypted(visit)

    def implicit(self) -> Encrypted:
        """A session that is encrypted from the beginning."""
        self.door.change(door="smtps")
        return Encrypted(self.visit())

    def failures(self) -> list[str]:
        return self.door.office.journal.named("handshake failed")

    def tearDown(self) -> None:
        for visit in self.visits:
            visit.leave()
        self.successResultOf(Deferred.fromCoroutine(self.door.office.scheduler.stop(1.0)))
        self.assertEqual(self.door.office.clock.getDelayedCalls(), [])
        self.assertEqual(self.door.doorkeeper.sessions, set())


class Starting(TlsCase):
    def test_it_is_offered_where_there_is_a_certificate(self) -> None:
        self.assertIn(b"STARTTLS", self.visit().send(b"EHLO me\r\n"))
        self.door.secure()
        visit = self.visit()
        visit.heard()
        self.assertNotIn(b"STARTTLS", visit.send(b"EHLO me\r\n"))
        self.assertEqual(visit.send(STARTTLS)[:4], b"502 ")

    def test_a_letter(self) -> None:
        inside = self.encrypted(before=b"EHLO me\r\n")
        self.assertIn(b"250 HELP\r\n", inside.send(b"EHLO me.example\r\n"))
        said = inside.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n")
        self.assertIn(b"\r\n354 ", said)
        self.assertEqual(inside.send(b"Subject: hello\r\n\r\nbody\r\n.\r\n")[:4], b"250 ")
        self.assertEqual(inside.send(b"QUIT\r\n")[:4], b"221 ")
        [content] = self.door.contents()
        head = content.decode().split("\r\n\t")
        [told] = self.door.office.journal.named("secured")
        self.assertTrue(told.startswith("client.example [192.0.2.9]: TLSv1.3 with cipher TLS_"))
        self.assertRegex(head[1], r"^\(using TLSv1\.3 with cipher TLS_\w+ \((256/256|128/128) bits\)\)$")
        self.assertRegex(head[2], r"^by mx\.example\.org \(Postoffice\) with ESMTPS id ")

    def test_it_is_not_offered_inside(self) -> None:
        self.assertNotIn(b"STARTTLS", self.encrypted().send(b"EHLO me\r\n"))

    def test_a_session_keeps_what_it_was_offered(self) -> None:
        """The certificate goes away while a client is there."""
        visit = self.visit()
        visit.heard()
        self.door.certificates.refresh()
        self.assertEqual(visit.send(STARTTLS), GO_AHEAD)
        self.assertIn(b"PIPELINING", Encrypted(visit).send(b"EHLO me\r\n"))

    def test_B1_only_a_handshake_makes_it_encrypted(self) -> None:
        """The client reads the 220 late, or sent so much before that others were served in between."""
        visit = self.visit()
        visit.heard()
        self.assertEqual(visit.send(STARTTLS), GO_AHEAD)
        visit.link.resumeProducing()
        visit.turns()
        [session] = self.door.doorkeeper.sessions
        self.assertIsNone(session.client.tls)
        self.assertEqual(self.door.office.journal.named("secured"), [])
        self.assertIn(b"PIPELINING", Encrypted(visit).send(b"EHLO me\r\n"))
        self.assertIsNotNone(session.client.tls)

    def test_but_no_TLS_once_there_is_no_certificate(self) -> None:
        visit = self.visit()
        visit.heard()
        self.door.secure()
        self.assertEqual(visit.send(STARTTLS)[:10], b"454 4.7.0 ")
        self.assertEqual(visit.send(b"NOOP\r\n")[:4], b"250 ")
        self.assertNotIn(b"STARTTLS", visit.send(b"EHLO me\r\n"))


class Forgetting(TlsCase):
    """RFC 3207 section 4.2, and attacks on it: whoever is in between writes plain text, the client inside."""

    def test_B1_T1_a_command_behind_it_closes(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertEqual(visit.send(STARTTLS + b"NOOP\r\n")[:4], b"554 ")
        self.assertTrue(visit.closed)

    def test_B1_T2_no_sender_gets_in(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertEqual(visit.send(STARTTLS + b"MAIL FROM:<x@example.org>\r\n")[:4], b"554 ")
        self.assertTrue(visit.closed)
        # Nor one that was sent before, in its own segment or not.
        inside = self.encrypted(before=b"EHLO me\r\nMAIL FROM:<x@example.org>\r\nRSET\r\n")
        self.assertEqual(inside.send(b"RCPT TO:<a@example.org>\r\n")[:4], b"503 ")

    def test_B1_T3_half_a_command_is_not_completed(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertEqual(visit.send(STARTTLS + b"DAT")[:4], b"554 ")
        self.assertTrue(visit.closed)
        self.assertEqual(self.encrypted().send(b"A\r\n")[:4], b"500 ")

    def test_B1_T4_not_in_a_transaction(self) -> None:
        visit = self.visit()
        visit.heard()
        visit.send(b"MAIL FROM:<x@example.org>\r\n")
        self.assertEqual(visit.send(STARTTLS)[:4], b"503 ")
        # A sender who was refused begins nothing either.
        visit.send(b"RSET\r\n")
        visit.send(b"MAIL FROM:<@>\r\n")
        self.assertEqual(visit.send(STARTTLS), GO_AHEAD)
        self.assertEqual(Encrypted(visit).send(b"RCPT TO:<a@example.org>\r\n")[:4], b"503 ")

    def test_B1_T5_bytes_between_the_go_ahead_and_the_handshake_close(self) -> None:
        for injected in (b"NOOP\r\n", b"EHLO evil\r\nMAIL FROM:<x@example.org>\r\n", b"\0"):
            visit = self.visit()
            visit.heard()
            visit.send(STARTTLS)
            said = visit.send(injected)
            client = TlsClient(NAME)
            self.assertNotIn(b"250", said + visit.send(client.give()))
            self.assertFalse(client.done)
            self.assertTrue(visit.closed, injected)

    def test_B1_T6_not_a_second_time(self) -> None:
        inside = self.encrypted()
        self.assertEqual(inside.send(STARTTLS)[:4], b"503 ")
        self.assertEqual(inside.send(b"NOOP\r\n")[:4], b"250 ")

    def test_B1_the_greeting_is_forgotten(self) -> None:
        self.door.change(require_helo=True)
        inside = self.encrypted(before=b"EHLO evil.example\r\n")
        [session] = self.door.doorkeeper.sessions
        self.assertEqual((session.client.helo, session.client.protocol), (None, "SMTP"))
        self.assertEqual(inside.send(b"MAIL FROM:<a@example.org>\r\n")[:4], b"503 ")
        self.assertEqual(inside.send(b"EHLO me\r\n")[:4], b"250-")
        self.assertEqual(inside.send(b"MAIL FROM:<a@example.org>\r\n")[:4], b"250 ")

    def test_B1_the_log_in_is_forgotten(self) -> None:
        self.door.accounts.passwords[b"alice"] = b"secret"
        self.door.change(auth_plaintext=True)
        log_in = b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"
        inside = self.encrypted(before=b"EHLO me\r\n" + log_in)
        inside.send(b"EHLO me\r\n")
        inside.send(b"MAIL FROM:<s@example.com>\r\n")
        self.assertEqual(inside.send(b"RCPT TO:<far@away.example>\r\n")[:10], b"550 5.7.1 ")
        inside.send(b"RSET\r\n")
        # Nor is a second log-in a second one.
        self.assertEqual(inside.send(log_in)[:4], b"235 ")

    def test_B1_who_was_named_by_XCLIENT_cannot_begin_it(self) -> None:
        self.door.change(xclient=(ip_network("198.51.100.0/24"),))
        visit = self.visit("198.51.100.7")
        visit.heard()
        self.assertEqual(visit.send(b"XCLIENT ADDR=192.0.2.77 HELO=evil.example\r\n")[:4], b"220 ")
        self.assertNotIn(b"STARTTLS", visit.send(b"EHLO me\r\n"))
        self.assertEqual(visit.send(STARTTLS)[:4], b"502 ")
        # The other way round it is a peer of ours who speaks, whom nobody can interrupt.
        inside = self.encrypted("198.51.100.7")
        self.assertEqual(inside.send(b"XCLIENT ADDR=192.0.2.77\r\n")[:4], b"220 ")
        self.assertEqual({session.client.ip for session in self.door.doorkeeper.sessions}, {"192.0.2.77"})

    def test_B1_inside_it_the_rules_are_the_same(self) -> None:
        inside = self.encrypted(before=b"EHLO me\r\n")
        inside.send(b"EHLO me\r\n")
        # In one record: what stands behind EHLO was sent without knowing its answer.
        self.assertEqual(inside.send(b"EHLO me\r\nNOOP\r\n")[:4], b"554 ")


class Implicit(TlsCase):
    def test_the_banner_comes_inside(self) -> None:
        inside = self.implicit()
        self.assertEqual(inside.heard()[:4], b"220 ")
        self.assertNotIn(b"STARTTLS", inside.send(b"EHLO me\r\n"))
        self.assertEqual(inside.send(STARTTLS)[:4], b"503 ")
        [session] = self.door.doorkeeper.sessions
        self.assertEqual((session.client.door, session.client.keyword), ("smtps", "ESMTPS"))

    def test_who_talks_before_the_banner(self) -> None:
        """All the same inside: the name of this client is still being looked up."""
        self.door.change(door="smtps")
        waiting: Deferred[str | None] = Deferred()
        self.door.judge(Slow(waiting))
        inside = Encrypted(self.visit())
        self.assertEqual(inside.send(b"EHLO me\r\n"), b"")
        waiting.callback("client.example")
        self.assertEqual(inside.heard()[:4], b"554 ")

    def test_B4_plain_text_is_not_answered(self) -> None:
        self.door.change(door="smtps")
        for said in (b"EHLO me\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\r\n" * 20):
            visit = self.visit()
            # At most an alert, which is binary and seven octets long.
            self.assertRegex(visit.send(said), rb"(?s)^(\x15\x03.\0\x02..)?$")
            self.assertTrue(visit.closed)

    def test_who_comes_through_a_proxy(self) -> None:
        """The header comes before TLS, and may bring the beginning of it along."""
        self.door.change(door="smtps", proxy=(ip_network("198.51.100.0/24"),))
        for at_once in (False, True):
            client = TlsClient(NAME)
            begun = client.give() if at_once else b""
            visit = self.visit("198.51.100.7")
            client.take(visit.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 4321 25\r\n" + begun))
            inside = Encrypted(visit, client)
            self.assertIn(b"greets client.example", inside.heard())

    def test_when_all_places_are_taken_nothing_is_said(self) -> None:
        self.door.doorkeeper.limits = Limits(1, 1)
        self.implicit()
        transport = StringTransport()
        self.door.factory.buildProtocol(transport.getPeer()).makeConnection(transport)
        self.assertEqual(transport.value(), b"")
        self.assertTrue(transport.disconnecting)

    def test_when_the_certificate_was_taken_away(self) -> None:
        self.door.change(door="smtps")
        self.door.secure()
        transport = StringTransport()
        self.door.factory.buildProtocol(transport.getPeer()).makeConnection(transport)
        self.assertEqual(transport.value(), b"")
        self.assertTrue(transport.disconnecting)


class Slow:
    """A DNS that takes its time."""

    def __init__(self, answer: Deferred[str | None]) -> None:
        self.answer = answer

    def reverse(self, ip: str) -> Deferred[str | None]:
        return self.answer


class Failing(TlsCase):
    def test_a_handshake_that_takes_too_long(self) -> None:
        visit = self.visit()
        visit.send(STARTTLS)
        self.door.office.clock.advance(HANDSHAKE - 1)
        self.assertFalse(visit.transport.disconnected)
        self.door.office.clock.advance(1)
        self.assertTrue(visit.closed)
        self.assertEqual(len(self.failures()), 1)

    def test_a_client_that_goes_away(self) -> None:
        visit = self.visit()
        visit.send(STARTTLS)
        visit.leave()
        self.visits.remove(visit)
        self.assertEqual(len(self.failures()), 1)

    def test_the_reason_is_told(self) -> None:
        visit = self.visit()
        visit.send(STARTTLS)
        client = TlsClient(NAME, alpn=(b"h2",))
        visit.send(client.give())
        visit.leave()
        self.visits.remove(visit)
        [told] = self.failures()
        self.assertIn("the client speaks h2, not smtp", told)

    def test_stopping_does_not_wait_for_a_handshake(self) -> None:
        visit = self.visit()
        visit.send(STARTTLS)
        stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
        self.assertTrue(visit.closed)
        visit.leave()
        self.visits.remove(visit)
        self.successResultOf(stopped)

    def test_stopping_says_so_inside(self) -> None:
        inside = self.encrypted()
        stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
        self.assertEqual(inside.heard()[:10], b"421 4.3.2 ")
        self.visits.pop().leave()
        self.successResultOf(stopped)

    def test_a_client_that_does_not_say_goodbye_is_cut_off(self) -> None:
        inside = self.encrypted()
        transport = inside.visit.transport
        inside.client.say(b"QUIT\r\n")
        inside.visit.send(inside.client.give())
        self.assertFalse(transport.disconnected or transport.disconnecting)
        self.door.office.clock.advance(LINGER)
        self.assertTrue(inside.visit.closed)


class Leaving(TlsCase):
    def test_a_session_that_is_over_leaves_no_circle(self) -> None:
        for begin in (self.encrypted, self.implicit):
            inside = begin()
            inside.send(b"EHLO me\r\n")
            link = weakref.ref(inside.visit.link)
            visit = self.visits.pop()
            gc.disable()
            try:
                visit.leave()
                # As a connection does when it is lost.
                visit.transport.protocol = visit.transport.producer = None
                del visit, inside
                self.assertIsNone(link())
            finally:
                gc.enable()


class Crowding(TlsCase):
    def test_a_crowd_of_handshakes_leaves_turns_to_others(self) -> None:
        self.door.doorkeeper.limits = Limits(0, 0)
        clock = self.door.office.clock
        crowd = [(TlsClient(NAME), self.starting()) for _ in range(3 * AT_ONCE)]
        answers = [visit.send(client.give()) for client, visit in crowd]
        self.assertEqual([bool(answer) for answer in answers], [True] * AT_ONCE + [False] * 2 * AT_ONCE)
        # One that goes away is not waited for.
        crowd.pop()[1].leave()
        self.visits.pop()
        for answer, (client, visit) in zip(answers, crowd, strict=False):
            self.assertEqual(visit.transport.producerState, "producing" if answer else "paused")
            client.take(answer)
        while not all(client.done for client, _ in crowd):
            clock.advance(0)
            for client, visit in crowd:
                client.take(visit.heard())
                client.take(visit.send(client.give()))
        clock.advance(0)
        for client, visit in crowd:
            self.assertEqual(Encrypted(visit, client).send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")

    def starting(self) -> Visit:
        visit = self.visit()
        visit.heard()
        visit.send(STARTTLS)
        return visit


class Pressing(TlsCase):
    def test_a_client_that_runs_ahead_is_not_read(self) -> None:
        waiting: Deferred[str | None] = Deferred()
        self.door.change(door="smtps")
        self.door.judge(Slow(waiting))
        inside = Encrypted(self.visit())
        inside.client.say(b"NOOP\r\n" * 100)
        for _ in range(READ_AHEAD // 600 + 1):
            inside.client.say(b"NOOP\r\n" * 100)
            inside.carry()
        self.assertEqual(inside.visit.transport.producerState, "paused")
        waiting.callback("client.example")

    def test_a_client_that_reads_nothing_is_not_answered_for_ever(self) -> None:
        inside = self.encrypted()
        transport = inside.visit.transport
        inside.send(b"EHLO me\r\n")
        # What a transport does whose buffer is full.
        transport.producer.pauseProducing()
        self.assertEqual(inside.send(b"NOOP\r\n" * 100), b"")
        transport.producer.resumeProducing()
        self.assertEqual(inside.heard(), b"250 2.0.0 OK\r\n" * 100)
