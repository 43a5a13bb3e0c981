"""What every filter's part in a session must do, whatever the filter is.

`make(answer)` gives a session that is not open yet of a filter whose last word on a letter is `continue`,
`accept` with a field `X-Seen: yes`, `refuse` with `550 5.7.1 no`, `discard`, or none (`fail`). `run_(work)`
runs a coroutine to its end.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from postoffice.filters.letter import Replaced
from postoffice.interfaces import Draught, IFilterSession
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Reply
from postoffice.milter.edits import AddHeader, Field
from postoffice.milter.facts import Facts, Place
from postoffice.milter.verdicts import Accept, Continue, Discard, Failed, Refuse, Verdict

SENDER, RECIPIENT = Address("a", "example.net"), Address("b", "example.org")
LETTER = Draught(Envelope(SENDER, (RECIPIENT,)), (Field(b"Subject", b"", b" s"),), Replaced(b"text\r\n"))


class FilterSessionContract:
    """The promises of `IFilterSession`."""

    assertEqual: Any
    assertIsInstance: Any
    run_: Any
    answers: tuple[str, ...] = ("continue", "accept", "refuse", "discard")

    def make(self, answer: str) -> IFilterSession:
        raise NotImplementedError

    def facts(self) -> Facts:
        client = Client("192.0.2.9", 1, None, "client.example", "ESMTP")
        facts = Facts(client, Place("mx.example.org"), lambda: 1.0, letter_id="QID")
        facts.sender, facts.recipient, facts.arguments = SENDER, RECIPIENT, [b"<b@example.org>"]
        return facts

    def letter(self, session: IFilterSession) -> Verdict:
        async def play() -> Verdict:
            facts = self.facts()
            for verdict in (
                await session.sender(facts),
                await session.recipient(facts),
                await session.data(facts),
            ):
                self.assertEqual(verdict, Continue())
            return await session.content(facts, LETTER, 2_000_000.0)

        verdict: Verdict = self.run_(play())
        return verdict

    def begin(self, answer: str) -> IFilterSession:
        session = self.make(answer)

        async def play() -> None:
            self.assertEqual(await session.open(), Continue())
            self.assertEqual(await session.client(self.facts()), Continue())
            self.assertEqual(await session.helo(self.facts()), Continue())

        self.run_(play())
        return session

    def test_provides_the_interface(self) -> None:
        session = self.make("continue")
        verifyObject(IFilterSession, session)
        session.close()

    def test_verdicts_and_edits(self) -> None:
        for answer, verdicts, edits in (
            ("continue", (Continue(), Accept()), []),
            ("accept", (Continue(), Accept()), [AddHeader(b"X-Seen", b"yes")]),
            ("refuse", (Refuse(Reply(550, (7, 1), "no")),), []),
            ("discard", (Discard(),), []),
        ):
            if answer not in self.answers:
                continue
            session = self.begin(answer)
            for _ in range(2):
                self.assertEqual((self.letter(session) in verdicts, session.silent), (True, False))
                self.assertEqual(list(session.edits()), edits)
                session.abort()
            session.abort()
            session.close()
            session.close()

    def test_trouble_is_a_verdict(self) -> None:
        session = self.begin("fail")
        self.assertIsInstance(self.letter(session), Failed)
        self.assertEqual(list(session.edits()), [])
        session.close()

    def test_letters_that_come_to_nothing(self) -> None:
        session = self.begin("continue")
        self.run_(self._half(session))
        session.abort()
        self.letter(session)
        session.close()

    async def _half(self, session: IFilterSession) -> None:
        await session.sender(self.facts())
        await session.recipient(self.facts())
