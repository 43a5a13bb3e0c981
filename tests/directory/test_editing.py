"""Changes to passwd and alias files: what they do not concern stays, and what is written is read as meant."""

from __future__ import annotations

import os
import string
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.accounts import parse_passwd
from postoffice.directory.aliases import VIRTUAL, parse_aliases
from postoffice.directory.editing import list_aliases, remove_alias, remove_user, set_alias, set_user
from postoffice.interfaces import Declined
from postoffice.watched import Mistake

PASSWD = b"# our users\nalice:$2y$x\n\nBob:*\r\n#carol:gone\ndave:x:1:2"
ALIASES = b"""\
# of the firm
sales: ann, bob@example.net,  # who sells
  # not before noon:
\tcarol

Info: sales
*: *@example.net # the rest
info: nobody
"""


class Case(SynchronousTestCase):
    def declined(self, code: int, edit: Callable[[], object]) -> str:
        error = self.assertRaises(Declined, edit)
        self.assertEqual(error.exit_code, code, error)
        return str(error)


class Users(Case):
    def test_a_hash_is_replaced_where_it_stands(self) -> None:
        changed = set_user(PASSWD, "BOB", "$6$new", new=False)
        self.assertEqual(changed, b"# our users\nalice:$2y$x\n\nBob:$6$new\n#carol:gone\ndave:x:1:2")
        self.assertTrue(set_user(PASSWD, "dave", "y", new=False).endswith(b"\ndave:y"))

    def test_a_new_user_goes_to_the_end(self) -> None:
        self.assertEqual(set_user(PASSWD, "Eve", "h", new=True), PASSWD + b"\nEve:h\n")
        self.assertEqual(set_user(b"", "eve", "h", new=True), b"eve:h\n")

    def test_a_user_goes_with_the_line(self) -> None:
        self.assertEqual(remove_user(PASSWD, "bob"), b"# our users\nalice:$2y$x\n\n#carol:gone\ndave:x:1:2")
        self.assertEqual(remove_user(b"a:x\nb:y\n", "B"), b"a:x\n")

    def test_there_is_one_or_there_is_none(self) -> None:
        self.declined(os.EX_DATAERR, lambda: set_user(PASSWD, "ALICE", "h", new=True))
        self.declined(os.EX_NOUSER, lambda: set_user(PASSWD, "carol", "h", new=False))
        self.declined(os.EX_NOUSER, lambda: remove_user(PASSWD, "carol"))

    def test_D5_what_cannot_be_a_name(self) -> None:
        for name in ("", ".", "a:b", "a\nroot:x", "a/b", "../a", "-a", "a..b", "a.lock", "é", "#a", "a" * 65):
            for new in (True, False):
                self.declined(os.EX_DATAERR, lambda: set_user(PASSWD, name, "h", new))  # noqa: B023
            self.declined(os.EX_NOUSER, lambda: remove_user(PASSWD, name))  # noqa: B023

    def test_a_file_with_a_mistake_is_left_alone(self) -> None:
        for edit in (
            lambda: set_user(b"alice:x\nbob\n", "alice", "h", new=False),
            lambda: remove_user(b"alice:x\nbob\n", "alice"),
        ):
            self.assertEqual(self.assertRaises(Mistake, edit).line, 2)

    @given(
        st.dictionaries(st.text(string.ascii_lowercase, min_size=1, max_size=4), st.sampled_from("xyz")),
        st.text(string.ascii_lowercase, min_size=1, max_size=4),
        st.lists(st.sampled_from(["", "# x", "#alice:x"]), max_size=3),
    )
    def test_others_are_as_before(self, users: dict[str, str], name: str, between: list[str]) -> None:
        lines = [f"{user}:{stored}" for user, stored in users.items()]
        data = "\n".join([*lines[:2], *between, *lines[2:]]).encode()
        before = parse_passwd(data)
        after = parse_passwd(set_user(data, name, "new", new=name not in users))
        self.assertEqual(after.pop(name).stored, "new")
        before.pop(name, None)
        self.assertEqual(after, before)
        if name in users:
            self.assertEqual(parse_passwd(remove_user(data, name)), before)


