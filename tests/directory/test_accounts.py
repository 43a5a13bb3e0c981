from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.accounts import Account, SystemUsers, VirtualUsers, is_fit
from postoffice.directory.domains import OurDomain
from postoffice.watched import Unreadable, Watch

DOMAIN = OurDomain("example.org", virtual=True)
UNFIT = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "-x",
    ".x",
    "a..b",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a b",
    "joe.lock",
    "é",
)


class SystemUsersTests(SynchronousTestCase):
    def test_only_the_account_given(self) -> None:
        account = Account("Joe", 1000, "/home/joe")
        users = SystemUsers(account)
        self.assertEqual(users.find("joe"), account)
        self.assertEqual(users.find("JOE"), account)
        for name in ("jo", "joe ", "", "root", "~joe", "./joe"):
            self.assertIsNone(users.find(name), name)

    def test_root_never_receives(self) -> None:
        self.assertIsNone(SystemUsers(Account("root", 0, "/root")).find("root"))
        self.assertIsNone(SystemUsers(Account("toor", 0, "/root")).find("toor"))

    def test_unfit_names(self) -> None:
        for name in UNFIT:
            self.assertIsNone(SystemUsers(Account(name, 1000, "/")).find(name), name)

    def test_no_account(self) -> None:
        self.assertIsNone(SystemUsers(None).find(""))
        self.assertIsNone(SystemUsers(None).find("joe"))


class VirtualUsersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.warnings: list[str] = []
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(f"{self.directory}/example.org")
        self.file = f"{self.directory}/example.org/passwd"
        self.users = VirtualUsers(self.directory, Watch(self.clock.seconds, self.warnings.append))

    def write(self, text: str | bytes) -> None:
        with open(f"{self.file}.new", "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        os.replace(f"{self.file}.new", self.file)
        self.clock.advance(1)

    def test_without_case_as_the_file_spells_it(self) -> None:
        self.write("# users\nalice:$2y$05$abc:more\nBob.Smith:{SHA}xyz=\n\n")
        self.assertEqual(self.successResultOf(self.users.find("ALICE", DOMAIN)), "alice")
        self.assertEqual(self.successResultOf(self.users.find("bob.smith", DOMAIN)), "Bob.Smith")
        self.assertIsNone(self.successResultOf(self.users.find("carol", DOMAIN)))
        self.assertIsNone(self.successResultOf(self.users.find("", DOMAIN)))
        elsewhere = OurDomain("example.com", virtual=True)
        self.assertIsNone(self.successResultOf(self.users.find("alice", elsewhere)))
        self.assertEqual(self.warnings, [])

    def test_read_again_when_changed(self) -> None:
        self.write("alice:x\n")
        self.assertEqual(self.successResultOf(self.users.find("alice", DOMAIN)), "alice")
        self.write("bob:x\n")
        self.assertIsNone(self.successResultOf(self.users.find("alice", DOMAIN)))
        self.assertEqual(self.successResultOf(self.users.find("bob", DOMAIN)), "bob")

    def test_mistakes_name_the_line_and_no_secret(self) -> None:
        self.write("alice:x\n")
        self.successResultOf(self.users.find("alice", DOMAIN))
        for line, problem in (
            ("$2y$SECRET", "not of the form user:hash"),
            ("bob:", "not of the form user:hash"),
            ("bob: ", "not of the form user:hash"),
            ("Alice:$2y$SECRET", "the user Alice is given twice"),
            ("../bob:$2y$SECRET", "'../bob' cannot be the name of a user"),
            (f"{'b' * 65}:$2y$SECRET", f"{'b' * 64!r} cannot be the name of a user"),
        ):
            self.write(f"alice:x\n{line}\nbob:x\n")
            self.assertEqual(self.successResultOf(self.users.find("alice", DOMAIN)), "alice")
            self.assertIsNone(self.successResultOf(self.users.find("bob", DOMAIN)))
            self.assertEqual(
                self.warnings[-1], f"{self.file}:2: {problem}; the last good version stays in use"
            )
        self.assertNotIn("SECRET", "".join(self.warnings))

    def test_names_unfit_for_a_path(self) -> None:
        for name in UNFIT:
            self.assertFalse(is_fit(name), name)
        for name in ("alice", "a", "A.b-c_d+e=f", "o'neill", "2nd", "x" * 64, "padlock", "joe.locks"):
            self.assertTrue(is_fit(name), name)

    def test_never_readable(self) -> None:
        self.write(b"\xff\xfe\n")
        self.failureResultOf(self.users.find("alice", DOMAIN), Unreadable)
