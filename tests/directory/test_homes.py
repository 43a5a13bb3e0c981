"""Files in homes: what is read, what is not trusted, and what becomes of mail meanwhile (D4)."""

from __future__ import annotations

import os
import socket

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from postoffice.directory.accounts import Account
from postoffice.directory.homes import OwnHome
from postoffice.home_file import LIMIT, Unsafe, read_as_owner
from postoffice.interfaces import IHomes
from postoffice.mail.address import Address
from tests.directory.support import DirectoryTestCase, at_once


class OwnHomeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = os.path.abspath(self.mktemp())
        os.makedirs(f"{self.home}/mail")
        for directory in (self.home, f"{self.home}/mail"):
            os.chmod(directory, 0o755)
        self.uid = os.geteuid()

    def write(self, name: str, text: str = "bob\n", mode: int = 0o644) -> str:
        path = f"{self.home}/{name}"
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def read(self, name: str = ".forward") -> bytes | None:
        return read_as_owner(self.home, self.uid, name)

    def unsafe(self, name: str = ".forward") -> str:
        return str(self.assertRaises(Unsafe, self.read, name))

    def test_interface(self) -> None:
        home = OwnHome(Account("ann", self.uid, self.home), at_once)
        self.assertTrue(verifyObject(IHomes, home))
        self.write(".forward")
        self.assertEqual(self.successResultOf(home.read("ann", ".forward")), b"bob\n")
        self.assertIsNone(self.successResultOf(home.read("joe", ".forward")))

    def test_below_the_home(self) -> None:
        self.write("mail/aliases")
        self.assertEqual(self.read("mail/aliases"), b"bob\n")

    def test_none(self) -> None:
        self.assertIsNone(self.read())
        self.assertIsNone(self.read("nodirectory/file"))
        self.assertIsNone(read_as_owner(f"{self.home}/nowhere", self.uid, ".forward"))
        self.assertIsNone(read_as_owner("/dev/null", self.uid, ".forward"))

    def test_D4_others_may_write(self) -> None:
        for mode in (0o664, 0o646):
            self.write(".forward", mode=mode)
            self.assertEqual(self.unsafe(), "others may write to it")

    def test_D4_others_may_write_to_a_parent(self) -> None:
        self.write("mail/aliases")
        for mode in (0o775, 0o757):
            os.chmod(f"{self.home}/mail", mode)
            self.assertEqual(self.unsafe("mail/aliases"), "others may write to mail")
            os.chmod(f"{self.home}/mail", 0o755)
            os.chmod(self.home, mode)
            self.assertEqual(self.unsafe("mail/aliases"), "others may write to the home")
            os.chmod(self.home, 0o755)

    def test_D4_somebody_else_wrote_it(self) -> None:
        self.write(".forward")
        if self.uid:
            unsafe = self.assertRaises(Unsafe, read_as_owner, self.home, self.uid + 1, ".forward")
            self.assertEqual(str(unsafe), "the home belongs to somebody else")
        else:
            os.chown(f"{self.home}/.forward", 12345, 0)
            self.assertEqual(self.unsafe(), "it belongs to somebody else")

    def test_D4_links_are_not_followed(self) -> None:
        secret = self.write("secret")
        os.symlink(secret, f"{self.home}/.forward")
        self.assertEqual(self.unsafe(), "it is a symbolic link")
        os.symlink(f"{self.home}/mail", f"{self.home}/link")
        self.write("mail/aliases")
        self.assertRaises((Unsafe, OSError), self.read, "link/aliases")

    def test_D4_only_regular_files(self) -> None:
        os.mkfifo(f"{self.home}/.forward", 0o644)
        self.assertEqual(self.unsafe(), "it is not a regular file")
        os.mkdir(f"{self.home}/directory")
        self.assertEqual(self.unsafe("directory"), "it is not a regular file")
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.getcwd()
            os.chdir(self.home)
            try:
                listening.bind("socket")
            finally:
                os.chdir(here)
            self.assertRaises(OSError, self.read, "socket")

    def test_D4_a_huge_file_is_not_read(self) -> None:
        path = self.write(".forward")
        os.truncate(path, 1 << 30)
        self.assertEqual(self.unsafe(), f"it is longer than {LIMIT} octets")

    def test_D4_what_was_opened_is_what_is_judged(self) -> None:
        """Another file in its place changes nothing for the one that is being read."""
        path = self.write(".forward", "first\n")
        self.write("other", "second\n", 0o666)
        real = os.fstat

        def swap(descriptor: int) -> os.stat_result:
            status = real(descriptor)
            if os.path.exists(f"{self.home}/other") and not os.path.isdir(f"/proc/self/fd/{descriptor}"):
                os.replace(f"{self.home}/other", path)
            return status

        self.patch(os, "fstat", swap)
        self.assertEqual(self.read(), b"first\n")


@implementer(IHomes)
class Homes:
    """Homes whose files are read when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.waiting: list[Deferred[bytes | None]] = []

    def read(self, account: str, name: str) -> Deferred[bytes | None]:
        self.asked.append((account, name))
        self.waiting.append(Deferred())
        return self.waiting[-1]


class PersonalFileTests(DirectoryTestCase):
    def test_read_once_a_second(self) -> None:
        self.write("home/.forward", "bob@example.org\n")
        self.assertEqual(self.copies("ann"), ["/vmail/example.org/bob"])
        os.unlink(f"{self.home}/.forward")
        self.assertEqual(self.copies("ann"), ["/vmail/example.org/bob"])
        self.clock.advance(1)
        self.assertEqual(self.copies("ann"), ["/var/mail/ann"])

    def test_all_who_ask_meanwhile_wait_for_one_reading(self) -> None:
        homes = self.homes = Homes()
        self.make()
        asking = [Deferred.fromCoroutine(self.directory.resolve(Address("ann", ""))) for _ in range(3)]
        self.assertEqual(homes.asked, [("ann", ".forward")])
        homes.waiting[0].callback(None)
        for one in asking:
            self.assertEqual(self.successResultOf(one).path, "/var/mail/ann")

    def test_what_is_not_safe_makes_mail_wait(self) -> None:
        self.write("home/.forward", "bob@example.org\n")
        os.chmod(f"{self.home}/.forward", 0o666)
        for _ in range(3):
            self.assertEqual(self.refusal("ann").code, 451)
            self.clock.advance(1)
        self.assertEqual(
            self.warnings, ["~ann/.forward: others may write to it; mail for ann waits until it is mended"]
        )

    def test_a_mistake_names_the_line(self) -> None:
        self.write("home/.forward", "bob@example.org\nno address\n")
        self.assertEqual(self.refusal("ann").code, 451)
        self.assertIn("~ann/.forward:2: 'no address' is not an address", self.warnings[0])
        self.write("home/.forward", "bob@example.org\n")
        self.assertEqual(self.copies("ann"), ["/vmail/example.org/bob"])

    def test_a_home_that_cannot_be_read_now(self) -> None:
        @implementer(IHomes)
        class Away:
            def read(self, account: str, name: str) -> Deferred[bytes | None]:
                return fail(OSError(5, "Input/output error"))

        self.homes = Away()
        self.make()
        self.assertEqual(self.refusal("ann").code, 451)
        self.assertIn("Input/output error", self.warnings[0])