class Aliases(Case):
    def test_listed_in_order(self) -> None:
        self.assertEqual(
            list_aliases(ALIASES),
            [
                ("sales", "ann, bob@example.net, carol"),
                ("Info", "sales"),
                ("*", "*@example.net"),
                ("info", "nobody"),
            ],
        )
        self.assertEqual(list_aliases(b""), [])

    def test_targets_are_replaced_where_they_stand(self) -> None:
        self.assertEqual(
            set_alias(ALIASES, "SALES", ["dave", "eve@example.org, ann"]),
            ALIASES.replace(b"ann, bob@example.net,", b"dave, eve@example.org, ann").replace(
                b"\tcarol\n", b""
            ),
        )
        self.assertEqual(set_alias(ALIASES, "info", ["x"]), ALIASES.replace(b"Info: sales", b"Info: x"))
        self.assertEqual(
            set_alias(ALIASES, "*", ["*@x.example"]), ALIASES.replace(b"*@example.net #", b"*@x.example  #")
        )

    def test_a_new_alias_goes_to_the_end(self) -> None:
        self.assertEqual(set_alias(ALIASES, "new", ["a"]), ALIASES + b"new: a\n")
        self.assertEqual(set_alias(b"a: b", "new", ["a"]), b"a: b\nnew: a\n")
        self.assertEqual(set_alias(b"", "*", ["*@example.net"]), b"*: *@example.net\n")

    def test_long_ones_are_folded(self) -> None:
        names = [f"somebody-number-{n}@example.org" for n in range(10)]
        changed = set_alias(ALIASES, "all", names).decode()
        self.assertLess(max(map(len, changed.splitlines())), 110)
        self.assertEqual(list_aliases(changed.encode())[-1], ("all", ", ".join(names)))

    def test_an_alias_goes_however_often_it_is_there(self) -> None:
        left = remove_alias(ALIASES, "INFO")
        self.assertEqual([name for name, _ in list_aliases(left)], ["sales", "*"])
        self.assertIn(b"# of the firm", left)
        left = remove_alias(ALIASES, "sales")
        self.assertTrue(left.startswith(b"# of the firm\n  # not before noon:\n\nInfo"))
        self.declined(os.EX_NOUSER, lambda: remove_alias(ALIASES, "nobody"))

    def test_any_script(self) -> None:
        changed = set_alias(ALIASES, "bücher", ["élodie@example.net"])
        self.assertEqual(list_aliases(changed)[-1], ("bücher", "élodie@example.net"))
        self.assertEqual(remove_alias(changed, "BÜCHER"), ALIASES)

    def test_D5_what_cannot_be_a_name(self) -> None:
        for name in (
            "",
            "a b",
            "a:b",
            "a\nb",
            "a,b",
            '"a"',
            "(x)",
            "a@b",
            "#a",
            "a\\b",
            "\ud800",
            ":x",
        ):
            self.declined(os.EX_DATAERR, lambda: set_alias(ALIASES, name, ["x"]))  # noqa: B023

    def test_D5_what_cannot_be_a_target(self) -> None:
        for target in (
            "",
            ",",
            "|cmd",
            "/file",
            ":include:/x",
            '"|cmd"',
            "a\nb: c",
            "a\x00",
            "<>",
            "\ud800",
            "\\|cmd",
        ):
            self.declined(os.EX_DATAERR, lambda: set_alias(ALIASES, "x", [target]))  # noqa: B023
        self.declined(os.EX_DATAERR, lambda: set_alias(ALIASES, "x", []))

    def test_a_file_with_a_mistake_is_left_alone(self) -> None:
        broken = ALIASES + b"x: |cmd\n"
        for edit in (
            lambda: set_alias(broken, "new", ["a"]),
            lambda: remove_alias(broken, "x"),
            lambda: list_aliases(broken),
        ):
            self.assertEqual(self.assertRaises(Mistake, edit).line, 9)

    @given(
        st.lists(
            st.one_of(
                st.sampled_from(["# x", "", "\t# y", " ", "\rx", "\r"]),
                st.builds(
                    "{}{}{}{}".format,
                    st.sampled_from(["a", "B", '"c d"', "*"]),
                    st.sampled_from([":", " : "]),
                    st.sampled_from(["x", '"p q"@r.example, y', "x,\n y", "\n  x, # z\n\n#w\n\tv", "x # z"]),
                    st.sampled_from(["", "\r"]),
                ),
            ),
            max_size=6,
        ),
        st.sampled_from(["a", "b", "e", "*"]),
        st.lists(st.sampled_from(["m", "n@o.example", '"s,t"@u.example', "#v@w.example"]), min_size=1),
    )
    def test_others_are_as_before(self, lines: list[str], name: str, targets: list[str]) -> None:
        data = "\n".join(lines).encode()
        before = parse_aliases(data, VIRTUAL)
        try:
            changed = set_alias(data, name, targets)
        except Declined:
            self.assertIn("#v@w.example", targets)
            return
        after = parse_aliases(changed, VIRTUAL)
        for other in {"a", "b", "c d", "*"} - {name}:
            self.assertEqual(after.find(other), before.find(other))
        self.assertEqual([str(target) for target in after.find(name) or ()], targets)
        without = parse_aliases(remove_alias(changed, name), VIRTUAL)
        self.assertIsNone(without.find(name))
        for other in {"a", "b", "c d", "*"} - {name}:
            self.assertEqual(without.find(other), before.find(other))
