from __future__ import annotations

import os
import pwd
import resource
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.accounts import Account, AllAccounts, OneAccount, VirtualUsers, entry_of, is_fit
from postoffice.directory.domains import OurDomain
from postoffice.mail.address import Address
from postoffice.mail.destination import Mailbox, OwnMailbox
from postoffice.watched import Unreadable, Watch
from tests.directory.support import DirectoryTestCase, EveryHome, at_once

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


class OneAccountTests(SynchronousTestCase):
    def find(self, account: Account | None, name: str) -> Account | None:
        return self.successResultOf(OneAccount(account).find(name))  # type: ignore[no-any-return]

    def test_only_the_account_given(self) -> None:
        account = Account("Joe", 1000, "/home/joe")
        self.assertEqual(self.find(account, "joe"), account)
        self.assertEqual(self.find(account, "JOE"), account)
        for name in ("jo", "joe ", "", "root", "~joe", "./joe"):
            self.assertIsNone(self.find(account, name), name)

    def test_root_never_receives(self) -> None:
        self.assertIsNone(self.find(Account("root", 0, "/root"), "root"))
        self.assertIsNone(self.find(Account("toor", 0, "/root"), "toor"))

    def test_unfit_names(self) -> None:
        for name in UNFIT:
            self.assertIsNone(self.find(Account(name, 1000, "/"), name), name)

    def test_no_account(self) -> None:
        self.assertIsNone(self.find(None, ""))
        self.assertIsNone(self.find(None, "joe"))


def passwd(*accounts: tuple[str, int]) -> Callable[[str], pwd.struct_passwd]:
    """A system with these accounts."""
    return {
        name: pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/sh"))
        for name, uid in accounts
    }.__getitem__


class AllAccountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.look = passwd(("joe", 1000), ("Ann", 1001), ("ann", 1002), ("odd/name", 1003))
        self.accounts = AllAccounts(at_once, self.clock.seconds, self._look)

    def _look(self, name: str) -> pwd.struct_passwd:
        self.asked.append(name)
        return self.look(name)

    def find(self, name: str) -> Account | None:
        return self.successResultOf(self.accounts.find(name))  # type: ignore[no-any-return]

    def test_the_exact_name_then_without_case(self) -> None:
        joe = Account("joe", 1000, "/home/joe")
        self.assertEqual(self.find("joe"), joe)
        self.assertEqual(self.find("JOE"), joe)
        for name, uid in (("Ann", 1001), ("ann", 1002), ("ANN", 1002)):
            account = self.find(name)
            self.assertEqual(account and account.uid, uid)

    def test_names_that_are_not_fit_are_not_asked_for(self) -> None:
        for name in (*UNFIT, "odd/name"):
            self.assertIsNone(self.find(name))
        self.assertEqual(self.asked, [])

    def test_what_the_system_said_counts_for_a_while(self) -> None:
        for _ in range(3):
            self.find("joe")
            self.find("nobody")
        self.assertEqual(self.asked, ["joe", "nobody"])
        self.clock.advance(11)
        self.find("joe")
        self.find("nobody")
        self.clock.advance(50)
        self.find("joe")
        self.assertEqual(self.asked, ["joe", "nobody", "nobody", "joe"])

    def test_a_look_up_that_fails_is_no_answer(self) -> None:
        """Without a descriptor the C library cannot read its file, and Python says: no such user."""
        self.assertEqual(entry_of("root").pw_uid, 0)
        self.assertRaises(KeyError, entry_of, "no-such-user")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            self.assertRaises(OSError, entry_of, "no-such-user")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_a_system_that_does_not_answer(self) -> None:
        def broken(name: str) -> pwd.struct_passwd:
            raise OSError(5, "Input/output error")

        self.look = broken
        self.failureResultOf(self.accounts.find("joe"), Unreadable)
        self.look = passwd(("joe", 1000))
        self.assertIsNotNone(self.find("joe"))

    def test_the_system_itself(self) -> None:
        own = pwd.getpwuid(os.getuid())
        accounts = AllAccounts(at_once, self.clock.seconds)
        found = self.successResultOf(accounts.find(own.pw_name))
        self.assertEqual(found, Account(own.pw_name, own.pw_uid, own.pw_dir))


class FloorTests(DirectoryTestCase):
    """Mail of accounts that get none themselves."""

    def setUp(self) -> None:
        super().setUp()
        look = passwd(("root", 0), ("daemon", 1), ("mail", 8), ("ann", 1000), ("joe", 1001))
        self.accounts = AllAccounts(at_once, self.clock.seconds, look)
        self.make()

    def test_to_the_mailbox_mail(self) -> None:
        for name in ("root", "daemon", "ROOT"):
            self.assertEqual(self.copies(name), ["/var/mail/mail"])
            self.assertEqual(self.checked(name), "fine")
        self.assertEqual(self.copies("joe"), ["/var/mail/joe"])
        self.assertEqual(self.copies("mail"), ["/var/mail/mail"])

    def test_the_copy_can_be_checked_again(self) -> None:
        (copy,) = self.resolved("root")  # type: ignore[misc]
        self.assertEqual((copy.address, copy.fixed), (Address("mail", ""), OwnMailbox()))
        self.assertEqual(self.resolved("mail", copy.fixed), Mailbox("mbox", "/var/mail/mail", "mail"))

    def test_to_whom_the_configuration_names(self) -> None:
        self.make("root-mail=joe")
        self.assertEqual(self.copies("root"), ["/var/mail/joe"])
        self.assertEqual(self.copies("mail"), ["/var/mail/joe"])

    def test_D4_nothing_is_read_as_an_account_below_the_floor(self) -> None:
        """Who may write to such a home (that of mail is /var/mail) does not say where root's mail goes."""
        homes = self.homes = EveryHome("x@example.com\n")
        for line, mailbox in (("", "/var/mail/mail"), ("root-mail=daemon", "/var/mail/daemon")):
            self.make(line)
            self.assertEqual(self.copies("root"), [mailbox])
        self.assertEqual(homes.asked, [])
        self.make("root-mail=joe")
        self.assertEqual(self.copies("root"), ["x@example.com"])
        self.assertEqual(homes.asked, ["joe"])

    def test_an_alias_comes_first(self) -> None:
        self.write("aliases", "root: ann\n")
        self.assertEqual(self.copies("root"), ["/var/mail/ann"])

    def test_the_floor_can_be_chosen(self) -> None:
        self.make("min-uid=1001")
        self.assertEqual(self.copies("ann"), ["/var/mail/mail"])
        self.make("min-uid=0")
        self.assertEqual(self.copies("daemon"), ["/var/mail/daemon"])
        self.assertEqual(self.copies("root"), ["/var/mail/mail"])

    def test_not_in_virtual_domains(self) -> None:
        self.assertEqual(self.checked("root@example.org"), "550 5.1.1 No such user here")


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
