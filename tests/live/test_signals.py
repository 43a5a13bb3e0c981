"""Signals to a running service: SIGHUP reads the configuration again, SIGUSR1 switches audit records."""

from __future__ import annotations

import os
import re
import signal

from tests.live.office import OfficeCase
from tests.live.raw import Wire
from tests.peers import Postoffice


def greeted(office: Postoffice) -> Wire:
    """A session that has said EHLO."""
    wire = Wire(office.port)
    wire.reply()
    wire.ask(b"EHLO client.test")
    return wire


class Signals(OfficeCase):
    def rewrite(self, office: Postoffice, old: str, new: str) -> None:
        """Change the configuration file, and tell the service."""
        text = office.config.read_text()
        self.assertIn(old, text)
        office.config.write_text(text.replace(old, new))
        os.kill(office.pid, signal.SIGHUP)

    def told(self, office: Postoffice, words: str, times: int = 1) -> None:
        self.eventually(words, lambda: office.log().count(words) >= times, office)

    def test_release_1_5_4_HUP_kills_nobody(self) -> None:
        """Other settings are for the sessions that begin from now on."""
        office = self.office("size=1000")
        with greeted(office) as before:
            self.rewrite(office, "size=1000", "size=2000\nrequire-helo")
            self.told(office, "configuration read again, changed: size, require-helo")
            with greeted(office) as after:
                for wire, limit in ((before, 1000), (after, 2000)):
                    self.assertIn(b"SIZE %d\r\n" % limit, wire.ask(b"EHLO client.test"))
                    self.assertEqual(wire.ask(b"MAIL FROM:<> SIZE=%d" % (limit + 1))[:3], b"552")
            with Wire(office.port) as third:
                third.reply()
                self.assertEqual(third.ask(b"MAIL FROM:<>")[:3], b"503")

    def test_a_bad_configuration_is_told_and_changes_nothing(self) -> None:
        office = self.office("size=1000")
        self.rewrite(office, "size=1000", "size=nonsense\nno-such-option=1")
        self.told(office, "error the configuration was not taken over, the one before stays in force", 2)
        self.assertRegex(office.log(), rf"in force: {re.escape(str(office.config))}:\d+: size: ")
        with greeted(office) as wire:
            self.assertIn(b"SIZE 1000\r\n", wire.ask(b"EHLO client.test"))
        office.config.unlink()
        os.kill(office.pid, signal.SIGHUP)
        self.told(office, f"in force: {office.config}: No such file or directory", 1)
        with greeted(office) as wire:
            self.assertIn(b"SIZE 1000\r\n", wire.ask(b"EHLO client.test"))

    def test_USR1_begins_and_ends_audit_records(self) -> None:
        office = self.office()
        with greeted(office) as wire:
            wire.ask(b"NOOP one")
            os.kill(office.pid, signal.SIGUSR1)
            self.told(office, "auditing on")
            wire.ask(b"NOOP two")
            self.told(office, "NOOP:250:NOOP two")
            os.kill(office.pid, signal.SIGUSR1)
            self.told(office, "auditing off")
            wire.ask(b"NOOP three")
        office.stop()
        records = [line.partition("AUDIT:")[2] for line in office.log().splitlines() if "AUDIT:" in line]
        self.assertEqual(len(records), 1, office.log())
        self.assertRegex(records[0], r"^ +\d+:      127\.0\.0\.1:NOOP:250:NOOP two$")
