"""Folders, as options write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.destination import (
    Command,
    Copy,
    File,
    Mailbox,
    OwnMailbox,
    Remote,
    fixed_text,
    in_folder,
    read_fixed,
    where_to,
)

MBOX = Mailbox("mbox", "/var/mail/ann", "ann", "/home/ann")
MAILDIR = Mailbox("maildir", "/home/ann/Maildir", "ann", "/home/ann")


class Folders(SynchronousTestCase):
    def test_a_word_lies_beside_the_mailbox(self) -> None:
        self.assertEqual(in_folder(MBOX, "junk"), Mailbox("mbox", "/var/mail/ann:junk", "ann", "/home/ann"))
        self.assertEqual(
            in_folder(MAILDIR, "junk"), Mailbox("maildir", "/home/ann/Maildir/.junk", "ann", "/home/ann")
        )

    def test_in_the_home(self) -> None:
        for mailbox in (MBOX, MAILDIR):
            self.assertEqual(in_folder(mailbox, "~/mail/junk"), Mailbox("mbox", "/home/ann/mail/junk", "ann"))
            self.assertEqual(in_folder(mailbox, "~/junk/"), Mailbox("maildir", "/home/ann/junk", "ann"))

    def test_nobody_else_has_folders(self) -> None:
        virtual = Mailbox("mbox", "/var/spool/virtual/example.org/bob", "bob@example.org")
        for destination in (virtual, Remote("far.example")):
            self.assertIs(in_folder(destination, "junk"), destination)
        self.assertIs(in_folder(MBOX, ""), MBOX)


class Kept(SynchronousTestCase):
    """What the spool keeps of where a copy goes, and what tells copies apart."""

    kinds = (
        None,
        OwnMailbox(),
        File('/a b\n"', "ann"),
        Command("cat | x \u00fc", "ann", "detail"),
    )

    def test_there_and_back(self) -> None:
        for fixed in self.kinds:
            self.assertEqual(read_fixed(fixed_text(fixed)), fixed)
        self.assertEqual([fixed_text(fixed) for fixed in self.kinds[:2]], ["", "mailbox"])

    def test_nonsense(self) -> None:
        for text in ("x", "[]", '["file"]', '["file", 1, "a"]', '["pipe", "a", "b", "c"]', "{}"):
            self.assertRaises(ValueError, read_fixed, text)

    def test_copies_that_end_in_the_same_place_are_equal(self) -> None:
        ann, other = Address("ann", "Example.org."), Address("Ann", "example.org")
        box = Mailbox("mbox", "/m/ann", "ann")
        same = (
            (Copy(ann, (), None, box), Copy(other, (ann,), OwnMailbox(), box)),
            (Copy(ann, ()), Copy(Address("ann", "example.org"), (other,), None, Remote("mx.example.org"))),
            (Copy(ann, (), None, File("/f", "a")), Copy(other, (), None, File("/f", "a"))),
        )
        for one, two in same:
            self.assertEqual(one.key, two.key)
        keys = {copy.key for pair in same for copy in pair}
        keys |= {Copy(other, ()).key, Copy(ann, (), None, File("/f", "b")).key}
        self.assertEqual(len(keys), 5)

    def test_in_words(self) -> None:
        for destination, said in (
            (Mailbox("maildir", "/m", "a"), "maildir /m"),
            (Remote("example.org", 25), "smtp example.org:25"),
            (File("/f\x1b", "a"), "file /f?"),
            (Command("a\nb", "a"), "|a?b"),
            (None, "nowhere"),
        ):
            self.assertEqual(where_to(destination), said)
