"""Lines of a configuration file become assignments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.parser import Assignment, parse, parse_override, quote


def pairs(text: str) -> list[tuple[str, str]]:
    return [(one.name, one.value) for one in parse(text, "f").assignments]


class Lines(SynchronousTestCase):
    def test_names_and_values(self) -> None:
        self.assertEqual(
            pairs("size=10m\n  relay-host = mx.example \nrelay\n\n   \n"),
            [("size", "10m"), ("relay-host", "mx.example"), ("relay", "1")],
        )

    def test_bare_is_told_from_one(self) -> None:
        first, second = parse("relay\nrelay=1", "f").assignments
        self.assertEqual((first.bare, second.bare), (True, False))

    def test_comments(self) -> None:
        self.assertEqual(
            pairs('# all\nsize=1#x\nsize=2   # y\nrelay # z=1\n #\nav="a # b"  # c\n'),
            [("size", "1"), ("size", "2"), ("relay", "1"), ("av", "a # b")],
        )

    def test_quotes(self) -> None:
        self.assertEqual(
            pairs('a=" x "\nb=x" # "y\nc="q\\"q\\\\"\nd=""\ne="\\n"\nf=a  b\n'),
            [("a", " x "), ("b", "x # y"), ("c", 'q"q\\'), ("d", ""), ("e", "\\n"), ("f", "a  b")],
        )

    def test_line_numbers_and_crlf(self) -> None:
        found = parse("\ufeffa=1\r\n\r\nb=2\r\n", "f").assignments
        self.assertEqual(
            [(one.name, one.value, str(one.origin)) for one in found], [("a", "1", "f:1"), ("b", "2", "f:3")]
        )

    def test_problems(self) -> None:
        parsed = parse('a="x\n=1\n"b"=1\nc=\x00\nd="x\\\nok=1', "f")
        self.assertEqual(
            [str(one) for one in parsed.problems],
            [
                'f:1: a quote is not closed; end the value with "',
                "f:2: no option is named; write name or name=value",
                "f:3: quotes are allowed in values only",
                "f:4: a control character is not allowed",
                'f:5: a quote is not closed; end the value with "',
            ],
        )
        self.assertEqual([one.name for one in parsed.assignments], ["ok"])

    def test_override_is_taken_as_it_stands(self) -> None:
        (one,) = parse_override('av=|"x" # y').assignments
        self.assertEqual((one.name, one.value, str(one.origin)), ("av", '|"x" # y', "-o"))
        (bare,) = parse_override("relay").assignments
        self.assertEqual((bare.value, bare.bare), ("1", True))
        self.assertEqual(len(parse_override("=x").problems), 1)
        self.assertEqual(len(parse_override("a=\n").problems), 1)


class Properties(SynchronousTestCase):
    @given(st.text())
    def test_any_text_is_parsed(self, text: str) -> None:
        parsed = parse(text, "f")
        for one in parsed.assignments:
            self.assertIsInstance(one, Assignment)
            self.assertTrue(1 <= one.origin.line <= text.count("\n") + 1)

    @given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"])))
    def test_quoted_values_come_back(self, value: str) -> None:
        self.assertEqual(pairs(f"a={quote(value)} # c"), [("a", value)])
