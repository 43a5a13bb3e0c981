from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import IDirectory
from postoffice.mail.destination import Mailbox
from tests.contracts import DirectoryContract
from tests.directory.support import DirectoryTestCase
from tests.doubles import StaticDirectory


class StaticTests(DirectoryContract, SynchronousTestCase):
    def make_directory(self) -> IDirectory:
        return StaticDirectory([self.ours], {self.user: Mailbox("maildir", "/mail/ann", "ann")})


class SystemTests(DirectoryContract, DirectoryTestCase):
    ours = "local.example"

    def make_directory(self) -> IDirectory:
        return self.make("localdomain=local.example")


class VirtualTests(DirectoryContract, DirectoryTestCase):
    user = "bob"

    def make_directory(self) -> IDirectory:
        return self.make()
