"""Whom a child may be."""

from __future__ import annotations

import os
import pwd
import resource

from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.options import OPTIONS
from postoffice.delivery.helper import identity, unit
from postoffice.delivery.helper.identity import Refused, Rules
from postoffice.directory.sources import ROOT_MAIL


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
        entry("postie", 99, 99),
        entry("ann", 1000, 1000),
    )
}


class RulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(identity.os, "geteuid", lambda: 0)
        self.patch(identity.pwd, "getpwnam", ACCOUNTS.__getitem__)
        self.rules = Rules(100, frozenset({"mail"}), "", "postie")

    def refused(self, name: str, purpose: str = "files") -> tuple[str, bool]:
        error = self.assertRaises(Refused, self.rules.account, name, purpose)
        return str(error), error.never

    def test_users(self) -> None:
        for purpose in ("files", "places", "command", "pam"):
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
        for purpose in ("command", "pam"):
            self.assertTrue(self.refused("mail", purpose)[1])

    def test_D2_hashes_are_read_by_the_service_alone(self) -> None:
        self.assertEqual(self.rules.account("postie", "shadow").pw_uid, 99)
        for name in ("ann", "root", "mail"):
            self.assertTrue(self.refused(name, "shadow")[1])

    def test_C2_who_may_log_in(self) -> None:
        may = {name for name, account in ACCOUNTS.items() if self.rules.may_be(account)}
        self.assertEqual(may, {"ann"})

    def test_an_account_may_come_back(self) -> None:
        self.assertEqual(self.refused("joe"), ("there is no account joe", False))


class BecomingTests(SynchronousTestCase):
    """What is made sure of behind the change, with a system that does not do all it says."""

    def become(self, *, ids: tuple[int, ...] = (1000,) * 3, groups: tuple[int, ...] = (1000,) * 3) -> str:
        """Why a process that is now these does not go on."""
        self.patch(identity.os, "geteuid", lambda: 0)
        self.patch(identity.os, "getgrouplist", lambda name, group: [group])
        for name in ("setgroups", "setresuid", "setresgid"):
            self.patch(identity.os, name, lambda *_: None)
        self.patch(identity.os, "getresuid", lambda: ids)
        self.patch(identity.os, "getresgid", lambda: groups)
        return str(self.assertRaises(PermissionError, identity.become, ACCOUNTS["ann"], "files", None))

    def regain(self, *possible: str) -> None:
        def refuse(_: int) -> None:
            raise PermissionError

        for name in ("setuid", "setgid", "seteuid", "setegid"):
            self.patch(identity.os, name, (lambda _: None) if name in possible else refuse)

    def test_D2_every_id_is_looked_at(self) -> None:
        self.regain()
        for at in range(3):
            wrong = tuple(0 if at == place else 1000 for place in range(3))
            self.assertEqual(self.become(ids=wrong), "the account was not taken on wholly")
            self.assertEqual(self.become(groups=wrong), "the account was not taken on wholly")

    def test_D2_every_way_back_is_tried(self) -> None:
        for name in ("setuid", "setgid", "seteuid", "setegid"):
            self.regain(name)
            self.assertEqual(self.become(), "root could be regained after becoming ann")

    def test_D2_limits_are_never_raised(self) -> None:
        set_to: dict[int, tuple[int, int]] = {}
        self.patch(identity.resource, "setrlimit", set_to.__setitem__)
        for before, files in (
            ((20, 500), (500, 500)),
            ((20, 2000), (1024, 2000)),
            ((20, 20000), (1024, 4096)),
            ((20, resource.RLIM_INFINITY), (1024, 4096)),
        ):
            self.patch(identity.resource, "getrlimit", lambda kind, before=before: before)
            identity.set_limits()
            self.assertEqual(set_to, {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: files})


class FolderTests(SynchronousTestCase):
    """The group that may write where mboxes lie."""

    def setUp(self) -> None:
        self.patch(identity.os, "geteuid", lambda: 0)

    def group(self, mode: int, uid: int = 0, gid: int = 8, purpose: str = "files") -> int | None:
        fields = [0o40000 | mode, 0, 0, 2, uid, gid, 0, 0, 0, 0]
        self.patch(identity.os, "stat", lambda path: os.stat_result(fields))
        return Rules(100, frozenset(), "/var/mail", "postie").shared_group(purpose)

    def test_where_the_group_may_write(self) -> None:
        self.assertEqual(self.group(0o2775), 8)

    def test_where_it_is_not_needed_or_not_safe(self) -> None:
        for wanted in (
            self.group(0o755),
            self.group(0o1777),
            self.group(0o2775, uid=1000),
            self.group(0o775, gid=0),
            self.group(0o2775, purpose="command"),
            self.group(0o2775, purpose="places"),
            self.group(0o2775, purpose="pam"),
        ):
            self.assertIsNone(wanted)

    def test_who_may_read_the_shadow_database(self) -> None:
        self.assertEqual(self.group(0o640, gid=42, purpose="shadow"), 42)
        for mode, gid in ((0o600, 42), (0o640, 0), (0o0, 0)):
            self.assertRaises(Refused, self.group, mode, gid=gid, purpose="shadow")


class UnitTests(SynchronousTestCase):
    """A helper that reads the configuration itself."""

    def test_defaults_are_those_of_the_options(self) -> None:
        known = {option.name: option.default for option in OPTIONS}
        for name in ("vuser", "min-uid", "mailbox"):
            self.assertEqual(unit.DEFAULTS[name], known[name])
        self.assertEqual(unit.DEFAULTS["root-mail"], ROOT_MAIL)

    def test_settings(self) -> None:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write("min-uid=500 # here\nvuser=vmail\nmailbox=maildir:~/Maildir\n")
        self.patch(unit.os, "fstat", lambda _: os.stat_result([0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        rules = unit.rules_of(unit.read_settings(path))
        self.assertEqual(
            (rules.min_uid, rules.mailboxes_only, rules.mail_folder), (500, {"vmail", "mail"}, "")
        )
        self.assertEqual(unit.rules_of(unit.DEFAULTS).mail_folder, "/var/mail")
        self.assertEqual(rules.service, "postoffice")
        self.assertEqual(unit.rules_of({**unit.DEFAULTS, "user": "mta"}).service, "mta")

    def test_a_file_that_others_may_write_is_not_believed(self) -> None:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8"):
            pass
        for mode, uid in ((0o100664, 0), (0o100646, 0), (0o100644, 1000)):
            fields = [mode, 0, 0, 1, uid, 0, 0, 0, 0, 0]
            self.patch(unit.os, "fstat", lambda _, fields=fields: os.stat_result(fields))
            self.assertRaises(PermissionError, unit.read_settings, path)
