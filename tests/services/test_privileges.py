"""Who the service runs as. As root, giving root up is tried for real in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.privileges import (
    Account,
    account_name,
    full_name,
    give_up_root,
    group_id,
    make_directory,
    named_account,
    service_account,
)
from tests.support import CHECKOUT, need_root

BECOME = """
import os
from postoffice.services.privileges import give_up_root, service_account
give_up_root(service_account("nobody"))
try:
    os.setuid(0)
    print("root again")
except PermissionError:
    print(os.getresuid(), os.getresgid(), os.getgroups(), oct(os.umask(0)))
"""


class WhoItIs(SynchronousTestCase):
    def as_uid(self, uid: int) -> None:
        self.patch(os, "geteuid", lambda: uid)

    def test_root_becomes_the_account_that_is_named(self) -> None:
        self.as_uid(0)
        self.assertEqual(service_account("nobody").name, "nobody")

    def test_root_without_such_an_account_is_told_what_to_do(self) -> None:
        self.as_uid(0)
        with mock.patch("pwd.getpwnam", side_effect=KeyError("postoffice")):
            error = self.assertRaises(LookupError, service_account, None)
        self.assertIn("useradd --system postoffice", str(error))

    def test_the_service_never_runs_as_root(self) -> None:
        self.as_uid(0)
        self.assertIn("never runs as root", str(self.assertRaises(LookupError, service_account, "root")))

    def test_anybody_may_ask_whom_root_would_start_it_as(self) -> None:
        self.as_uid(65534)
        self.assertEqual(named_account("daemon").name, "daemon")
        self.assertIn("never runs as root", str(self.assertRaises(LookupError, named_account, "root")))

    def test_others_run_as_themselves(self) -> None:
        self.as_uid(65534)
        self.assertEqual(service_account(None).uid, 65534)
        self.assertEqual(service_account("nobody").uid, 65534)
        self.assertIn("only root", str(self.assertRaises(LookupError, service_account, "daemon")))

    def test_names(self) -> None:
        self.assertEqual(account_name(0), "root")
        self.assertIsNone(account_name(3_999_999_999))
        self.assertEqual(group_id("root"), 0)
        self.assertEqual((full_name("root"), full_name("no such account")), ("root", ""))
        self.assertIsNone(group_id(None))
        self.assertRaises(LookupError, group_id, "no such group")


class GivingUp(SynchronousTestCase):
    def test_D2_there_is_no_way_back(self) -> None:
        need_root()
        done = subprocess.run(
            [sys.executable, "-c", BECOME],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        self.assertEqual(done.stdout.split(" [")[0], "(65534, 65534, 65534) (65534, 65534, 65534)")
        self.assertTrue(done.stdout.endswith("0o77\n"), done.stdout)
        self.assertNotIn("[0", done.stdout)

    def test_a_way_back_is_an_error(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        for name in ("initgroups", "setresgid", "setresuid", "setuid", "umask"):
            self.patch(os, name, lambda *_: None)
        self.assertRaises(PermissionError, give_up_root, Account("nobody", 65534, 65534, "/"))


class Directories(SynchronousTestCase):
    me = Account("me", os.getuid(), os.getgid(), "/")

    def test_made_with_its_mode_and_left_alone_when_there(self) -> None:
        path = self.mktemp() + "/a/b"
        make_directory(path, self.me, 0o700)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
        os.chmod(path, 0o755)
        make_directory(path, self.me, 0o700)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o755)
