"""Audit records: one for each command, none when nobody wants them, and no secret in any."""

from __future__ import annotations

from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import Turned
from postoffice.mail.client import Client
from postoffice.mail.reply import Reply
from postoffice.server.audit import Audit
from tests.queue.support import Journal
from tests.server.test_session import BEGIN, LETTER, Conversation

CLIENT = Client("192.0.2.9")


class Records(Conversation):
    def records(self) -> list[str]:
        """The records so far, without the client's address."""
        return [record.replace(" 192.0.2.9 ", " ") for record in self.facts("audit")]

    def test_a_session_with_a_letter(self) -> None:
        self.door.office.journal.auditing = True
        visit = self.visit()
        visit.play(BEGIN)
        self.door.office.clock.advance(3)
        visit.play(LETTER + "C: quit\nS: 221 *")
        self.assertEqual(
            self.records(),
            [
                "0 CONN 220 ",
                "0 EHLO 250 EHLO me.example",
                "3 MAIL 250 MAIL FROM:<sender@example.org>",
                "3 RCPT 250 RCPT TO:<a@example.org>",
                "3 DATA 250 DATA",
                "3 QUIT 221 quit",
            ],
        )

    def test_refused_commands(self) -> None:
        self.door.office.journal.auditing = True
        said = "C: MAIL FROM:<a\nS: 501 *\nC: FROBNICATE x\nS: 500 *\nC: MAIL FROM:<> SIZE=9999\nS: 552 *"
        self.visit().play(BEGIN + said)
        self.assertEqual(
            self.records()[2:],
            [
                "0 MAIL 501 MAIL FROM:<a",
                "0 FROBNICATE 500 FROBNICATE x",
                "0 MAIL 552 MAIL FROM:<> SIZE=9999",
            ],
        )

    def stop(self) -> None:
        (session,) = self.door.doorkeeper.sessions
        session.stop()

    def test_how_sessions_end_without_QUIT(self) -> None:
        self.door.office.journal.auditing = True
        for end, how in (
            (lambda visit: None, "EOF"),
            (lambda visit: self.door.office.clock.advance(301), "timeout"),
            (lambda visit: visit.send(b"GET / HTTP/1.0\r\n\r\n"), "closed"),
            (lambda visit: self.stop(), "shutdown"),
        ):
            visit = self.visit()
            end(visit)
            visit.leave()
            self.visits.remove(visit)
            self.assertEqual(self.records()[-1].split(" ", 1)[1], f"QUIT 421 {how}")

    def test_who_is_turned_away(self) -> None:
        self.door.office.journal.auditing = True
        self.door.doorkeeper.limits = type(self.door.doorkeeper.limits)(1, 1)
        self.visit(), self.visit().heard()
        self.assertEqual(self.records()[-1], "0 CONN 451 limit of sessions reached")

    def test_whom_policy_turns_away(self) -> None:
        self.door.office.journal.auditing = True

        async def turn(client: Client) -> Client:
            raise Turned(Reply(521, None, "Go away"), "denied")

        with mock.patch.object(self.door.factory.policy, "client", turn):
            self.visit()
        self.assertEqual(self.records(), ["0 CONN 521 denied"])

    def test_none_unless_wanted_and_any_time(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        self.assertEqual(self.records(), [])
        self.door.office.journal.auditing = True
        visit.play("C: NOOP\nS: 250 *")
        self.door.office.journal.auditing = False
        visit.play("C: NOOP\nS: 250 *")
        self.assertEqual(self.records(), ["0 NOOP 250 NOOP"])


class Secrets(SynchronousTestCase):
    """What a client says while it logs in, line by line as the session tells it."""

    def setUp(self) -> None:
        self.journal = Journal()
        self.audit = Audit(self.journal, Clock())

    def say(self, line: bytes, code: int, known: bool = True) -> None:
        self.audit.answered(CLIENT, line, known, Reply(code, None, ""))

    def told(self) -> list[str]:
        return [text.removeprefix("0 192.0.2.9 ") for text in self.journal.named("audit")]

    def test_D6_passwords_are_in_no_record(self) -> None:
        self.say(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==", 235)
        self.say(b"auth login YWxpY2U=", 334)
        self.say(b"auth login YWxpY2U=", 535)
        # A client that did not wait for the exchange to fail goes on with it.
        self.say(b"c2VjcmV0", 500, known=False)
        self.say(b"NOOP", 250)
        self.say(b"FROBNICATE", 500, known=False)
        self.assertEqual(
            self.told(),
            [
                "AUTH 235 AUTH PLAIN *",
                "AUTH 535 auth login *",
                "* 500 *",
                "NOOP 250 NOOP",
                "FROBNICATE 500 FROBNICATE",
            ],
        )

    def test_AUTH_alone(self) -> None:
        self.say(b"AUTH", 501)
        self.assertEqual(self.told(), ["AUTH 501 AUTH"])
