from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.places import MailboxRule
from postoffice.directory.accounts import Account, SystemUsers, VirtualUsers
from postoffice.directory.domains import Domains, LocalNames
from postoffice.directory.lookup import Directory, SystemMailboxes, VirtualMailboxes
from postoffice.interfaces import IDirectory
from postoffice.mail.destination import Mailbox
from postoffice.watched import Watch
from tests.contracts import DirectoryContract
from tests.doubles import StaticDirectory


class StaticTests(DirectoryContract, SynchronousTestCase):
    def make_directory(self) -> IDirectory:
        return StaticDirectory([self.ours], {self.user: Mailbox("maildir", "/mail/ann", "ann")})


class SystemTests(DirectoryContract, SynchronousTestCase):
    def make_directory(self) -> IDirectory:
        watch = Watch(Clock().seconds, self.fail)
        domains = Domains(
            LocalNames("mx", (self.ours,), "/nonexistent"), "/nonexistent", frozenset[str], watch
        )
        users = SystemUsers(Account(self.user, 1000, "/home/ann"))
        return Directory(domains, [SystemMailboxes(users, MailboxRule("mbox", "/var/mail"))])


class VirtualTests(DirectoryContract, SynchronousTestCase):
    def make_directory(self) -> IDirectory:
        virtual = os.path.abspath(self.mktemp())
        os.makedirs(f"{virtual}/{self.ours}")
        for name, text in (
            ("domains.cf", f"joe:{self.ours}:1:\n"),
            (f"{self.ours}/passwd", f"{self.user}:x\n"),
        ):
            with open(f"{virtual}/{name}", "w") as file:
                file.write(text)
        watch = Watch(Clock().seconds, self.fail)
        domains = Domains(LocalNames("mx", (), "/nonexistent"), virtual, frozenset[str], watch)
        rule = MailboxRule("maildir", "/vmail/%d/%u")
        return Directory(domains, [VirtualMailboxes(VirtualUsers(virtual, watch), rule)])
