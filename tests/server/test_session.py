"""Conversations, from the banner to the mailbox, with everything but the network and the disk real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import SpoolFailed
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.server.link import AT_ONCE, READ_AHEAD, Pace
from postoffice.server.listener import Limits
from tests.doubles import ScriptedPolicy
from tests.server.support import INSIDE, OUTSIDE, Door, Visit

BEGIN = """
    S: 220 mx.example.org ESMTP Postoffice greets *
    C: EHLO me.example
    S: 250-mx.example.org
    S: 250-PIPELINING
    S: 250-SIZE 5000
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-ENHANCEDSTATUSCODES
    S: 250-CHUNKING
    S: 250-DSN
    S: 250-LIMITS RCPTMAX=5
    S: 250-ETRN
    S: 250 HELP
"""
COMPLETED = (b"\r\nDate: ", b"\r\nMessage-ID: <", b"\r\nFrom: sender@example.org\r\n")
LETTER = """
    C: MAIL FROM:<sender@example.org>
    S: 250 2.1.0 Sender OK
    C: RCPT TO:<a@example.org>
    S: 250 2.1.5 Recipient OK
    C: DATA
    S: 354 End data with <CRLF>.<CRLF>
    C: Subject: hello
    C:
    C: ..body
    C: .
    S: 250 2.0.0 OK, queued as *
