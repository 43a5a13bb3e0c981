"""The text of alias files and of lists of targets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.aliases import PERSONAL, SYSTEM, VIRTUAL, Rules, parse_aliases, parse_list
from postoffice.directory.targets import Include, Target, ToCommand, ToFile, read_targets, without_comment
from postoffice.mail.address import Address
from postoffice.watched import Mistake
from tests.support import counted

A, B, C = Address("a", ""), Address("b", "example.org"), Address("c d", "example.org")


class TargetTests(SynchronousTestCase):
    def test_targets(self) -> None:
        for text, targets in (
            ("a", [A]),
            ("a, b@example.org", [A, B]),
            (" a ,\tb@example.org , ", [A, B]),
            ("<b@example.org>", [B]),
            ('"c d"@example.org', [C]),
            ('"a"', [A]),
            ("\\a", [A]),
            ("/var/log/mail", [ToFile("/var/log/mail")]),
            ('"/a path, with"', [ToFile("/a path, with")]),
            ("|/bin/cat", [ToCommand("/bin/cat")]),
            ("|/bin/cat -n", [ToCommand("/bin/cat -n")]),
            ('"|/bin/sh -c \\"a, b\\" \\\\n", a', [ToCommand('/bin/sh -c "a, b" \\n'), A]),
            ('|"exit 75", a', [ToCommand("exit 75"), A]),
            (":include:/lists/all", [Include("/lists/all")]),
            (':Include: "/x"', None),
            ('":include: /lists/all of them"', [Include("/lists/all of them")]),
            ("", []),
        ):
            if targets is None:
                self.assertRaises(ValueError, read_targets, text)
            else:
                self.assertEqual(list(read_targets(text)), targets, text)

    def test_what_is_no_target(self) -> None:
        for text in (
            "a b",
            "a@",
            "a@b@c",
            "|",
            '"|  "',
            ":include:relative",
            ":exclude:/x",
            '"a',
            'a, "b',
            "~/file",
            "a;b",
            "/file\x07",
            '"/fi\x00le"',
            "b@example.org (comment)",
        ):
            self.assertRaises(ValueError, read_targets, text)

    def test_comments(self) -> None:
        for text, left in (
            ("a # b", "a"),
            ("# a", ""),
            ("a#b", "a#b"),
            ('"a # b" # c', '"a # b"'),
            ('a\\" # b', 'a\\"'),
            ("a\t#b", "a"),
        ):
            self.assertEqual(without_comment(text).rstrip(), left)
        self.assertRaises(ValueError, without_comment, 'a "b # c')

    @given(st.text(alphabet='ab"\\,#|/: @\t', max_size=40))
    @settings(max_examples=300, deadline=None)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            targets = read_targets(without_comment(text))
        except ValueError:
            return
        for target in targets:
            self.assertIsInstance(target, Address | ToFile | ToCommand | Include)

    def test_effort_grows_with_the_length_alone(self) -> None:
        for sign in ('"', '\\"', "a, ", '" ', "#", " #", '"a" '):

            def effort(times: int, sign: str = sign) -> int:
                def read() -> None:
                    try:
                        read_targets(without_comment(sign * times))
                    except ValueError:
                        pass

                return counted(read)[1]

            self.assertLess(effort(4000), 10 * effort(1000) + 1000)


class AliasFileTests(SynchronousTestCase):
    def find(self, text: str, name: str, rules: Rules = SYSTEM) -> list[Target] | None:
        targets = parse_aliases(text.encode(), rules).find(name)
        return None if targets is None else list(targets)

    def mistake(self, text: str | bytes, rules: Rules = SYSTEM) -> str:
        data = text if isinstance(text, bytes) else text.encode()
        mistake = self.assertRaises(Mistake, parse_aliases, data, rules)
        return f"{mistake.line}: {mistake}"

    def test_names_are_compared_without_case(self) -> None:
        for name in ("sales", "SALES", "Sales"):
            self.assertEqual(self.find("Sales: a\n", name), [A])
        self.assertIsNone(self.find("Sales: a\n", "sale"))

    def test_continuation_lines_and_comments(self) -> None:
        text = (
            "# all of us\n"
            "all: a,   # the first\n"
            "\tb@example.org,\n"
            "# in between\n"
            "\n"
            '  "c d"@example.org\r\n'
            "   # indented\n"
            "other :a\r\n"
            "last:b@example.org"
        )
        self.assertEqual(self.find(text, "all"), [A, B, C])
        self.assertEqual(self.find(text, "other"), [A])
        self.assertEqual(self.find(text, "last"), [B])

    def test_quoted_names(self) -> None:
        self.assertEqual(self.find('"a: b": a\n', "a: b"), [A])
        self.assertEqual(self.find('"x": a\n', "x"), [A])

    def test_a_name_given_twice_the_first_wins(self) -> None:
        aliases = parse_aliases(b"x: a\ny: a\nX: b@example.org\n", SYSTEM)
        self.assertEqual(aliases.find("x"), (A,))
        self.assertEqual(aliases.twice, [(3, "X")])

    def test_summary(self) -> None:
        aliases = parse_aliases(b"x: a\ny: b@example.org, a\n", SYSTEM)
        self.assertEqual((aliases.count, aliases.longest, aliases.total), (2, 15, 18))

    def test_mistakes_name_the_line(self) -> None:
        for text, said in (
            ("a\n", "1: not of the form name: target, target"),
            ("x: a\n\n\ny a: b\n", "4: not of the form name: target, target"),
            ("  a\n", "1: the line goes on with an alias, and there is none before it"),
            ("x: a\ny:\n", "2: the alias has no target"),
            ("x: a,\n b c\n", "1: 'b c' is not an address, a /file or a |command"),
            (
                "x@y.org: a\n",
                "1: the name 'x@y.org' has a domain; write the part before the @ alone",
            ),
            ('x: "a\n', "1: a quote has no end"),
            ('x: a,\n "b\n', "1: a quote has no end"),
            (b"x: a\xff\n", "1: not UTF-8"),
            (b"x: a,\n \xff\n", "1: not UTF-8"),
        ):
            self.assertEqual(self.mistake(text), said)

    def test_virtual_files_hold_addresses_only(self) -> None:
        for target in ("/file", "|command", ":include:/x", "a, /file"):
            self.assertEqual(
                self.mistake(f"x: a\ny: {target}\n", VIRTUAL),
                "2: only addresses can stand in the alias file of a virtual domain",
            )
        self.assertEqual(self.find("*: *@example.com\n", "*", VIRTUAL), [Address("*", "example.com")])

    def test_no_lists_in_files_of_users(self) -> None:
        self.assertIn(":include: is for", self.mistake("x: :include:/x\n", PERSONAL))
        self.assertEqual(self.find("x: |cmd, /f\n", "x", PERSONAL), [ToCommand("cmd"), ToFile("/f")])

    @given(st.lists(st.text(alphabet="ab-_.+=@, \t", max_size=12), max_size=4))
    @settings(max_examples=500, deadline=None)
    def test_what_looks_plain_is_what_the_grammar_says(self, pieces: list[str]) -> None:
        """A short cut is taken for most aliases; it never takes what has no meaning."""
        text = ",".join(pieces)
        try:
            targets: tuple[Target, ...] | None = read_targets(text.strip()) or None
        except ValueError:
            targets = None
        try:
            found = parse_aliases(f"x: {text}\n".encode(), SYSTEM).find("x")
        except Mistake:
            found = None
        self.assertEqual(found, targets)

    def test_too_long(self) -> None:
        self.assertIn("longer than", self.mistake("x: a,\n" + " b@example.org,\n" * 70_000 + " a\n"))

    def test_a_hundred_thousand_aliases(self) -> None:
        data = b"".join(b"name%d: a, user%d@example.org\n" % (n, n) for n in range(100_000))
        aliases = parse_aliases(data, SYSTEM)
        self.assertEqual(aliases.count, 100_000)
        found, calls = counted(lambda: aliases.find("Name77777"))
        self.assertEqual(found, (A, Address("user77777", "example.org")))
        self.assertLess(calls, 100)
        aliases.clear()


class ListTests(SynchronousTestCase):
    def test_every_line_counts(self) -> None:
        data = b"# us\na, b@example.org # two\n\n|cmd\r\n/file\n"
        self.assertEqual(parse_list(data, PERSONAL), (A, B, ToCommand("cmd"), ToFile("/file")))
        self.assertEqual(parse_list(b"", PERSONAL), ())

    def test_mistakes_name_the_line(self) -> None:
        for data, line in ((b"a\n\nb c\n", 3), (b"a\n:include:/x\n", 2), (b'"a\n', 1), (b"\xff\n", 1)):
            self.assertEqual(self.assertRaises(Mistake, parse_list, data, PERSONAL).line, line)
        self.assertEqual(parse_list(b":include:/x\n", SYSTEM), (Include("/x"),))
