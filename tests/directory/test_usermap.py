"""The matcher of user maps, also against a naive one that tries everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.settings import ConfigError, Settings
from postoffice.directory.targets import ToCommand, ToFile
from postoffice.directory.usermap import Match, Personal, TheUser, parse_map
from postoffice.mail.address import Address
from tests.support import counted


def naive(tokens: Sequence[str], name: str, users: Sequence[str]) -> Iterator[str]:
    """Every way in which a name fits a pattern, in the order of the specification: whom `~` stands for."""
    if not tokens:
        if not name:
            yield ""
        return
    first, rest = tokens[0], tokens[1:]
    if first == "*":
        lengths = range(len(name) + 1)
        for length in lengths if rest[:1] == ["~"] else reversed(lengths):
            yield from naive(rest, name[length:], users)
    elif first == "~":
        run = len(name) - len(name.lstrip("abcdefghijklmnopqrstuvwxyz0123456789"))
        for length in range(run, 0, -1):
            if name[:length] in users:
                for _ in naive(rest, name[length:], users):
                    yield name[:length]
    elif name.startswith(first):
        yield from naive(rest, name[len(first) :], users)


PIECES = st.sampled_from(["*", "a", "ab", "-", "b"])
PATTERNS = st.tuples(st.lists(PIECES, max_size=4), st.booleans(), st.lists(PIECES, max_size=4)).map(
    lambda parts: "".join(parts[0]) + "~" * parts[1] + "".join(parts[2])
)


class MatchTests(SynchronousTestCase):
    def match(self, pattern: str, name: str, *users: str) -> str | None:
        """Whom `~` stands for, empty where there is none in the pattern, None where the name does not fit."""

        async def user(part: str) -> str | None:
            return part if part in users else None

        match = Match(parse_map(f"{pattern}:x").tokens, name, user)
        return (match.found or "") if self.successResultOf(match.succeeds()) else None

    def test_which_split_wins(self) -> None:
        for pattern, name, users, found in (
            ("*", "anything", "", ""),
            ("*", "", "", ""),
            ("a*", "a", "", ""),
            ("a*", "ba", "", None),
            ("*-b", "a-b-b", "", ""),
            ("~", "ann", "ann", "ann"),
            ("~", "ann", "bob", None),
            ("~", "ann-x", "ann", None),
            # The specification's example.
            ("*-~", "lego-orc", "orc", "orc"),
            ("*-~", "lego-orc", "bob", None),
            ("*-~", "-orc", "orc", "orc"),
            # `*` before a literal takes the last occurrence first.
            ("*-~*", "a-ann-bob", "ann bob", "bob"),
            ("*-~", "a-b-c", "c b", "c"),
            # `*` before `~` the leftmost start.
            ("*~*", "annbob", "bob ann", "ann"),
            ("*~", "xann", "ann nn", "ann"),
            # `~` the longest run, then shorter ones.
            ("~*", "annabel", "ann anna", "anna"),
            ("~abel", "annabel", "ann anna", "ann"),
            ("~-*", "ann-bob", "ann bob", "ann"),
            # Letters and digits only.
            ("~*", "a_b", "a_b a", "a"),
            ("~", "4you2", "4you2", "4you2"),
        ):
            self.assertEqual(self.match(pattern, name, *users.split()), found, (pattern, name))

    def test_the_user_of_a_path_that_fails_is_forgotten(self) -> None:
        # Found first is ann, behind whom no -x follows; in the end nobody is.
        self.assertIsNone(self.match("~-x", "ann-y", "ann"))
        self.assertEqual(self.match("*~b*", "anncb", "ann", "c"), "c")

    @given(
        PATTERNS,
        st.text(alphabet="ab-", max_size=9),
        st.lists(st.text(alphabet="ab", min_size=1, max_size=3)),
    )
    @settings(max_examples=600, deadline=None)
    def test_like_the_naive_one(self, pattern: str, name: str, users: list[str]) -> None:
        if not pattern:
            return
        tokens = list(parse_map(f"{pattern}:x").tokens)
        self.assertEqual(self.match(pattern, name, *users), next(naive(tokens, name, users), None))

    def test_no_exponential_effort(self) -> None:
        for pattern, name in (("*a" * 30 + "b", "a" * 60), ("*" + "a*" * 30 + "~b", "a" * 60)):

            def effort(length: int, pattern: str = pattern, name: str = name) -> int:
                return counted(lambda: self.match(pattern, name[:length], "a", "aa"))[1]

            self.assertLess(effort(60), 8 * effort(30) + 5000)
            self.assertIsNone(self.match(pattern, name, "a"))


class ParseTests(SynchronousTestCase):
    def test_targets(self) -> None:
        found = parse_map("*-~:~/.alias,~,bounce,/file,|cmd,b@example.org")
        self.assertEqual(found.tokens, ("*", "-", "~"))
        self.assertEqual(
            found.targets,
            (
                Personal(".alias"),
                TheUser(),
                Address("bounce", ""),
                ToFile("/file"),
                ToCommand("cmd"),
                Address("b", "example.org"),
            ),
        )

    def test_stars_beside_each_other_are_one(self) -> None:
        self.assertEqual(parse_map("A**~:x").tokens, ("a", "*", "~"))

    @given(st.text(alphabet='a~*/|.,:@- "\\#{', max_size=16))
    @settings(max_examples=500, deadline=None)
    def test_what_the_configuration_takes_can_be_read(self, text: str) -> None:
        try:
            Settings.from_text("", "x", [f"usermap={text}"])
        except ConfigError:
            return
        parse_map(text)

    def test_mistakes(self) -> None:
        for text in (
            "",
            ":x",
            "a",
            "a:",
            "a:,",
            "~~:x",
            "a:~",
            "a:~/x",
            "~:~x",
            "~:~/../x",
            "~:~/",
            "~:a b",
            "a::include:/x",
        ):
            self.assertRaises(ValueError, parse_map, text)