"""


class Conversation(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()
        self.visits: list[Visit] = []

    def visit(self, ip: str = OUTSIDE) -> Visit:
        visit = self.door.visit(ip)
        self.visits.append(visit)
        return visit

    def tearDown(self) -> None:
        for visit in self.visits:
            visit.leave()
        self.successResultOf(Deferred.fromCoroutine(self.door.office.scheduler.stop(1.0)))
        self.assertEqual(self.door.office.clock.getDelayedCalls(), [])
        self.assertEqual(self.door.doorkeeper.sessions, set())

    def slow(self, commits: list[Deferred[None]]) -> Callable[[], object]:
        """Drafts whose commit waits until its Deferred, added to `commits`, is fired."""
        draft = self.door.office.spool.draft

        def make() -> object:
            made = draft()
            commit = made.commit

            def later(*args: object) -> Deferred[object]:
                waiting: Deferred[None] = Deferred()
                commits.append(waiting)
                return waiting.addCallback(lambda _: commit(*args))  # type: ignore[arg-type]

            made.commit = later  # type: ignore[method-assign,assignment]
            return made

        return make

    def facts(self, name: str) -> list[str]:
        return self.door.office.journal.named(name)


class Letters(Conversation):
    def test_a_letter_goes_in_and_comes_out(self) -> None:
        visit = self.visit()
        visit.play(BEGIN + LETTER + "C: QUIT\nS: 221 2.0.0 Goodbye")
        self.assertTrue(visit.closed)
        (content,) = self.door.contents()
        self.assertTrue(
            content.startswith(
                b"Received: from me.example (client.example [192.0.2.9])\r\n"
                b"\tby mx.example.org (Postoffice) with ESMTP id "
            )
        )
        self.assertTrue(content.endswith(b"\r\nSubject: hello\r\n\r\n.body\r\n"), content)
        self.assertEqual(self.facts("delivered"), ["a@example.org"])

    def test_several_in_one_session(self) -> None:
        self.visit().play(BEGIN + LETTER + LETTER + LETTER)
        self.assertEqual(len(self.door.contents()), 3)

    def test_pipelined_replies_come_in_one_write(self) -> None:
        visit = self.visit()
        visit.send(b"EHLO x\r\n")
        writes: list[bytes] = []
        with mock.patch.object(visit.transport, "write", writes.append):
            visit.send(
                b"MAIL FROM:<s@example.com>\r\nRCPT TO:<a@example.org>\r\n"
                b"RCPT TO:<nobody@example.org>\r\nDATA\r\n"
            )
        (written,) = writes
        codes = [line[:3] for line in written.split(b"\r\n")[:-1]]
        self.assertEqual(codes, [b"250", b"250", b"550", b"354"])

    def test_what_an_outsider_sends_is_not_completed(self) -> None:
        self.visit().play(BEGIN + LETTER)
        self.assertNotIn(b"Message-ID", self.door.contents()[0])

    def test_what_our_own_people_send_is_completed_once(self) -> None:
        self.visit("127.0.0.1").play(BEGIN + LETTER)
        content = self.door.contents()[0]
        for name in COMPLETED:
            self.assertEqual(content.count(name), 1)

    def test_release_1_4_3b_a_letter_that_comes_again_is_not_completed_again(self) -> None:
        self.visit("127.0.0.1").play(BEGIN + LETTER)
        (first,) = self.door.contents()
        visit = self.visit("127.0.0.1")
        visit.play(BEGIN)
        for text in (b"MAIL FROM:<sender@example.org>", b"RCPT TO:<a@example.org>", b"DATA", first + b"."):
            visit.send(text + b"\r\n")
        again = self.door.contents()[1]
        for name in COMPLETED:
            self.assertEqual(again.count(name), 1)

    def test_a_body_without_header_gets_its_empty_line(self) -> None:
        visit = self.visit()
        visit.send(b"HELO x\r\n")
        visit.send(b"MAIL FROM:<>\r\n")
        visit.send(b"RCPT TO:<a@example.org>\r\n")
        visit.send(b"DATA\r\n")
        visit.send(b"hello\r\n.\r\n")
        self.assertTrue(self.door.contents()[0].endswith(b"\r\n\r\nhello\r\n"))

    def test_the_same_recipient_twice_gets_one_copy(self) -> None:
        self.visit().play(
            BEGIN
            + """
            C: MAIL FROM:<>
            S: 250 *
            C: RCPT TO:<a@example.org>
            S: 250 *
            C: RCPT TO:<a@EXAMPLE.org>
            S: 250 *
            C: DATA
            S: 354 *
            C: .
            S: 250 *
            """
        )
        self.assertEqual(self.facts("delivered"), ["a@example.org"])

    def test_RSET_and_EHLO_drop_what_was_begun(self) -> None:
        for command in ("RSET", "HELO again"):
            self.visit().play(
                BEGIN
                + f"""
                C: MAIL FROM:<>
                S: 250 *
                C: RCPT TO:<a@example.org>
                S: 250 *
                C: {command}
                S: 250 *
                C: DATA
                S: 503 *
                """
            )

    def test_a_client_that_leaves_inside_data_leaves_nothing(self) -> None:
        visit = self.visit()
        visit.send(b"HELO x\r\n")
        visit.send(b"MAIL FROM:<>\r\n")
        visit.send(b"RCPT TO:<a@example.org>\r\n")
        visit.send(b"DATA\r\n")
        visit.send(b"Subject: half\r\n\r\nhalf")
        self.visits.remove(visit)
        visit.leave()
        self.assertEqual((self.door.contents(), self.door.office.entries()), ([], {}))


class Refusals(Conversation):
    def test_relaying_is_for_our_own_people(self) -> None:
        self.visit().play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@elsewhere.example>\nS: 550 5.7.1 *"
        )
        self.visit("127.0.0.1").play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@elsewhere.example>\nS: 250 *"
        )
        self.visit("198.51.100.1").play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@elsewhere.example>\nS: 250 *"
        )

    def test_unknown_users_and_look_ups_that_fail(self) -> None:
        self.visit().play(
            BEGIN
            + """
            C: MAIL FROM:<s@example.net>
            S: 250 *
            C: RCPT TO:<nobody@example.org>
            S: 550 5.1.1 *
            C: RCPT TO:<unknown@example.org>
            S: 451 4.4.3 *
            C: DATA
            S: 554 5.5.1 *
            """
        )
        self.assertEqual(self.facts("wrong number"), ["nobody@example.org: 550 5.1.1 No such user here"])
        self.assertIn("RCPT TO:<unknown@example.org>: 451 4.4.3", self.facts("refused")[0])

    def test_too_many_recipients(self) -> None:
        self.visit().play(
            BEGIN
            + "C: MAIL FROM:<>\nS: 250 *\n"
            + "".join(f"C: RCPT TO:<u{n}@example.org>\nS: 250 *\n" for n in range(5))
            + "C: RCPT TO:<u6@example.org>\nS: 452 4.5.3 *\nC: DATA\nS: 354 *\nC: .\nS: 250 *"
        )
        self.assertEqual(len(self.facts("delivered")), 5)

    def test_far_too_many_recipients(self) -> None:
        visit = self.visit()
        visit.play(BEGIN + "C: MAIL FROM:<>\nS: 250 *")
        said = visit.send(b"".join(b"RCPT TO:<u%d@example.org>\r\n" % number for number in range(100)))
        codes = [line[:3] for line in said.split(b"\r\n")[:-1]]
        self.assertEqual(codes, [b"250"] * 5 + [b"452"] * 5 + [b"421"])
        self.assertTrue(visit.closed)
        self.assertEqual(len(self.facts("refused")), 1)

    def test_too_many_errors(self) -> None:
        visit = self.visit()
        visit.play(BEGIN + "C: FOO\nS: 500 *\nC: EXPN x\nS: 502 *\nC: DATA\nS: 503 *\nC: BAR\nS: 421 4.7.0 *")
        self.assertTrue(visit.closed)

    def test_a_letter_that_is_too_large(self) -> None:
        self.visit().play(BEGIN + "C: MAIL FROM:<> SIZE=5001\nS: 552 5.3.4 *")
        visit = self.visit()
        visit.play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        self.assertTrue(visit.send(b"x: y\r\n" * 1000 + b".\r\n").startswith(b"552 5.3.4 "))
        self.assertEqual(self.door.contents(), [])

    def test_a_letter_that_is_looping(self) -> None:
        visit = self.visit()
        visit.play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        self.assertTrue(visit.send(b"Received: x\r\n" * 11 + b"\r\n.\r\n").startswith(b"554 5.4.6 "))
        self.assertEqual(self.door.contents(), [])

    def test_a_header_without_end(self) -> None:
        self.door.change(size=0)
        visit = self.visit()
        visit.play(
            BEGIN.replace("SIZE 5000", "SIZE 0")
            + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        for _ in range(300):
            visit.send(b"X: " + b"y" * 5000 + b"\r\n")
        self.assertEqual(visit.send(b".\r\n")[:10], b"554 5.6.0 ")

    def test_other_commands(self) -> None:
        self.visit().play(
            BEGIN
            + """
            C: NOOP
            S: 250 2.0.0 OK
            C: VRFY a
            S: 252 2.1.5 *
            C: HELP
            S: 214-2.0.0 *
            S: 214 2.0.0 *
            C: RCPT TO:<a@example.org>
            S: 503 5.5.1 *
            """
        )


class Debugging(Conversation):
    def test_it_is_unknown_unless_enabled(self) -> None:
        self.visit().play(BEGIN + "C: DEBUG\nS: 502 5.5.1 *")

    def test_it_lists_the_envelope_and_the_settings(self) -> None:
        self.door.change(disclosure=("size=5000", "trusted=192.0.2.1"))
        self.visit().play(
            BEGIN
            + """
            C: DEBUG
            S: 250-2.0.0 Version: Postoffice *
            S: 250-2.0.0 Host: mx.example.org
            S: 250-2.0.0 size=5000
            S: 250 2.0.0 trusted=192.0.2.1
            C: MAIL FROM:<>
            S: 250 *
            C: RCPT TO:<a@example.org>
            S: 250 *
            C: DEBUG
            S: 250-2.0.0 From: <>
            S: 250-2.0.0 To: <a@example.org>
            S: 250-2.0.0 Version: *
            S: 250-2.0.0 Host: *
            S: 250-2.0.0 size=*
            S: 250 2.0.0 trusted=*
            """
        )


class Trouble(Conversation):
    def test_a_full_spool(self) -> None:
        self.door.office.shelf.capacity = 10
        self.visit().play(BEGIN + LETTER.replace("250 2.0.0 OK, queued as *", "452 4.3.1 *"))
        self.door.office.shelf.capacity = None
        self.visit().play(BEGIN + LETTER)
        self.assertEqual(len(self.door.contents()), 1)

    def test_minfree(self) -> None:
        self.door.intake.settings = evolve(self.door.intake.settings, minfree=1000)
        self.door.free = 1500
        self.visit().play(
            BEGIN + "C: MAIL FROM:<> SIZE=600\nS: 452 4.3.1 *\nC: MAIL FROM:<> SIZE=100\nS: 250 *"
        )

    def test_a_spool_that_is_gone(self) -> None:
        """It is the disk's fault, not a bug, and the log says which directory is meant."""
        self.door.intake.settings = evolve(self.door.intake.settings, minfree=1000)
        self.door.free = None
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 451 4.3.0 *\nC: NOOP\nS: 250 *")
        self.assertEqual(self.facts("error"), [])
        self.assertIn("/nowhere", str(self.facts("refused")[0]))

    def test_a_spool_that_cannot_write(self) -> None:
        spool = self.door.office.spool
        draft = spool.draft

        def failing() -> object:
            made = draft()
            made.commit = lambda *_: fail(SpoolFailed("input/output error"))  # type: ignore[method-assign,assignment]
            return made

        with mock.patch.object(spool, "draft", failing):
            self.visit().play(BEGIN + LETTER.replace("250 2.0.0 OK, queued as *", "451 4.3.0 *"))
        self.visit().play(BEGIN + LETTER)

    def test_a_bug_is_logged_and_the_session_lives(self) -> None:
        self.visit().play(
            BEGIN
            + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<bug@example.org>\nS: 451 4.3.0 *\nC: NOOP\nS: 250 *"
        )
        self.assertIn("ZeroDivisionError", self.facts("error")[0])

    def test_a_bug_in_one_recipient_leaves_the_others(self) -> None:
        """The engine's transaction goes on behind a RCPT that was refused, and so does ours."""
        self.visit().play(
            BEGIN
            + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<bug@example.org>\nS: 451 4.3.0 *\n"
            + "C: RCPT TO:<alice@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        self.assertEqual(len(self.facts("error")), 1)

    def test_no_reply_before_the_commit(self) -> None:
        """The 250 is written when the Deferred of the commit has fired, not before."""
        commits: list[Deferred[None]] = []
        with mock.patch.object(self.door.office.spool, "draft", self.slow(commits)):
            visit = self.visit()
            visit.play(BEGIN + LETTER.replace("S: 250 2.0.0 OK, queued as *", ""))
            self.assertEqual(visit.send(b"NOOP\r\n"), b"")
            commits[0].callback(None)
            self.assertRegex(visit.heard(), rb"^250 2\.0\.0 OK, queued as \w+\r\n250 2\.0\.0 OK\r\n$")


class Limiting(Conversation):
    def test_too_many_sessions(self) -> None:
        self.door.doorkeeper.limits = Limits(2, 0)
        self.visit().play(BEGIN)
        self.visit().play(BEGIN)
        third = self.door.visit(OUTSIDE)
        self.assertEqual(third.heard()[:10], b"451 4.3.2 ")
        self.assertTrue(third.closed)

    def test_too_many_from_one_address_and_our_own_are_exempt(self) -> None:
        self.door.doorkeeper.limits = Limits(0, 1)
        self.visit().play(BEGIN)
        self.assertEqual(self.door.visit(OUTSIDE).heard()[:10], b"451 4.3.2 ")
        self.visit("192.0.2.10").play(BEGIN)
        for _ in range(3):
            self.visit("127.0.0.1").play(BEGIN)

    def test_trusted_hosts_may_relay(self) -> None:
        for trusted in (OUTSIDE, "client.example"):
            self.door.judge(trusted=frozenset({trusted}))
            self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@far.example>\nS: 250 *")

    def test_A9_a_command_in_single_octets_has_no_more_time(self) -> None:
        visit = self.visit()
        visit.heard()
        for _ in range(4):
            self.assertEqual(visit.send(b"N"), b"")
            self.door.office.clock.advance(59)
        self.assertEqual(visit.send(b"OOP\r\n")[:4], b"500 ")
        for _ in range(5):
            self.assertEqual(visit.send(b"N"), b"")
            self.door.office.clock.advance(60)
        self.assertEqual(visit.heard()[:10], b"421 4.4.2 ")
        self.assertTrue(visit.closed)

    def test_idle_clients_are_dropped(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        for _ in range(5):
            self.door.office.clock.advance(59)
        self.assertEqual(visit.heard(), b"")
        self.door.office.clock.advance(60)
        self.assertEqual(visit.heard()[:10], b"421 4.4.2 ")
        self.assertTrue(visit.closed)

    def test_A9_a_client_that_only_talks_is_dropped_after_an_hour(self) -> None:
        transaction = "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *"
        for pace, ended in (Pace(300.0, 50), True), (Pace(0.0, 50), False):
            for talk in ("C: NOOP\nS: 250 *", "C: RSET\nS: 250 *\n" + transaction):
                self.door.factory.pace = pace
                visit = self.visit()
                visit.play(BEGIN)
                for _ in range(60):
                    visit.play(talk)
                    self.door.office.clock.advance(60)
                # What counts is when we began to wait for the command.
                for _ in range(2):
                    self.assertEqual(visit.send(b"NOOP\r\n")[:3], b"250")
                    self.door.office.clock.advance(1)
                self.assertEqual(visit.send(b"NOOP\r\n")[:10] == b"421 4.4.2 ", ended)
                self.assertEqual(visit.closed, ended)

    def test_A9_the_hour_begins_anew_with_content_that_is_worth_it(self) -> None:
        begin = BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *"
        self.door.change(size=1_000_000)
        begin = begin.replace("SIZE 5000", "SIZE 1000000")
        for size, closed in ((2000, False), (1, True)):
            visit = self.visit()
            visit.play(begin)
            for _ in range(100):
                if not visit.closed:
                    visit.send(b"BDAT %d\r\n%b" % (size, b"x" * (size - 1) + b"\n"))
                    self.door.office.clock.advance(60)
            self.assertEqual(visit.closed, closed)

    def test_the_hour_begins_anew_with_each_letter_and_not_within_its_content(self) -> None:
        self.door.factory.pace = Pace(300.0, 1)
        visit = self.visit()
        visit.play(BEGIN)
        begin = "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        for _ in range(3):
            for _ in range(30):
                visit.play("C: NOOP\nS: 250 *")
                self.door.office.clock.advance(60)
            visit.play(begin)
            for _ in range(40):
                visit.send(b"x" * 100 + b"\r\n")
                self.door.office.clock.advance(60)
            self.assertEqual(visit.send(b".\r\n")[:3], b"250")

    def test_slow_content_is_dropped_after_a_minute(self) -> None:
        # With and without a limit on idleness.
        for idle in (300.0, 0.0):
            self.door.factory.pace = Pace(idle, 50)
            slow, steady = self.visit(), self.visit()
            for visit in (slow, steady):
                visit.play(
                    BEGIN
                    + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
                )
            for _ in range(20):
                slow.send(b"x" * 10 + b"\r\n")
                steady.send(b"x" * 600 + b"\r\n") if not steady.closed else None
                self.door.office.clock.advance(6)
            self.assertTrue(slow.closed)
            self.assertFalse(steady.closed)

    def test_a_client_that_runs_ahead_is_not_read(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        resolving: Deferred[object] = Deferred()
        with mock.patch.object(self.door.factory.directory, "resolve", lambda _: resolving):
            session = next(iter(self.door.doorkeeper.sessions))
            session.directory = self.door.factory.directory
            visit.send(b"MAIL FROM:<>\r\nRCPT TO:<slow@example.org>\r\n")
            visit.send(b"NOOP\r\n" * (READ_AHEAD // 6 + 10))
            self.assertEqual(visit.transport.producerState, "paused")
            resolving.callback(None)
        visit.turns()
        self.assertEqual(visit.transport.producerState, "producing")
        self.assertEqual(visit.heard().count(b"250 2.0.0 OK"), READ_AHEAD // 6 + 10)

    def test_a_client_that_does_not_read_is_not_answered(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        visit.link.pauseProducing()
        self.assertEqual(visit.send(b"NOOP\r\n"), b"")
        visit.link.resumeProducing()
        self.assertEqual(visit.heard(), b"250 2.0.0 OK\r\n")

    def test_a_client_that_reads_nothing_is_not_read_for_ever(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        visit.link.pauseProducing()
        for _ in range(10):
            if visit.transport.producerState == "producing":
                visit.send(b"NOOP\r\n" * (READ_AHEAD // 24))
        self.assertEqual(visit.transport.producerState, "paused")
        self.assertLess(visit.link.engine.buffered, 2 * READ_AHEAD)
        visit.link.resumeProducing()
        visit.turns()
        self.assertEqual(visit.transport.producerState, "producing")
        self.assertEqual(visit.link.engine.buffered, 0)

    def test_A9_others_are_served_between_the_commands_of_one(self) -> None:
        greedy, other = self.visit(), self.visit()
        for visit in (greedy, other):
            visit.play(BEGIN)
        said = greedy.send(b"NOOP\r\n" * 1000)
        self.assertEqual(said.count(b"250 "), AT_ONCE)
        # What comes meanwhile waits with the rest.
        self.assertEqual(greedy.send(b"NOOP\r\n"), b"")
        self.assertEqual(other.send(b"NOOP\r\n")[:4], b"250 ")
        greedy.turns()
        self.assertEqual(greedy.heard().count(b"250 "), 1001 - AT_ONCE)

    def test_A9_replies_are_not_gathered_without_end(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        writes: list[bytes] = []

        def write(data: bytes) -> None:
            # The buffer is full at once, and the client does not read.
            writes.append(data)
            visit.link.pauseProducing()

        with mock.patch.object(visit.transport, "write", write):
            visit.send(b"HELP\r\n" * 5000)
            visit.turns()
        self.assertEqual([each.count(b"214 ") for each in writes], [AT_ONCE])

    def test_who_reads_again_before_his_turn(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        visit.send(b"NOOP\r\n" * 250)
        visit.link.pauseProducing()
        visit.link.resumeProducing()
        self.assertEqual(visit.heard().count(b"250 "), AT_ONCE)
        visit.turns()
        self.assertEqual(visit.heard().count(b"250 "), 50)

    def test_a_crowd_of_commands_that_is_hung_up(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        visit.send(b"NOOP\r\n" * 1000)
        visit.link.readConnectionLost()
        self.assertFalse(visit.closed)
        visit.turns()
        self.assertTrue(visit.closed)
        self.assertEqual(visit.heard().count(b"250 "), 1000 - AT_ONCE)

    def test_a_closed_connection_that_is_not_read_is_cut(self) -> None:
        visit = self.visit()
        visit.play(BEGIN + "C: QUIT\nS: 221 *")
        self.door.office.clock.advance(11)
        self.assertTrue(visit.transport.disconnected)


class HalfClosed(Conversation):
    def test_what_was_sent_before_is_answered(self) -> None:
        commits: list[Deferred[None]] = []
        visit = self.visit()
        visit.play(BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *")
        with mock.patch.object(self.door.office.spool, "draft", self.slow(commits)):
            visit.play("C: DATA\nS: 354 *")
            visit.send(b"Subject: x\r\n\r\n.\r\nNOOP\r\n")
            visit.link.readConnectionLost()
            self.assertFalse(visit.closed)
            commits[0].callback(None)
        self.assertRegex(visit.heard(), rb"^250 .* queued as .*\r\n250 2\.0\.0 OK\r\n$")
        self.assertTrue(visit.closed)
        self.assertEqual(len(self.door.contents()), 1)

    def test_an_idle_session_ends(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        visit.link.readConnectionLost()
        self.assertTrue(visit.closed)

    def test_half_a_letter_is_none(self) -> None:
        visit = self.visit()
        visit.play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        visit.send(b"Subject: x\r\n\r\nhalf\r\n")
        visit.link.readConnectionLost()
        self.assertTrue(visit.closed)
        self.assertEqual(self.door.contents(), [])


class Ordering(Conversation):
    def test_A5_a_slow_recipient_does_not_reorder_replies(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        resolving: Deferred[object] = Deferred()
        with mock.patch.object(self.door.factory.directory, "resolve", lambda _: resolving):
            visit.send(b"MAIL FROM:<>\r\nRCPT TO:<slow@example.org>\r\nFOO\r\nNOOP\r\n")
            self.assertEqual(visit.heard(), b"")
            resolving.callback(None)
        codes = [line[:3] for line in visit.heard().split(b"\r\n")[:-1]]
        self.assertEqual(codes, [b"250", b"250", b"500", b"250"])

    def test_A5_bytes_before_the_banner(self) -> None:
        naming: Deferred[str | None] = Deferred()
        with mock.patch.object(self.door.resolver, "reverse", lambda _: naming):
            visit = self.visit()
            visit.send(b"EHLO early\r\n")
            naming.callback(None)
        self.assertEqual(visit.heard()[:10], b"554 5.5.1 ")
        self.assertTrue(visit.closed)

    def test_A5_content_sent_without_waiting_for_354(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        said = visit.send(
            b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n"
        )
        self.assertEqual([line[:3] for line in said.split(b"\r\n")[:-1]], [b"250", b"250", b"554"])
        self.assertTrue(visit.closed)
        self.assertEqual(self.door.contents(), [])


class SlowPolicy(ScriptedPolicy):
    """One that does not come to an answer to the question `name`; everybody may relay."""

    def __init__(self, name: str) -> None:
        super().__init__(Client(INSIDE, may_relay=True))
        self.unanswered: list[Deferred[Any]] = []
        method = getattr(self, name)

        async def wait(*asked: object) -> object:
            self.unanswered.append(Deferred())
            await self.unanswered[-1]
            return await method(*asked)

        setattr(self, name, wait)


class Stopping(Conversation):
    def test_idle_sessions_end_and_a_letter_that_is_coming_in_is_finished(self) -> None:
        idle, busy = self.visit(), self.visit()
        idle.play(BEGIN)
        busy.play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
        self.assertEqual(idle.heard()[:10], b"421 4.3.2 ")
        self.assertEqual(busy.heard(), b"")
        self.assertRegex(busy.send(b"x\r\n.\r\n"), rb"^250 .*\r\n421 4\.3\.2 .*\r\n$")
        self.assertNoResult(stopped)
        for visit in (idle, busy):
            visit.leave()
        self.visits.clear()
        self.successResultOf(stopped)
        self.assertEqual(len(self.door.contents()), 1)

    def test_one_that_takes_too_long_is_cut_off(self) -> None:
        busy = self.visit()
        busy.play(
            BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 354 *"
        )
        stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
        self.door.office.clock.advance(3.0)
        self.assertTrue(busy.transport.disconnected)
        busy.leave()
        self.visits.clear()
        self.successResultOf(stopped)

    def test_A10_nobody_waits_for_an_answer_that_does_not_come(self) -> None:
        asked = ("client", "helo", "sender", "recipient", "content", "content")
        said = (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@far.example>\r\n", b"DATA\r\n")
        for count, name in enumerate(asked):
            self.door.factory.policy = slow = SlowPolicy(name)
            visit = self.visit(INSIDE)
            for line in (*said[:3], b"BDAT 5 LAST\r\n12345") if count == 5 else said[:count]:
                visit.send(line)
            self.assertEqual(len(slow.unanswered), 1, name)
            stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
            self.successResultOf(stopped)
            self.assertIn(b"421 4.3.2 ", visit.heard())
            self.assertTrue(visit.transport.disconnecting)
        self.assertEqual(self.facts("error"), [])
        self.assertEqual(self.door.contents(), [])

    def test_a_letter_that_is_being_stored_is_waited_for(self) -> None:
        commits: list[Deferred[None]] = []
        self.door.office.spool.draft = self.slow(commits)  # type: ignore[method-assign,assignment]
        visit = self.visit()
        visit.send(b"EHLO x\r\n")
        visit.send(b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n")
        visit.send(b"x\r\n.\r\n")
        stopped = Deferred.fromCoroutine(self.door.doorkeeper.stop(3.0))
        self.door.office.clock.advance(3.0)
        self.assertTrue(visit.transport.disconnected)
        visit.leave()
        self.visits.clear()
        self.assertNoResult(stopped)
        commits[0].callback(None)
        self.successResultOf(stopped)
        # The client never heard of it, but it is here.
        self.assertEqual(len(self.door.contents()), 1)


class Names(Conversation):
    def test_the_banner_names_us_the_client_and_what_is_configured(self) -> None:
        self.door.change(banner="No spam, please.\nReally.")
        visit = self.visit()
        self.assertEqual(
            visit.heard(),
            b"220-mx.example.org ESMTP Postoffice greets client.example\r\n"
            b"220-No spam, please.\r\n220 Really.\r\n",
        )
        self.door.change(banner="")
        self.assertIn(b" greets [192.0.2.10]\r\n", self.visit("192.0.2.10").heard())

    def test_A6_nothing_a_client_says_makes_a_line_of_its_own(self) -> None:
        for text in ("a\tb", "a(b)c", "%0d%0aX-Evil: 1", "=?utf-8?q?x?=", "a;b", '"quoted"'):
            visit = self.visit()
            visit.send(b"HELO " + text.encode() + b"\r\n")
            visit.send(b"MAIL FROM:<>\r\n")
            visit.send(b"RCPT TO:<a@example.org>\r\n")
            visit.send(b"DATA\r\n")
            visit.send(b"Subject: x\r\n\r\n.\r\n")
        for content in self.door.contents():
            head = content.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b" ")
            self.assertEqual([line.split(b":")[0] for line in head.split(b"\r\n")], [b"Received", b"Subject"])

    def test_the_sender_is_kept(self) -> None:
        self.door.office.local.answer = None
        self.visit().play(BEGIN + LETTER)
        (found,) = self.door.office.shelf.letters.values()
        self.assertEqual(found.letter.sender, Address("sender", "example.org"))
        self.door.office.local.finish()
