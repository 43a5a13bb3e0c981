"""Logging in to a running service: what the log keeps to itself, and who is not kept waiting."""

from __future__ import annotations

import select
import smtplib
import subprocess
from base64 import b64encode

from postoffice.crypt import load_crypt
from tests.live.office import DOMAIN, NAME, OfficeCase
from tests.live.raw import Wire
from tests.peers import HOST, Postoffice
from tests.support import need_root, program

ALICE = f"alice@{DOMAIN}"
PASSWORD = "correct horse"


def hashed(password: str, rounds: int = 1000) -> str:
    """A SHA-512 hash."""
    return load_crypt()(password.encode(), f"$6$rounds={rounds}$saltstring$")


def plain(name: str, password: str) -> bytes:
    return b"AUTH PLAIN " + b64encode(f"\0{name}\0{password}".encode()) + b"\r\n"


def said(office: Postoffice, after: str) -> str:
    """What is logged behind a word."""
    return office.log().partition(after)[2]


class LogIns(OfficeCase):
    def test_D6_no_password_is_logged(self) -> None:
        lines = "audit", f"log=json:{self.directory}/office/json.log"
        office = self.office(*lines, users={DOMAIN: [f"alice:{hashed(PASSWORD)}"]})
        for mechanism in ("LOGIN", "PLAIN"):
            for password in (PASSWORD, "battery staple"):
                words = [program("swaks"), "--server", f"{HOST}:{office.port}", "--quit-after", "AUTH"]
                words += ["--auth", mechanism, "--auth-user", ALICE, "--auth-password", password]
                done = subprocess.run(words, capture_output=True, check=False)
                self.assertEqual(done.returncode == 0, password == PASSWORD, done.stdout)
        with smtplib.SMTP(HOST, office.port) as client:
            client.docmd("AUTH", b64encode(PASSWORD.encode()).decode())
            client.docmd(PASSWORD)
        self.eventually("the last record", lambda: ":QUIT:221:" in said(office, ":AUTH:501:"), office)
        log = office.log()
        self.assertIn("(wrong password)", log)
        self.assertIn("AUTH PLAIN *", log)
        for secret in (PASSWORD, "battery staple"):
            self.assertNotIn(secret, log)
            for part in (secret, f"\0{ALICE}\0{secret}"):
                # The middle of it: what stands beside shifts the ends.
                self.assertNotIn(b64encode(part.encode()).decode()[-12:-4], log)

    def test_C2_a_password_holds_up_nobody(self) -> None:
        """A hash of some seconds is worked on while another client is answered."""
        office = self.office(users={DOMAIN: [f"alice:{hashed(PASSWORD, 3_000_000)}"]})
        with Wire(office.port) as busy, Wire(office.port) as other:
            for wire in (busy, other):
                wire.reply()
            busy.send(plain(ALICE, PASSWORD))
            for _ in range(20):
                other.ask(b"NOOP")
            self.assertEqual(select.select([busy.socket], [], [], 0)[0], [])
            self.assertEqual(busy.reply()[:3], b"235")

    def test_a_database_the_service_may_not_read(self) -> None:
        """It runs as nobody, who is not in the group of the shadow database."""
        need_root()
        office = self.office("auth=passwd")
        with Wire(office.port) as wire:
            wire.reply()
            for name in ("root", f"no-such-user@{NAME}"):
                self.assertEqual(wire.ask(plain(name, PASSWORD).rstrip())[:9], b"454 4.7.0", name)
        self.eventually("the log", lambda: "/etc/shadow" in office.log(), office)
