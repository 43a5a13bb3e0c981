"""Whom a child may be."""

from __future__ import annotations

import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.helper import identity
from postoffice.delivery.helper.identity import Refused, Rules


def entry(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    """A line of passwd(5)."""
    return pwd.struct_passwd((name, "x", uid, gid, "", "/home", "/bin/sh"))


ACCOUNTS = {
    one.pw_name: one
    for one in (
        entry("root", 0, 0),
        entry("toor", 0, 100),
        entry("wheel", 2000, 0),
        entry("daemon", 1, 1),
        entry("mail", 8, 8),
        entry("ann", 1000, 1000),
    )
}


class RulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(identity.os, "geteuid", lambda: 0)
        self.patch(identity.pwd, "getpwnam", ACCOUNTS.__getitem__)
        self.rules = Rules(100, frozenset({"mail"}), "")

    def refused(self, name: str, purpose: str = "files") -> tuple[str, bool]:
        error = self.assertRaises(Refused, self.rules.account, name, purpose)
        return str(error), error.never

    def test_users(self) -> None:
        for purpose in ("files", "command"):
            self.assertEqual(self.rules.account("ann", purpose).pw_uid, 1000)

    def test_D2_who_is_refused(self) -> None:
        for name in ("root", "toor", "wheel"):
            self.assertEqual(
                self.refused(name), (f"nothing is done as {name}, who is root or of its group", True)
            )
        self.assertEqual(
            self.refused("daemon"), ("nothing is done as daemon, whose number is below min-uid", True)
        )

    def test_who_has_mailboxes_only(self) -> None:
        self.assertEqual(self.rules.account("mail", "files").pw_uid, 8)
        self.assertTrue(self.refused("mail", "command")[1])

    def test_an_account_may_come_back(self) -> None:
        self.assertEqual(self.refused("joe"), ("there is no account joe", False))


class FolderTests(SynchronousTestCase):
    """The group that may write where mboxes lie."""

    def setUp(self) -> None:
        self.patch(identity.os, "geteuid", lambda: 0)

    def group(self, mode: int, uid: int = 0, gid: int = 8, purpose: str = "files") -> int | None:
        fields = [0o40000 | mode, 0, 0, 2, uid, gid, 0, 0, 0, 0]
        self.patch(identity.os, "stat", lambda path: os.stat_result(fields))
        return Rules(100, frozenset(), "/var/mail").shared_group(purpose)

    def test_where_the_group_may_write(self) -> None:
        self.assertEqual(self.group(0o2775), 8)

    def test_where_it_is_not_needed_or_not_safe(self) -> None:
        for wanted in (
            self.group(0o755),
            self.group(0o1777),
            self.group(0o2775, uid=1000),
            self.group(0o775, gid=0),
            self.group(0o2775, purpose="command"),
        ):
            self.assertIsNone(wanted)
