"""What is on the disk, and in which order, before a letter in a mailbox counts as delivered.

The calls that matter for that are recorded as they are made. A file is synced after the last octet was
written to it and before it gets the name under which readers find it; that name, and those of directories
made on the way, are synced before the deposit returns; an mbox stays locked until then.
"""

from __future__ import annotations

import errno
import os
import re
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.maildir import MaildirFile, put_together
from postoffice.delivery.mbox import MboxFile, append_together
from tests.delivery.deposits import put

LETTER = b"Subject: x\r\n\r\nbody\r\n"
# The name of a letter in a Maildir.
LONG = re.compile(r"1000000000\.M[^/]*?example\.org(,S=[0-9]+)?")


class DurableCase(SynchronousTestCase):
    """`calls` are those recorded: the call and the name below `top`, with `*` for the name of a letter."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        self.calls: list[str] = []
        self.failing = ""

    def record(self) -> None:
        """From here on."""
        for name in ("mkdir", "unlink"):
            self.patch(os, name, partial(self.named, name, getattr(os, name)))
        for name in ("write", "fsync", "ftruncate"):
            self.patch(os, name, partial(self.opened, name, getattr(os, name)))
        self.patch(os, "rename", partial(self.renamed, os.rename))

    def note(self, call: str, path: str) -> None:
        told = f"{call} {LONG.sub('*', os.path.relpath(path, self.top))}"
        # A letter may be written in any number of pieces.
        if self.calls[-1:] != [told]:
            self.calls.append(told)
        if told == self.failing:
            raise OSError(errno.EIO, "the disk")

    def named(self, name: str, usual: Any, path: str, *rest: Any) -> Any:
        self.note(name, path)
        return usual(path, *rest)

    def opened(self, name: str, usual: Any, descriptor: int, *rest: Any) -> Any:
        self.note(name, os.readlink(f"/proc/self/fd/{descriptor}"))
        return usual(descriptor, *rest)

    def renamed(self, usual: Any, old: str, new: str) -> None:
        self.note("rename to", new)
        usual(old, new)


class MaildirTests(DurableCase):
    def make(self, tree: str = "") -> MaildirFile:
        return MaildirFile(f"{self.top}/box", 1e9, "mx.example.org", tree)

    STORED = ("write box/tmp/*", "fsync box/tmp/*", "rename to box/new/*", "fsync box/new")

    def test_E1_a_letter(self) -> None:
        self.make().abort()
        self.record()
        put(self.make, LETTER)
        self.assertEqual(tuple(self.calls), self.STORED)

    def test_E1_the_last_octets(self) -> None:
        """What is held back until the letter ends is synced, too."""
        self.make().abort()
        deposit = self.make()
        deposit.write(b"x\r")
        self.record()
        deposit.commit()
        self.assertEqual(tuple(self.calls), self.STORED)

    def test_E1_letters_together(self) -> None:
        self.make().abort()
        self.record()
        self.assertEqual(put_together([(self.make, LETTER), (self.make, LETTER)]), [None, None])
        written, synced, renamed, directory = self.STORED
        self.assertEqual(self.calls, [written, synced, renamed, synced, renamed, directory])

    def test_E1_a_maildir_that_is_made(self) -> None:
        self.record()
        put(partial(self.make, self.top), LETTER)
        made = ["mkdir box", "fsync ."]
        for part in ("new", "cur", "tmp"):
            made += [f"mkdir box/{part}", "fsync box"]
        self.assertEqual(self.calls, [*made, *self.STORED])

    def test_E1_parents_that_are_made(self) -> None:
        self.record()
        put(lambda: MaildirFile(f"{self.top}/a/b", 1e9, "mx.example.org", self.top), LETTER)
        self.assertEqual(
            self.calls[:6], ["mkdir a/b", "mkdir a", "fsync .", "mkdir a/b", "fsync a", "mkdir a/b/new"]
        )

    def test_E1_a_directory_that_another_is_making(self) -> None:
        """Whoever made it may not have synced it yet."""
        os.mkdir(f"{self.top}/box")
        self.record()
        self.make().abort()
        self.assertEqual(self.calls[:3], ["mkdir box", "fsync .", "mkdir box/new"])

    def test_what_cannot_be_synced_is_not_there(self) -> None:
        self.make().abort()
        self.record()
        for self.failing in ("fsync box/tmp/*", "fsync box/new"):
            self.assertRaises(OSError, put, self.make, LETTER)
            errors = put_together([(self.make, LETTER), (self.make, LETTER)])
            self.assertEqual([str(error) for error in errors], [f"[Errno {errno.EIO}] the disk"] * 2)
            for part in ("new", "tmp"):
                self.assertEqual(os.listdir(f"{self.top}/box/{part}"), [], self.failing)

    def test_E1_the_quota_is_there_whole_or_not_renewed(self) -> None:
        """A first line that is lost would be a quota that is lost."""
        self.make().abort()
        with open(f"{self.top}/box/maildirsize", "w", encoding="ascii") as file:
            file.write("1000C\n" + "5 1\n" * 2000)
        self.record()
        put(self.make, LETTER)
        counted = ["write box/tmp/*.size", "fsync box/tmp/*.size", "rename to box/maildirsize"]
        self.assertEqual(self.calls, [*self.STORED[:2], *counted, "write box/maildirsize", *self.STORED[2:]])


class MboxTests(DurableCase):
    def make(self) -> MboxFile:
        return MboxFile(f"{self.top}/joe", "a@b.example", 1e9, "", quote=True)

    LOCKED = "write joe.lock"
    STORED = ("write joe", "fsync joe", "unlink joe.lock")

    def test_E1_a_letter(self) -> None:
        put(self.make, LETTER)
        self.record()
        put(self.make, LETTER)
        self.assertEqual(self.calls, [self.LOCKED, *self.STORED])

    def test_E1_an_mbox_that_is_made(self) -> None:
        self.record()
        put(self.make, LETTER)
        self.assertEqual(self.calls, [self.LOCKED, "write joe", "fsync joe", "fsync .", "unlink joe.lock"])

    def test_E1_letters_together(self) -> None:
        put(self.make, LETTER)
        self.record()
        append_together(f"{self.top}/joe", [("", 1e9, LETTER)] * 3, "", quote=True)
        self.assertEqual(self.calls, [self.LOCKED, *self.STORED])

    def test_E1_what_cannot_be_synced_is_cut_off_under_the_lock(self) -> None:
        put(self.make, LETTER)
        self.record()
        self.failing = "fsync joe"
        self.assertRaises(OSError, put, self.make, LETTER)
        self.assertEqual(
            self.calls, [self.LOCKED, "write joe", "fsync joe", "ftruncate joe", "unlink joe.lock"]
        )

    def test_E1_a_name_that_cannot_be_synced_is_taken_away(self) -> None:
        self.record()
        self.failing = "fsync ."
        self.assertRaises(OSError, put, self.make, LETTER)
        self.assertEqual(os.listdir(self.top), [])
