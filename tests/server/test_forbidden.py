"""Clients that are turned away, and those that are let in with a mark."""

from __future__ import annotations

from postoffice.config.values import disposition
from postoffice.policy.access import Denied
from postoffice.server.lingering import PATIENCE, PAUSE
from postoffice.server.listener import MOST_PAUSING, Limits
from tests.server.support import OUTSIDE, Visit
from tests.server.test_session import BEGIN, LETTER, Conversation

WHY = "421 4.7.1 mx.example.org does not accept mail from client.example: you sent us spam"


class Lingering(Conversation):
    def setUp(self) -> None:
        super().setUp()
        self.door.access.denied = {OUTSIDE: Denied("you sent us spam", False)}

    def wait(self, seconds: float = PAUSE) -> None:
        self.door.office.clock.pump([1.0] * int(seconds))

    def test_every_command_is_refused_after_a_pause(self) -> None:
        visit = self.visit()
        visit.play(f"S: {WHY}")
        for command in (b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<a@example.org>", b"DATA", b"FOO"):
            self.assertEqual(visit.send(command + b"\r\n"), b"")
            self.wait(PAUSE - 1)
            self.assertEqual(visit.heard(), b"")
            self.assertFalse(visit.closed)
            self.wait(1)
            self.assertEqual(visit.heard()[:10], b"502 5.7.1 ")
        self.assertTrue(visit.closed)
        self.assertEqual(self.facts("refused"), [f"session: {WHY} ({WHY})"])

    def test_quitting(self) -> None:
        visit = self.visit()
        visit.play(f"S: {WHY}\nC: QUIT\nS: 221 2.0.0 Goodbye")
        self.assertTrue(visit.closed)

    def test_what_is_pipelined_gains_nothing(self) -> None:
        visit = self.visit()
        visit.heard()
        visit.send(b"NOOP\r\n" * 100)
        self.wait(PAUSE * PATIENCE)
        self.assertEqual(visit.heard().count(b"502 5.7.1 "), PATIENCE)
        self.assertTrue(visit.closed)

    def test_who_leaves_amid_a_pause_leaves_nothing(self) -> None:
        visit = self.visit()
        visit.send(b"EHLO x\r\n")
        self.visits.remove(visit)
        visit.leave()
        self.assertEqual(self.door.doorkeeper.pausing, set())
        self.assertEqual(self.door.office.clock.getDelayedCalls(), [])

    def test_who_says_nothing_times_out(self) -> None:
        visit = self.visit()
        visit.heard()
        self.wait(301)
        self.assertTrue(visit.closed)

    def test_A9_they_do_not_count_as_clients_and_are_few(self) -> None:
        self.door.doorkeeper.limits = Limits(1, 1)
        visits = [self.visit() for _ in range(MOST_PAUSING + 1)]
        self.assertTrue(all(visit.heard().startswith(WHY.encode()) for visit in visits))
        self.assertEqual([visit.closed for visit in visits], [False] * MOST_PAUSING + [True])
        self.visit("127.0.0.1").play(BEGIN)
        for visit in visits:
            self.visits.remove(visit)
            visit.leave()
        self.assertEqual(self.door.doorkeeper.pausing, set())
        self.door.access.denied = {}
        # Whoever was not counted is not counted off.
        (inside,) = self.visits
        self.visits.clear()
        inside.leave()
        self.visit().play(BEGIN)

    def test_a_reason_that_is_final_closes(self) -> None:
        self.door.access.denied = {OUTSIDE: Denied("you sent us spam", True)}
        visit = self.visit()
        self.assertEqual(visit.heard()[:10], b"521 5.7.1 ")
        self.assertTrue(visit.closed)

    def test_paranoid_closes(self) -> None:
        self.door.judge(paranoid=True)
        visit = self.visit("192.0.2.77")
        self.assertEqual(visit.heard()[:11], b"421 4.7.25 ")
        self.assertTrue(visit.closed)


class Marked(Conversation):
    def begin(self, folder: str) -> Visit:
        self.door.office.local.answer = None
        self.door.access.denied = {OUTSIDE: Denied("you sent us spam", False)}
        self.door.judge(forbidden=disposition(folder))
        return self.visit()

    def folder(self) -> str:
        (found,) = self.door.office.shelf.letters.values()
        self.door.office.local.finish()
        return found.letter.folder

    def test_accept_adds_the_reason(self) -> None:
        self.begin("accept").play(BEGIN + LETTER.replace("C: Subject", "C: X-Spam: theirs\nC: Subject"))
        (content,) = self.door.contents()
        head = content.partition(b"\r\n\r\n")[0].split(b"\r\n")
        self.assertIn(b"X-Spam: you sent us spam", head)
        self.assertLess(head.index(b"X-Spam: you sent us spam"), head.index(b"X-Spam: theirs"))
        self.assertEqual(self.folder(), "")

    def test_folder_is_kept_with_the_letter(self) -> None:
        self.door.intake.settings = self.door.folder("~/junk")
        self.begin("folder:~/junk").play(BEGIN + LETTER)
        self.assertIn(b"\r\nX-Spam: you sent us spam\r\n", self.door.contents()[0])
        self.assertEqual(self.folder(), "~/junk")

    def test_others_are_not_marked(self) -> None:
        self.door.intake.settings = self.door.folder("~/junk")
        self.begin("folder:~/junk")
        self.visit("127.0.0.1").play(BEGIN + LETTER)
        self.assertNotIn(b"X-Spam", self.door.contents()[0])
        self.assertEqual(self.folder(), "")


class Hurried(Conversation):
    def test_after_a_refused_MAIL_a_tenth_of_the_patience_is_left(self) -> None:
        for refused in ("MAIL FROM:<> SIZE=9999999", "MAIL FROM:nonsense here"):
            visit = self.visit()
            visit.play(BEGIN + f"C: {refused}\nS: 5*")
            self.door.office.clock.advance(29)
            self.assertFalse(visit.closed)
            self.door.office.clock.advance(2)
            self.assertEqual(visit.heard()[:10], b"421 4.4.2 ")
            self.assertTrue(visit.closed)

    def test_until_one_is_accepted(self) -> None:
        visit = self.visit()
        visit.play(BEGIN + "C: MAIL FROM:<> SIZE=9999999\nS: 552 *\nC: MAIL FROM:<>\nS: 250 *")
        self.door.office.clock.pump([10.0] * 29)
        self.assertFalse(visit.closed)
        self.door.office.clock.pump([10.0] * 7)
        self.assertTrue(visit.closed)


class Crowds(Conversation):
    def test_A9_a_host_with_a_network_of_its_own_is_one_client(self) -> None:
        self.door.doorkeeper.limits = Limits(0, 1)
        self.visit("2001:db8::1").play(BEGIN)
        self.assertEqual(self.door.visit("2001:db8::ffff:1").heard()[:10], b"451 4.3.2 ")
        self.visit("2001:db8:0:1::1").play(BEGIN)
