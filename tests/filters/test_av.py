"""The AV program: how it ends, and what that means for a letter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.filters.av import UNSAID, Scanner
from postoffice.interfaces import IFilterSession, SpoolFailed
from postoffice.mail.reply import Reply
from postoffice.milter.verdicts import Continue, Failed, Refuse
from tests.filter_contract import LETTER, FilterSessionContract


class ScannerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.end: dict[str, Any] | Exception = {"status": 0, "output": ""}
        self.seen: list[tuple[dict[str, str], bytes, float]] = []
        self.waiting: Deferred[Any] | None = None

    async def check(
        self,
        environment: dict[str, str],
        pieces: AsyncIterator[bytes],
        timeout: float,
        begun: Callable[[Deferred[Any]], None],
    ) -> dict[str, Any]:
        self.seen.append((environment, b"".join([piece async for piece in pieces]), timeout))
        if self.waiting is not None:
            begun(self.waiting)
            await self.waiting
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def session(self, timeout: float = 120.0) -> IFilterSession:
        return Scanner(self.check, timeout, self.clock).session()

    def run_(self, work: Coroutine[Any, Any, Any]) -> Any:
        found: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(found.append)
        return found[0]

    def verdict(self, end: dict[str, Any] | Exception) -> Any:
        self.end = end
        return self.run_(self.session().content(Contract.facts(self), LETTER, 570.0))  # type: ignore[arg-type]


class Ends(ScannerCase):
    def test_status(self) -> None:
        self.assertEqual(self.verdict({"status": 0, "output": "all is well"}), Continue())
        for output, text in (
            ("", UNSAID),
            ("Eicar found\r\n\n in it \x07\n", "Eicar found / in it ?"),
            ("x" * 4096, "x" * 400),
        ):
            self.assertEqual(self.verdict({"status": 1, "output": output}), Refuse(Reply(550, (7, 1), text)))

    def test_failures(self) -> None:
        for end, why in (
            ({"signal": 9, "output": "half"}, "signal 9"),
            ({"timeout": True, "output": ""}, "too long"),
            ({"status": 127, "output": "sh: 1: nothing: not found"}, "not found"),
            ({"status": 126, "output": ""}, "cannot be run"),
            (OSError("no descriptors"), "no descriptors"),
        ):
            verdict = self.verdict(end)  # type: ignore[arg-type]
            self.assertIsInstance(verdict, Failed)
            self.assertIn(why, verdict.why)

    def test_a_letter_that_cannot_be_read_is_no_fault_of_the_command(self) -> None:
        self.assertIsInstance(self.verdict(SpoolFailed("gone")).value, SpoolFailed)

    def test_what_it_gets(self) -> None:
        self.verdict({"status": 0, "output": ""})
        ((environment, letter, timeout),) = self.seen
        self.assertEqual(environment, {"SENDER": "a@example.net", "RECIPIENT": "b@example.org"})
        self.assertEqual(letter, b"Subject: s\r\n\r\ntext\r\n")
        self.assertEqual(timeout, 120.0)

    def test_its_time_ends_with_that_of_all_filters(self) -> None:
        facts = Contract.facts(self)  # type: ignore[arg-type]
        nobody = evolve(LETTER, envelope=evolve(LETTER.envelope, sender=None, recipients=()))
        for timeout, until, left in ((120.0, 50.0, 50.0), (0.0, 570.0, 570.0), (120.0, -1.0, 1.0)):
            self.run_(self.session(timeout).content(facts, nobody, until))  # type: ignore[arg-type]
            self.assertEqual(self.seen[-1][2], left)
        self.assertEqual(self.seen[-1][0], {"SENDER": "", "RECIPIENT": ""})

    def test_the_end_of_the_session_ends_it(self) -> None:
        self.waiting = Deferred()
        session = self.session()
        found: list[Any] = []
        work: Any = session.content(Contract.facts(self), LETTER, 570.0)  # type: ignore[arg-type]
        Deferred.fromCoroutine(work).addBoth(found.append)
        session.close()
        self.assertEqual(found, [Failed("the session is over")])

    def test_it_says_nothing_before_the_letter_is_there(self) -> None:
        session = self.session()
        facts = Contract.facts(self)  # type: ignore[arg-type]
        for _ in range(2):
            self.run_(session.sender(facts))  # type: ignore[arg-type]
            self.assertTrue(session.silent)
            self.run_(session.content(facts, LETTER, 570.0))  # type: ignore[arg-type]
            self.assertFalse(session.silent)
            session.abort()


class Contract(FilterSessionContract, ScannerCase):
    def make(self, answer: str) -> IFilterSession:
        self.end = {
            "continue": {"status": 0, "output": ""},
            "refuse": {"status": 1, "output": "no\n"},
            "fail": {"signal": 11, "output": ""},
        }[answer]
        return self.session()

    # A command can neither change a letter nor make it vanish.
    answers = ("continue", "refuse")
