"""The passwords of the machine's accounts, from tables in the place of the system's."""

from __future__ import annotations

import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.crypt import ShadowEntry, load_shadow
from postoffice.services.system_passwords import PAM_SERVICE, PamPasswords, ShadowPasswords
from tests.doubles import PlainHashes
from tests.support import need_root

IDS = {"alice": 1000, "bob": 1001, "carol": 1002, "root": 0}


def account(name: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", IDS[name], IDS[name], "", "/", "/bin/sh"))


class Shadow(SynchronousTestCase):
    def setUp(self) -> None:
        self.hashes = PlainHashes()
        self.shadow = {
            "alice": ShadowEntry("hash of one", -1),
            "bob": ShadowEntry("!", -1),
            "carol": ShadowEntry("hash of three", 1),
            "root": ShadowEntry("hash of zero", -1),
        }
        self.names = ["root", "bob", "alice"]
        self.passwords = ShadowPasswords(
            self.hashes, self.shadow.get, lambda: [account(name) for name in self.names], IDS.get
        )

    def test_right_and_wrong(self) -> None:
        self.assertEqual(self.passwords.check("alice", b"one"), "alice")
        self.assertIsNone(self.passwords.check("alice", b"two"))

    def test_C2_whoever_cannot_log_in_costs_the_same(self) -> None:
        for name, password in (("bob", b"!"), ("nobody", b"zero"), ("carol", b"three"), ("root", b"zero")):
            self.hashes.done.clear()
            self.assertIsNone(self.passwords.check(name, password), name)
            self.assertEqual(self.hashes.done, ["hash of zero"], name)

    def test_C2_even_where_nobody_has_a_password(self) -> None:
        self.names = ["bob"]
        self.assertIsNone(self.passwords.check("nobody", b"x"))
        self.assertEqual(len(self.hashes.done), 1)

    def test_a_database_that_may_not_be_read(self) -> None:
        def denied(name: str) -> ShadowEntry | None:
            raise PermissionError(13, os.strerror(13), "shadow")

        passwords = ShadowPasswords(self.hashes, denied, lambda: [account("alice")], IDS.get)
        for name in ("alice", "nobody", "root"):
            with self.assertRaises(OSError):
                passwords.check(name, b"one")

    def test_the_real_one(self) -> None:
        need_root()
        find = load_shadow()
        entry = find("root")
        assert entry is not None
        with open("/etc/shadow") as file:
            line = next(line for line in file if line.startswith("root:"))
        self.assertEqual(entry.hash, line.split(":")[1])
        self.assertIsNone(find("no-such-user"))


class Talk:
    """Stands in for PAM; knows alice, and root."""

    code = 0
    reason = "Success"

    def __init__(self, code: int = 7) -> None:
        self.failing = code

    def authenticate(self, name: str, password: bytes, service: str, resetcreds: bool) -> bool:
        assert (service, resetcreds) == (PAM_SERVICE, False)
        if name in ("alice", "root") and password == b"one":
            return True
        self.code, self.reason = self.failing, "told to fail"
        return False


class Pam(SynchronousTestCase):
    def test_right_and_wrong(self) -> None:
        passwords = PamPasswords(Talk)
        self.assertEqual(passwords.check("alice", b"one"), "alice")
        self.assertIsNone(passwords.check("alice", b"two"))
        self.assertIsNone(passwords.check("bob", b"one"))

    def test_nobody_logs_in_as_root(self) -> None:
        self.assertIsNone(PamPasswords(Talk).check("root", b"one"))

    def test_trouble_is_no_answer(self) -> None:
        with self.assertRaisesRegex(OSError, "told to fail"):
            PamPasswords(lambda: Talk(9)).check("alice", b"two")

    def test_the_library_is_an_extra(self) -> None:
        import sys

        self.patch(sys, "modules", {**sys.modules, "pam": None})
        with self.assertRaisesRegex(LookupError, r"postoffice\[pam\]"):
            PamPasswords()
