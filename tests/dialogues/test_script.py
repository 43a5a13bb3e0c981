"""How dialogues are read, and that one that went another way is seen."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.dialogues.play import Broken, Line, Play, Stage
from tests.dialogues.script import (
    HERE,
    Dialogue,
    dialogues,
    logged,
    matches,
    octets,
    read,
    records,
    seconds,
)

RELEASES = (
    "1.4.0",
    "1.4.1",
    "1.4.3a",
    "1.4.4",
    "1.4.5",
    "1.4.5c",
    "1.4.6",
    "1.4.9",
    "1.4.10",
    "1.5.1",
    "1.5.4",
    "1.5.5",
)
GREETING = "connect 192.0.2.9\nS: 220 *\n"


class Echo(Line):
    """A server that says what it hears, and closes behind QUIT."""

    def __init__(self) -> None:
        self.said = ["220 hello"]
        self.sent: list[bytes] = []
        self.closed = False

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.said += data.decode().split("\r\n")[:-1]
        self.closed = data == b"QUIT\r\n"

    def heard(self, wait: bool = True) -> str | None:
        return self.said.pop(0) if self.said else None

    def is_closed(self) -> bool:
        return self.closed

    def hang_up(self) -> None:
        self.closed = True


class Scene(Stage):
    """Echoes, and a mailbox with one letter for everybody."""

    def __init__(self) -> None:
        self.waited = 0
        self.busy = 0.0
        self.lines: list[Echo] = []
        self.files: dict[str, str] = {}
        self.operated = ("", "")

    def connect(self, ip: str, door: str) -> Line:
        self.lines.append(Echo())
        return self.lines[-1]

    def wait(self, seconds: int) -> None:
        self.waited += seconds

    def letters(self, user: str, count: int) -> list[bytes]:
        return [b"Subject: a\r\n folded line\r\n\r\nbody\r\n"]

    def logged(self, pattern: str) -> bool:
        return logged("when info it happened\n", pattern)

    def told(self, pattern: str) -> bool:
        return self.logged(pattern)

    def load(self, average: float) -> None:
        self.busy = average

    def rewrite(self, name: str, text: str) -> None:
        self.files[name] = text

    def operate(self, verb: str, record: str) -> None:
        self.operated = verb, record


class Playing(SynchronousTestCase):
    def dialogue(self, text: str) -> Dialogue:
        path = Path(self.mktemp()).with_suffix(".txt")
        path.write_text(f"# Title.\n{text}\n")
        return read(path.absolute(), path.parent.absolute())

    def play(self, text: str) -> Scene:
        scene = Scene()
        Play(self.dialogue(text), scene).run()
        return scene

    def broken(self, text: str, why: str) -> None:
        self.assertIn(why, str(self.assertRaises(Broken, self.play, text)))

    def test_what_makes_the_office(self) -> None:
        found = self.dialogue(
            "option size=1\nfile a\n    one\n    two\n\ndns x.test A 192.0.2.1\nmemory slow\nC: x"
        )
        self.assertEqual(
            (found.title, found.options, found.files, found.dns, found.memory),
            ("Title.", ("size=1",), (("a", "one\ntwo\n"),), ("x.test A 192.0.2.1",), "slow"),
        )

    def test_lines_that_follow_one_another_go_out_in_one_piece(self) -> None:
        scene = self.play(GREETING + "C: a\nC: b<CR>c\nS: a\nS: b*c\nC: d\nS: d")
        self.assertEqual(scene.lines[0].sent, [b"a\r\nb\rc\r\n", b"d\r\n"])

    def test_a_whole_reply(self) -> None:
        self.play(GREETING + "C: 250-a\nC: 250-b\nC: 250 c\nS: 250...\nC: x\nS: x")
        self.broken(GREETING + "C: 250-a\nC: 550 b\nS: 250...", "expected '250*', got '550 b'")

    def test_what_a_reply_offers(self) -> None:
        self.play(GREETING + "C: 250-A b\nC: 250 c\nS: 250...\noffers A *\nhides d")
        self.broken(GREETING + "C: 250 a\nS: 250...\noffers b", "the last reply offers not")
        self.broken(GREETING + "C: 250 a\nS: 250...\nhides a", "the last reply hides not")

    def test_several_clients(self) -> None:
        scene = self.play(
            "connect 192.0.2.9 as one\nS: 220 *\nconnect 192.0.2.10 to msp\nS: 220 *\n"
            "back to one\nC: x\nS: x\nhang up"
        )
        self.assertEqual([line.sent for line in scene.lines], [[b"x\r\n"], []])

    def test_what_goes_another_way_is_told_with_its_line(self) -> None:
        self.broken(GREETING + "C: x\nS: y", "line 5: expected 'y', got 'x'")
        self.broken(GREETING + "C: x", "more was said than expected: 'x'")
        self.broken(GREETING + "S: more", "expected 'more', got None")
        self.broken(GREETING + "closed", "the connection is still open")
        self.broken("C: x", "nobody is connected")
        self.broken("mailbox alice 2", "alice has 1 letters, not 2")
        self.broken("mailbox alice 1\nhas Subject: b", "the letter lacks 'Subject: b'")
        self.broken("mailbox alice 1\nlacks Subject: *", "the letter has 'Subject: *'")
        self.broken("log it did not happen", "the log has no line")
        self.broken("silent it *", "the log has a line")

    def test_what_goes_as_told(self) -> None:
        scene = self.play(
            GREETING
            + "C: QUIT\nS: QUIT\nclosed\nmailbox alice 1\nhas Subject: a folded line\nlacks X: *\nlog it *\n"
            + "wait 2m\nfile hosts.deny: ALL: ALL\nload 4.5\noperator forbid <>@[192.0.2.1]"
        )
        self.assertEqual((scene.waited, scene.files, scene.busy), (120, {"hosts.deny": "ALL: ALL\n"}, 4.5))
        self.assertEqual(scene.operated, ("forbid", "<>@[192.0.2.1]"))

    def test_a_verb_that_is_none(self) -> None:
        self.assertRaises(ValueError, self.dialogue, "frobnicate")


class Words(SynchronousTestCase):
    def test_patterns(self) -> None:
        for pattern, text, expected in (
            ("250 *", "250 [x]", True),
            ("250 [x]", "250 [x]", True),
            ("250 [x]", "250 x", False),
            ("*b*", "abc", True),
            ("a", "ab", False),
        ):
            self.assertEqual(matches(pattern, text), expected)

    def test_times_and_octets(self) -> None:
        self.assertEqual([seconds(text) for text in ("3s", "2m", "1h", "1d")], [3, 120, 3600, 86400])
        self.assertEqual(octets("a<CR><LF><NUL><TAB><b>"), b"a\r\n\0\t<b>")

    def test_records(self) -> None:
        found, failing = records(
            ["a.test A 192.0.2.1", "192.0.2.1 PTR a.test", "a.test MX 5 b.test", "x FAILS"]
        )
        self.assertEqual(failing, {"x"})
        self.assertEqual(
            found,
            {
                "a.test A": ["a.test 60 A 192.0.2.1"],
                "1.2.0.192.in-addr.arpa PTR": ["1.2.0.192.in-addr.arpa 60 PTR a.test."],
                "a.test MX": ["a.test 60 MX 5 b.test."],
            },
        )


class Collection(SynchronousTestCase):
    def test_each_has_a_title_and_an_end(self) -> None:
        for dialogue in dialogues():
            self.assertTrue(dialogue.title.endswith("."), dialogue.name)
            self.assertTrue(dialogue.steps, dialogue.name)

    def test_the_readme_tells_what_each_shows(self) -> None:
        index = (HERE / "README.md").read_text("utf-8").partition("## Which shows what")[2]
        told = set(re.findall(r"[\w./-]*\w", index))
        names = {dialogue.name for dialogue in dialogues()}
        self.assertEqual(names - told, set())
        self.assertEqual({word for word in told if "/" in word} - names, set())

    def test_releases(self) -> None:
        names = {dialogue.name for dialogue in dialogues()}
        self.assertLessEqual({f"releases/{release}" for release in RELEASES}, names)
