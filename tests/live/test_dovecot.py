"""Dovecot beside a running service: it reads what is written, and takes letters by LMTP."""

from __future__ import annotations

import os
import pwd
import smtplib

from tests.live.office import DOMAIN, OfficeCase, stored
from tests.peers import HOST, NOBODY, Postoffice, free_port, passable
from tests.peers.dovecot import Dovecot

LETTER = b"Subject: to be read\r\n\r\n.dots\r\nFrom here on\r\n"
ACCOUNT = pwd.getpwnam(NOBODY)


class Reading(OfficeCase):
    def dovecot(self, location: str) -> Dovecot:
        """A Dovecot whose mailboxes belong to the account the service runs as."""
        dovecot = Dovecot(self.directory / "dovecot", free_port(), location, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        self.addCleanup(dovecot.stop)
        return dovecot

    def send(self, office: Postoffice, *users: str) -> None:
        """Hand a letter in for users of the domain."""
        with smtplib.SMTP(HOST, office.port, timeout=30) as client:
            recipients = [f"{user}@{DOMAIN}" for user in users]
            self.assertEqual(client.sendmail(f"bob@{DOMAIN}", recipients, LETTER), {})

    def test_maildirs(self) -> None:
        office = self.office()
        dovecot = self.dovecot(f"maildir:{office.directory}/mail/%d/%n")
        for _ in range(3):
            self.send(office, "alice")
        self.eventually("three letters", lambda: len(dovecot.letters(f"alice@{DOMAIN}")) == 3, office)
        letter = dovecot.letters(f"alice@{DOMAIN}")[0]
        self.assertIn(f"\r\nDelivered-To: alice@{DOMAIN}\r\n".encode(), letter)
        self.assertTrue(letter.endswith(b"\r\n\r\n.dots\r\nFrom here on\r\n"), letter)

    def test_mboxes(self) -> None:
        office = self.office(kind="mbox")
        dovecot = self.dovecot(f"mbox:{self.directory}/indexes:INBOX={office.directory}/mail/%d/%n")
        passable(self.directory / "indexes")
        os.chown(self.directory / "indexes", ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        for _ in range(2):
            self.send(office, "alice")
        self.eventually("two letters", lambda: len(dovecot.letters(f"alice@{DOMAIN}")) == 2, office)
        self.assertIn(b"\r\n>From here on\r\n", dovecot.letters(f"alice@{DOMAIN}")[0])

    def test_lmtp(self) -> None:
        place = passable(self.directory / "dovecot" / "homes")
        os.chown(place, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        dovecot = self.dovecot("maildir:~/Maildir")
        office = self.office(f"vmailbox=lmtp:{dovecot.lmtp}")
        self.send(office, "alice", "bob")
        for user in ("alice", "bob"):
            self.eventually("a letter", lambda user=user: dovecot.letters(f"{user}@{DOMAIN}"), office)
            (letter,) = dovecot.letters(f"{user}@{DOMAIN}")
            self.assertTrue(letter.endswith(b"\r\n\r\n.dots\r\nFrom here on\r\n"), letter)
        self.assertEqual(stored(office, "alice"), [])
        self.eventually("the log tells", lambda: f"({dovecot.lmtp}): 250 2.0.0" in office.log(), office)
