"""Replies and refusals."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.outcome import Delivered, Failed, Postponed, outcome_of
from postoffice.mail.reply import Refusal, Reply, printable


class Encoding(SynchronousTestCase):
    def test_one_line(self) -> None:
        self.assertEqual(Reply(250, (1, 5), "fine").encode(), b"250 2.1.5 fine\r\n")

    def test_without_enhanced_code(self) -> None:
        self.assertEqual(Reply(354, None, "go").encode(), b"354 go\r\n")

    def test_several_lines(self) -> None:
        self.assertEqual(Reply(214, (0, 0), "a\nb").encode(), b"214-2.0.0 a\r\n214 2.0.0 b\r\n")

    def test_the_class_follows_the_code(self) -> None:
        self.assertEqual(Reply(451, (4, 3), "x").status, "4.4.3")
        self.assertEqual(Reply(554, None, "x").status, "5.0.0")

    def test_A6_foreign_text_stays_one_line(self) -> None:
        self.assertEqual(printable("a\r\nb\0c\xe9"), "a?b?c?")
        self.assertEqual(printable("x" * 500, 10), "x" * 10)


class Meaning(SynchronousTestCase):
    def test_outcomes(self) -> None:
        for code, kind in ((250, Delivered), (451, Postponed), (354, Postponed), (550, Failed)):
            self.assertIsInstance(outcome_of(Reply(code, None, "")), kind)

    def test_a_refusal_tells_the_log_more_than_the_stranger(self) -> None:
        refusal = Refusal(Reply(550, (7, 1), "no"), "because")
        self.assertEqual((str(refusal.reply), refusal.why), ("550 5.7.1 no", "because"))
        self.assertEqual(Refusal(Reply(550, (7, 1), "no")).why, "550 5.7.1 no")
