from __future__ import annotations

import errno
import mailbox
import os
import resource
import stat

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery import maildir
from postoffice.delivery.maildir import MaildirFile, unique_name
from tests.delivery.deposits import put

LETTER = b"Return-Path: <>\r\nSubject: x\r\n\r\nFrom here\r\n.\r\n>From \xff\r\n"


class MaildirTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        self.path = f"{self.top}/Maildir"

    def make(self, tree: str = "") -> MaildirFile:
        return MaildirFile(self.path, 1e9, "mx.example.org", tree)

    def files(self, part: str) -> list[str]:
        return os.listdir(f"{self.path}/{part}")

    def test_python_reads_it_back(self) -> None:
        put(self.make, LETTER)
        box = mailbox.Maildir(self.path, create=False)
        (key,) = box.keys()
        self.assertEqual(box.get_bytes(key), LETTER.replace(b"\r\n", b"\n"))

    def test_modes(self) -> None:
        put(self.make, LETTER)
        for name, mode in (("", 0o700), ("/tmp", 0o700), ("/new", 0o700), ("/cur", 0o700)):
            self.assertEqual(stat.S_IMODE(os.stat(self.path + name).st_mode), mode)
        (name,) = self.files("new")
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.path}/new/{name}").st_mode), 0o600)

    def test_made_while_another_thread_delivers(self) -> None:
        """A second letter that comes at any moment of the making finds what it needs, or makes it."""
        mkdir = os.mkdir
        for moment in range(1, 5):
            self.path = f"{self.top}/Maildir{moment}"
            made = 0

            def interrupted(path: str, mode: int = 0o777, moment: int = moment) -> None:
                nonlocal made
                mkdir(path, mode)
                made += 1
                if made == moment:
                    self.make().commit()

            self.patch(os, "mkdir", interrupted)
            put(self.make, LETTER)
            self.assertEqual(len(self.files("new")), 2, moment)

    def test_not_in_new_before_commit(self) -> None:
        deposit = self.make()
        deposit.write(LETTER)
        self.assertEqual((len(self.files("tmp")), self.files("new")), (1, []))
        deposit.commit()
        self.assertEqual((self.files("tmp"), len(self.files("new"))), ([], 1))
        deposit.abort()
        self.assertEqual(len(self.files("new")), 1)

    def test_abort_leaves_nothing(self) -> None:
        deposit = self.make()
        deposit.write(LETTER)
        deposit.abort()
        deposit.abort()
        self.assertEqual((self.files("tmp"), self.files("new")), ([], []))

    def test_failed_write_leaves_nothing(self) -> None:
        self.make().abort()
        for limit in range(0, len(LETTER.replace(b"\r\n", b"\n")), 7):
            self.limit_files(limit)
            error = self.assertRaises(OSError, put, self.make, LETTER)
            self.assertEqual(error.errno, errno.EFBIG)
            self.assertEqual((self.files("tmp"), self.files("new")), ([], []))

    def limit_files(self, size: int) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)

    def test_failed_move_leaves_nothing(self) -> None:
        deposit = self.make()
        deposit.write(LETTER)
        os.rmdir(f"{self.path}/new")
        self.assertRaises(OSError, deposit.commit)
        deposit.abort()
        self.assertEqual(self.files("tmp"), [])

    def test_pieces(self) -> None:
        deposit = self.make()
        for octet in LETTER:
            deposit.write(bytes([octet]))
        deposit.write(b"end\r")
        deposit.commit()
        (name,) = self.files("new")
        with open(f"{self.path}/new/{name}", "rb") as file:
            self.assertEqual(file.read(), LETTER.replace(b"\r\n", b"\n") + b"end\r")

    def test_missing_parents_only_in_the_tree(self) -> None:
        self.path = f"{self.top}/mail/example.org/joe"
        self.assertRaises(FileNotFoundError, self.make)
        self.assertRaises(FileNotFoundError, self.make, f"{self.top}/mai")
        self.assertEqual(os.listdir(self.top), [])
        put(lambda: self.make(f"{self.top}/mail"), LETTER)
        self.assertEqual(len(self.files("new")), 1)
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.top}/mail").st_mode), 0o700)

    def test_D3_links_under_the_names_of_letters(self) -> None:
        """Somebody knows what the next letters will be called, and has put links there."""
        self.make().abort()
        victim = f"{self.top}/victim"
        with open(victim, "w", encoding="ascii") as file:
            file.write("precious")
        names = iter(("one", "two", "three"))
        self.patch(maildir, "unique_name", lambda now, host: next(names))
        for make, name in ((os.symlink, "one"), (os.link, "two")):
            make(victim, f"{self.path}/tmp/{name}")
            self.assertRaises(FileExistsError, self.make)
        os.symlink(victim, f"{self.path}/new/three")
        put(self.make, LETTER)
        self.assertFalse(os.path.islink(f"{self.path}/new/three"))
        with open(victim, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_incomplete_maildir_is_completed(self) -> None:
        os.makedirs(f"{self.path}/cur")
        put(self.make, LETTER)
        self.assertEqual(len(self.files("new")), 1)


class UniqueNameTests(SynchronousTestCase):
    def test_form(self) -> None:
        name = unique_name(1234567890.25, "mx.example.org")
        self.assertRegex(name, rf"^1234567890\.M250000P{os.getpid()}Q\d+R[0-9a-f]{{12}}\.mx\.example\.org$")

    def test_foreign_characters_of_the_host(self) -> None:
        for host in ("a/b", "a:b", "a\x00b", "a,b", "a\nb", "aéb"):
            self.assertTrue(unique_name(0.0, host).endswith(".a_b"), host)
        self.assertLess(len(unique_name(1e9, "x" * 300)), 140)

    def test_never_twice(self) -> None:
        self.assertEqual(len({unique_name(1.0, "x") for _ in range(1000)}), 1000)
