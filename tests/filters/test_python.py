"""Python filters: what they are told, what they can say and change, and how they fail."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.filters.letter import Replaced
from postoffice.filters.plugin import PythonFilter, PythonSession
from postoffice.filters.python import (
    Facts,
    Filter,
    Letter,
    Verdict,
    accept,
    discard,
    put_off,
    reject,
)
from postoffice.interfaces import Draught, SpoolFailed
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Reply
from postoffice.milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Field,
    Hold,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from postoffice.milter.verdicts import Accept, Continue, Discard, Failed, Refuse
from tests.filter_contract import LETTER, SENDER, FilterSessionContract
from tests.support import CHECKOUT

HERE = "tests.filters.test_python"


class Scripted(Filter):
    """Does with a letter what `does` says."""

    does: Any = None
    unknowns: Any = None
    told: list[str] = []

    def unknown(self, facts: Facts, line: bytes) -> Verdict | None:
        return self.unknowns  # type: ignore[no-any-return]

    def letter(self, facts: Facts, letter: Letter) -> Any:
        return None if self.does is None else type(self).does(letter)

    def over(self) -> None:
        self.told.append("over")

    def close(self) -> None:
        self.told.append("close")


class NotAFilter:
    pass


class PythonCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reported: list[str] = []
        Scripted.does, Scripted.unknowns, Scripted.told = None, None, []
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def filter(self, name: str = f"{HERE}:Scripted") -> PythonFilter:
        return PythonFilter(name, 10.0, lambda text, error: self.reported.append(repr(error)), self.clock)

    def run_(self, work: Coroutine[Any, Any, Any]) -> Any:
        found: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(found.append)
        return found[0] if found else None


class Contract(FilterSessionContract, PythonCase):
    def make(self, answer: str) -> PythonSession:
        def broken(letter: Letter) -> None:
            raise ZeroDivisionError

        def marked(letter: Letter) -> Verdict:
            letter.add_header("X-Seen", "yes")
            return accept()

        Scripted.does = {
            "continue": None,
            "accept": marked,
            "refuse": lambda letter: reject("no"),
            "discard": lambda letter: discard(),
            "fail": broken,
        }[answer]
        session = self.filter().session()
        assert isinstance(session, PythonSession)
        return session


class Letters(PythonCase):
    def verdict(self, does: Any) -> tuple[Verdict, list[Any]]:
        """What a letter gets, and the edits of it."""
        Scripted.does = does
        session = self.filter().session()
        self.run_(session.open())  # type: ignore[arg-type]
        verdict = self.run_(session.content(Contract.facts(self), LETTER, 100.0))  # type: ignore[arg-type]
        edits = list(session.edits())
        session.close()
        return verdict, edits

    def test_verdicts(self) -> None:
        async def later(letter: Letter) -> Verdict | None:
            return put_off("not now")

        for does, verdict in (
            (lambda letter: None, Continue()),
            (lambda letter: accept(), Accept()),
            (lambda letter: discard(), Discard()),
            (lambda letter: reject("no\r\nsuch"), Refuse(Reply(550, (7, 1), "no?such"))),
            (later, Refuse(Reply(451, (7, 1), "not now"))),
        ):
            self.assertEqual(self.verdict(does), (verdict, []))

    def test_unknown_commands_can_only_be_refused(self) -> None:
        for said, verdict in (
            (None, Continue()),
            (reject("no"), Refuse(Reply(550, (7, 1), "no"))),
            (put_off("later"), Refuse(Reply(451, (7, 1), "later"))),
            (discard(), Continue()),
            (accept(), Continue()),
            (17, Failed("its answer is no verdict: 17")),
        ):
            Scripted.unknowns = said
            session = self.filter().session()
            self.run_(session.open())  # type: ignore[arg-type]
            asked = session.unknown(Contract.facts(self), b"NONSENSE")  # type: ignore[arg-type]
            self.assertEqual(self.run_(asked), verdict)  # type: ignore[arg-type]
            # Nothing of it is about the letter.
            self.assertEqual(self.run_(session.data(Contract.facts(self))), Continue())  # type: ignore[arg-type]
            self.assertFalse(session.silent)
            session.close()

    def test_who_has_accepted_is_asked_no_more(self) -> None:
        Scripted.does = lambda letter: accept()
        session = self.filter().session()
        self.run_(session.open())  # type: ignore[arg-type]
        for silent in (False, True):
            self.run_(session.content(Contract.facts(self), LETTER, 100.0))  # type: ignore[arg-type]
            self.assertEqual(session.silent, silent)
        session.close()

    def test_every_change(self) -> None:
        def change(letter: Letter) -> None:
            letter.add_header("A", "1")
            letter.insert_header(1, "B", "2")
            letter.change_header("Subject", "t")
            letter.remove_header("C", 2)
            letter.replace_body(b"x")
            letter.replace_body(b"y")
            letter.add_recipient("a@b")
            letter.remove_recipient("c@d")
            letter.change_sender("")
            letter.hold("odd")

        self.assertEqual(
            self.verdict(change)[1],
            [
                AddHeader(b"A", b"1"),
                InsertHeader(1, b"B", b"2"),
                ChangeHeader(1, b"Subject", b"t"),
                ChangeHeader(2, b"C", b""),
                ReplaceBody(b"y"),
                AddRecipient(b"a@b"),
                RemoveRecipient(b"c@d"),
                ChangeSender(b""),
                Hold(b"odd"),
            ],
        )

    def test_changes_of_what_is_refused_are_none(self) -> None:
        def change(letter: Letter) -> Verdict:
            letter.add_header("A", "1")
            return reject("no")

        self.assertEqual(self.verdict(change)[1], [])

    def test_what_a_letter_tells(self) -> None:
        fields = (Field(b"Received", b"", b" x", hidden=True), Field(b"Subject", b"", b" a\r\n\tb"))
        letter = Letter(Draught(Envelope(SENDER, ()), fields, Replaced(b"text\r\n")))
        self.assertEqual((letter.sender, letter.recipients), (SENDER, ()))
        self.assertEqual(letter.header, [("Subject", "a b")])
        self.assertEqual((letter.get("SUBJECT"), letter.get("To")), ("a b", None))
        self.assertEqual(self.run_(letter.body()), b"text\r\n")
        self.assertEqual(self.run_(letter.body(2)), b"te")
        self.assertEqual(self.run_(letter.content()), b"Received: x\r\nSubject: a\r\n\tb\r\n\r\ntext\r\n")

    def test_what_is_no_verdict(self) -> None:
        self.assertIsInstance(self.verdict(lambda letter: "yes")[0], Failed)

    def test_exceptions_are_failures_and_logged(self) -> None:
        async def broken(letter: Letter) -> None:
            raise KeyError("x")

        self.assertEqual(self.verdict(broken)[0], Failed("KeyError: 'x'"))
        self.assertEqual(self.reported, ["KeyError('x')"])

    def test_a_letter_that_cannot_be_read_is_no_fault_of_the_filter(self) -> None:
        async def read(letter: Letter) -> None:
            raise SpoolFailed("gone")

        failure: Any = self.verdict(read)[0]
        self.assertIsInstance(failure.value, SpoolFailed)

    def test_E4_who_takes_too_long_has_failed(self) -> None:
        async def waits(letter: Letter) -> None:
            await Deferred()

        Scripted.does = waits
        for left, wait in ((100.0, 10.0), (3.0, 3.0)):
            session = self.filter().session()
            self.run_(session.open())  # type: ignore[arg-type]
            found: list[Any] = []
            facts, until = Contract.facts(self), self.clock.seconds() + left  # type: ignore[arg-type]
            Deferred.fromCoroutine(session.content(facts, LETTER, until)).addBoth(found.append)  # type: ignore[arg-type]
            self.clock.advance(wait - 1)
            self.assertEqual(found, [])
            self.clock.advance(1)
            self.assertEqual(found, [Failed("it does not answer")])
            session.close()

    def test_the_end_of_the_session_ends_what_it_waits_for(self) -> None:
        async def waits(letter: Letter) -> None:
            await Deferred()

        Scripted.does = waits
        session = self.filter().session()
        self.run_(session.open())  # type: ignore[arg-type]
        found: list[Any] = []
        work: Any = session.content(Contract.facts(self), LETTER, 100.0)  # type: ignore[arg-type]
        Deferred.fromCoroutine(work).addBoth(found.append)
        session.close()
        self.assertIsInstance(found[0], Failed)
        self.assertEqual(Scripted.told, ["close"])

    def test_the_end_of_a_letter_is_told(self) -> None:
        session = self.filter().session()
        self.run_(session.open())  # type: ignore[arg-type]
        self.run_(session.sender(Contract.facts(self)))  # type: ignore[arg-type]
        session.abort()
        session.abort()
        self.assertEqual(Scripted.told, ["over"])
        session.close()


class Loading(PythonCase):
    def test_what_is_no_filter(self) -> None:
        for name, why in (
            ("no.such.module:X", "ModuleNotFoundError"),
            (f"{HERE}:Missing", "AttributeError"),
            (f"{HERE}:NotAFilter", "no subclass"),
        ):
            with self.assertRaises(LookupError) as caught:
                self.filter(name).load()
            self.assertIn(why, str(caught.exception))
            self.assertIsInstance(self.run_(self.filter(name).session().open()), Failed)  # type: ignore[arg-type]


class Example(PythonCase):
    """The filter in contrib/."""

    PROGRAM = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n"
        b'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="%b"\r\n\r\nMZ'
        b"\r\n--x--\r\n"
    )

    def verdict(self, content: bytes) -> tuple[Any, list[Any]]:
        self.patch(sys, "path", [str(CHECKOUT / "contrib" / "filters"), *sys.path])
        self.addCleanup(sys.modules.pop, "no_programs", None)
        session = self.filter("no_programs:NoPrograms").session()
        self.assertEqual(self.run_(session.open()), Continue())  # type: ignore[arg-type]
        draught = Draught(Envelope(SENDER, ()), (), Replaced(content))
        head, _, body = content.partition(b"\r\n\r\n")
        fields = tuple(Field(*line.partition(b":")[::2], b"") for line in head.split(b"\r\n"))
        fields = tuple(Field(one.name, b"", one.gap) for one in fields)
        draught = Draught(draught.envelope, fields, Replaced(body))
        verdict = self.run_(session.content(Contract.facts(self), draught, 100.0))  # type: ignore[arg-type]
        edits = list(session.edits())
        session.close()
        return verdict, edits

    def test_programs_are_refused(self) -> None:
        verdict, _ = self.verdict(self.PROGRAM % b"fun.EXE")
        self.assertEqual(verdict.reply.text, "We take no programs by mail: fun.EXE")

    def test_other_letters_say_that_they_were_looked_at(self) -> None:
        self.assertEqual(
            self.verdict(self.PROGRAM % b"fun.txt"), (Continue(), [AddHeader(b"X-Attachments", b"1")])
        )

    def test_the_page_shows_what_works(self) -> None:
        page = Path(CHECKOUT, "docs", "python-filters.md").read_text("utf-8")
        code = page.partition("    from postoffice.filters.python import Filter, reject\n")[2]
        lines = ["from postoffice.filters.python import Filter, reject"]
        for line in code.splitlines():
            if line and not line.startswith("    "):
                break
            lines.append(line[4:])
        names: dict[str, Any] = {}
        exec("\n".join(lines), names)
        first = names["First"]()
        for subject, verdict in ((b" You won the LOTTERY", reject("We play no lotteries")), (b" s", None)):
            letter = Letter(Draught(Envelope(SENDER, ()), (Field(b"Subject", b"", subject),), Replaced(b"")))
            self.assertEqual(first.letter(Contract.facts(self), letter), verdict)  # type: ignore[arg-type]
