"""Quotas of Maildirs."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery import quota
from postoffice.delivery.maildir import MaildirFile
from tests.delivery.deposits import put

LETTER = b"Subject: x\r\n\r\n" + b"x" * 85 + b"\r\n"
SIZE = len(LETTER) - 3


class QuotaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.store()

    def store(self, folder: str = "") -> None:
        put(lambda: MaildirFile(self.path + folder, 1e9, "mx", self.path), LETTER)

    def refused(self, folder: str = "") -> None:
        self.assertEqual(self.assertRaises(OSError, self.store, folder).errno, errno.EDQUOT)
        self.assertEqual(os.listdir(f"{self.path}{folder}/tmp"), [])

    def limit(self, text: str, age: float = 0) -> None:
        with open(f"{self.path}/maildirsize", "w", encoding="ascii") as file:
            file.write(text)
        then = os.stat(f"{self.path}/maildirsize").st_mtime - age
        os.utime(f"{self.path}/maildirsize", (then, then))

    def said(self) -> list[str]:
        with open(f"{self.path}/maildirsize", encoding="ascii") as file:
            return file.read().splitlines()

    def test_octets(self) -> None:
        self.limit(f"{3 * SIZE}S\n{SIZE} 1\n")
        self.store()
        self.store()
        self.assertEqual(self.said(), [f"{3 * SIZE}S", f"{SIZE} 1", f"{SIZE} 1", f"{SIZE} 1"])
        self.refused()
        self.assertEqual(len(os.listdir(f"{self.path}/new")), 3)

    def test_letters(self) -> None:
        self.limit(f"0S,2C\n{SIZE} 1\n")
        self.store()
        self.refused()

    def test_names_tell_sizes(self) -> None:
        self.limit("1000C\n")
        self.store()
        self.assertEqual(sum(name.endswith(f",S={SIZE}") for name in os.listdir(f"{self.path}/new")), 1)

    def test_what_readers_removed_is_counted(self) -> None:
        self.limit(f"2C\n{SIZE} 1\n{SIZE} 1\n")
        self.store()
        self.assertEqual(self.said(), ["2C", f"{SIZE} 1", f"{SIZE} 1"])
        self.refused()

    def test_what_was_counted_just_now_is_not_counted_again(self) -> None:
        self.limit("2C\n9999 2\n")
        self.refused()
        self.assertEqual(self.said(), ["2C", "9999 2"])
        self.limit("2C\n9999 2\n", age=2 * quota.RECENT)
        self.store()
        self.assertEqual(self.said(), ["2C", f"{SIZE} 1", f"{SIZE} 1"])

    def test_a_long_file_is_written_anew(self) -> None:
        self.limit("1000C\n" + "5 1\n-5 -1\n" * 600)
        self.store()
        self.assertEqual(self.said(), ["1000C", f"{SIZE} 1", f"{SIZE} 1"])

    def test_folders_count(self) -> None:
        self.limit(f"2C\n{SIZE} 1\n")
        self.store("/.spam")
        self.refused("/.spam")
        self.refused()
        self.assertEqual(list(quota._sizes(self.path)), [SIZE, SIZE])

    def test_no_quota(self) -> None:
        for text in ("", "x\n", "0S,0C\n", "12\n"):
            self.limit(text)
            self.store()
            self.assertEqual(self.said(), text.splitlines())
        os.unlink(f"{self.path}/maildirsize")
        os.mkfifo(f"{self.path}/maildirsize")
        self.store()

    def test_D3_a_link_is_no_quota(self) -> None:
        self.limit("1000C\n")
        other = f"{self.path}/other"
        os.link(f"{self.path}/maildirsize", other)
        self.store()
        self.assertEqual(self.said(), ["1000C"])
        os.unlink(f"{self.path}/maildirsize")
        os.symlink(other, f"{self.path}/maildirsize")
        self.assertEqual(self.assertRaises(OSError, self.store).errno, errno.ELOOP)
        self.assertEqual(self.said(), ["1000C"])

    def test_D3_a_link_that_is_taken_away_is_no_quota(self) -> None:
        """Then it has one name only, but that is another one's."""
        self.limit("1000C\n")
        path, other = f"{self.path}/maildirsize", f"{self.path}/other"
        os.rename(path, other)
        os.link(other, path)
        usual = os.open

        def opened(name: str, *words: int) -> int:
            descriptor = usual(name, *words)
            if name == path:
                os.unlink(path)
            return descriptor

        self.patch(os, "open", opened)
        self.store()
        with open(other, encoding="ascii") as file:
            self.assertEqual(file.read(), "1000C\n")

    def test_a_letter_that_cannot_be_moved_is_given_back(self) -> None:
        self.limit("1000C\n")

        def fail(*_: str) -> None:
            raise OSError(errno.EIO, "no")

        self.patch(os, "rename", fail)
        self.assertRaises(OSError, self.store)
        self.assertEqual(self.said(), ["1000C", f"{SIZE} 1", f"-{SIZE} -1"])
