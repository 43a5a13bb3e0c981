"""Folders, as options write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.destination import Mailbox, Remote, in_folder

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
