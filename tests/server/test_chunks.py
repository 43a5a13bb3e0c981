"""CHUNKING (RFC 3030) in conversation: the same letters, the same policy, the same bounds as with DATA."""

from __future__ import annotations

from unittest import mock

from twisted.internet.defer import Deferred

from postoffice.interfaces import SpoolFull
from postoffice.mail.reply import Refusal, Reply
from postoffice.server.link import READ_AHEAD, Pace
from tests.server.test_session import BEGIN, Conversation

ENVELOPE = """
    C: MAIL FROM:<sender@example.org>
    S: 250 *
    C: RCPT TO:<a@example.org>
    S: 250 *
"""
PIPELINED = b"MAIL FROM:<sender@example.org>\r\nRCPT TO:<a@example.org>\r\n"


class Chunks(Conversation):
    def codes(self, replies: bytes) -> list[bytes]:
        return [line[:3] for line in replies.split(b"\r\n")[:-1]]

    def test_it_is_announced(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertIn(b"250-CHUNKING\r\n", visit.send(b"EHLO x\r\n"))

    def test_a_letter_in_chunks(self) -> None:
        visit = self.visit()
        visit.play(BEGIN + ENVELOPE)
        self.assertEqual(
            visit.send(b"BDAT 21\r\nSubject: hello\r\n\r\n.\r\n"), b"250 2.0.0 21 octets received\r\n"
        )
        self.assertEqual(self.door.contents(), [])
        self.assertTrue(visit.send(b"BDAT 6 LAST\r\nbody\r\n").startswith(b"250 2.0.0 OK, queued as "))
        (content,) = self.door.contents()
        self.assertTrue(content.startswith(b"Received: from me.example "))
        self.assertTrue(content.endswith(b"\r\nSubject: hello\r\n\r\n.\r\nbody\r\n"), content)

    def test_pipelined_with_the_next_letter(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        letter = PIPELINED + b"BDAT 14\r\nSubject: x\r\n\r\nBDAT 3 LAST\r\na\r\n"
        self.assertEqual(self.codes(visit.send(letter * 3 + b"QUIT\r\n")), [b"250"] * 12 + [b"221"])
        self.assertEqual(len(self.door.contents()), 3)
        self.assertTrue(all(content.endswith(b"\r\n\r\na\r\n") for content in self.door.contents()))

    def test_policy_is_asked_once_and_answers_at_the_end_of_the_first_chunk(self) -> None:
        asked = []

        async def content(*arguments: object) -> None:
            asked.append(arguments)
            raise Refusal(Reply(451, (7, 1), "Come back later"))

        visit = self.visit()
        visit.play(BEGIN)
        with mock.patch.object(self.door.factory.policy, "content", content):
            codes = self.codes(visit.send(PIPELINED + b"BDAT 3\r\na\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"))
        self.assertEqual(codes, [b"250", b"250", b"451", b"503", b"250"])
        self.assertEqual(len(asked), 1)
        self.assertEqual((self.door.contents(), self.door.office.entries()), ([], {}))

    def test_policy_may_take_its_time(self) -> None:
        verdict: Deferred[None] = Deferred()

        async def content(*arguments: object) -> None:
            await verdict

        visit = self.visit()
        visit.play(BEGIN)
        with mock.patch.object(self.door.factory.policy, "content", content):
            visit.send(PIPELINED + b"BDAT 3 LAST\r\na\r\nNOOP\r\n")
            self.assertEqual(self.door.contents(), [])
            verdict.callback(None)
        self.assertEqual(self.codes(visit.heard()), [b"250"] * 4)
        self.assertEqual(len(self.door.contents()), 1)

    def test_a_bug_is_answered_where_it_can_be(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        with mock.patch.object(self.door.intake, "begin", side_effect=ZeroDivisionError("oops")):
            codes = self.codes(visit.send(PIPELINED + b"BDAT 3\r\na\r\nBDAT 0 LAST\r\nNOOP\r\n"))
        self.assertEqual(codes, [b"250", b"250", b"451", b"503", b"250"])
        self.assertEqual(len(self.facts("error")), 1)

    def test_refused_for_its_size(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        codes = self.codes(visit.send(PIPELINED + b"BDAT 5001\r\n" + b"x" * 5001 + b"NOOP\r\n"))
        self.assertEqual(codes, [b"250", b"250", b"552", b"250"])
        self.assertEqual(self.door.office.entries(), {})

    def test_a_spool_that_fills_is_told_with_the_chunk(self) -> None:
        draft = self.door.office.spool.draft

        def full() -> object:
            made = draft()
            made.write = mock.Mock(  # type: ignore[method-assign]
                side_effect=lambda data: Deferred.fromCoroutine(self.fill())
            )
            return made

        visit = self.visit()
        visit.play(BEGIN)
        with mock.patch.object(self.door.office.spool, "draft", full):
            codes = self.codes(
                visit.send(PIPELINED + b"BDAT 14\r\nSubject: x\r\n\r\nBDAT 3 LAST\r\na\r\nNOOP\r\n")
            )
        self.assertEqual(codes, [b"250", b"250", b"452", b"503", b"250"])

    async def fill(self) -> None:
        raise SpoolFull("no room")

    def test_RSET_and_leaving_drop_what_came(self) -> None:
        visit = self.visit()
        visit.play(BEGIN)
        chunk = PIPELINED + b"BDAT 16\r\nSubject: x\r\n\r\na\r"
        self.assertEqual(self.codes(visit.send(chunk + b"RSET\r\nBDAT 1 LAST\r\nx")), [b"250"] * 4 + [b"503"])
        visit.send(chunk)
        self.visits.remove(visit)
        visit.leave()
        self.assertEqual((self.door.contents(), self.door.office.entries()), ([], {}))

    def test_slow_chunks_are_dropped_and_slow_commands_are_not(self) -> None:
        self.door.factory.pace = Pace(300.0, 50)
        slow, refused, between = self.visit(), self.visit(), self.visit()
        for visit, size in ((slow, 1000), (refused, 9999)):
            visit.play(BEGIN + ENVELOPE)
            visit.send(b"BDAT %d\r\n" % size)
        between.play(BEGIN + ENVELOPE)
        between.send(b"BDAT 1\r\na")
        for _ in range(20):
            slow.send(b"x" * 10)
            refused.send(b"x" * 10)
            self.door.office.clock.advance(6)
        self.assertTrue(slow.closed)
        self.assertTrue(refused.closed)
        self.assertFalse(between.closed)

    def test_a_client_that_runs_ahead_is_not_read(self) -> None:
        verdict: Deferred[None] = Deferred()

        async def content(*arguments: object) -> None:
            await verdict

        self.door.change(size=0)
        visit = self.visit()
        visit.play(BEGIN.replace("SIZE 5000", "SIZE 0"))
        size = 4 * READ_AHEAD
        with mock.patch.object(self.door.factory.policy, "content", content):
            visit.send(PIPELINED + b"BDAT %d LAST\r\n" % size)
            for _ in range(size // 64):
                visit.send(b"x" * 62 + b"\r\n") if visit.transport.producerState == "producing" else None
            self.assertEqual(visit.transport.producerState, "paused")
            self.assertLess(visit.link.engine.buffered, 2 * READ_AHEAD)
            verdict.callback(None)
        self.assertEqual(visit.transport.producerState, "producing")
        self.assertEqual(visit.link.engine.buffered, 0)
