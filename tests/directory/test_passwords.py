"""Whose password is compared with what, for every form of a log-in name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.directory.accounts import VirtualUsers
from postoffice.directory.domains import Domains, LocalNames
from postoffice.directory.passwords import SystemPasswords, VirtualPasswords, spelling
from postoffice.mail.reply import Refusal
from postoffice.watched import Unreadable, Watch
from tests.directory.support import no_exchange
from tests.doubles import PlainHashes

NAMES = LocalNames("mail.example.com", ("example.com",), mailname="/nonexistent")
PASSWD = "Alice:hash of one\nbob:another of two\ncarol:*\n"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.hashes = PlainHashes()
        self.directory = os.path.abspath(self.mktemp())
        for domain in ("example.org", "empty.example"):
            os.makedirs(f"{self.directory}/{domain}")
        self.write("example.org/passwd", PASSWD)
        self.write("domains.cf", "root:Example.ORG:1:\nroot:empty.example:1:\nroot:off.example:0:\n")
        os.rename(f"{self.directory}/example.org", f"{self.directory}/Example.ORG")
        self.warnings: list[str] = []
        self.clock = Clock()
        watch = Watch(self.clock.seconds, self.warnings.append)
        self.domains = Domains(NAMES, self.directory, frozenset, watch, no_exchange())
        self.users = VirtualUsers(self.directory, watch)
        self.checker: ICredentialsChecker = VirtualPasswords(
            self.domains, self.users, self.hashes, self.at_once
        )

    def at_once(self, function: Callable[[], Any]) -> Deferred[Any]:
        try:
            return succeed(function())
        except Exception:
            return fail()

    def write(self, name: str, text: str) -> None:
        with open(f"{self.directory}/{name}", "w") as file:
            file.write(text)

    def check(self, name: str, password: str) -> Deferred[bytes | tuple[()]]:
        return self.checker.requestAvatarId(UsernamePassword(name.encode(), password.encode()))

    def denied(self, name: str, password: str) -> str:
        return str(self.failureResultOf(self.check(name, password), UnauthorizedLogin).value)


class Virtual(Case):
    def test_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(ICredentialsChecker, self.checker))

    def test_the_name_comes_as_the_files_spell_it(self) -> None:
        for name in ("alice@example.org", "ALICE@EXAMPLE.ORG", "Alice@example.org."):
            self.assertEqual(self.successResultOf(self.check(name, "one")), b"Alice@Example.ORG")
        self.assertEqual(self.successResultOf(self.check("bob@example.org", "two")), b"bob@Example.ORG")

    def test_wrong(self) -> None:
        for name, password in (
            ("alice@example.org", "two"),
            ("alice@example.org", ""),
            ("carol@example.org", "*"),
            ("nobody@example.org", "one"),
            ("@example.org", "one"),
            ("alice@bob@example.org", "one"),
            ("a/../alice@example.org", "one"),
        ):
            self.denied(name, password)

    def test_others_are_not_asked_about(self) -> None:
        for name in (
            "alice",
            "alice@",
            "alice@example.com",
            "alice@example.net",
            "alice@off.example",
            "@",
            "",
        ):
            self.denied(name, "one")
        self.assertEqual(self.hashes.done, [])

    def test_C2_everybody_costs_the_same(self) -> None:
        """One hash for each attempt, of a kind that users of the domain have: the same for the same name."""
        for name in ("alice", "bob", "carol", "nobody", *(f"user{number}" for number in range(50))):
            self.hashes.done.clear()
            for password in ("wrong", "one of two"):
                self.denied(f"{name}@example.org", password)
            first, second = self.hashes.done
            self.assertEqual(first, second)
            self.assertIn(first, ("hash of one", "another of two"))

    def test_C2_the_work_is_of_all_kinds_there_are(self) -> None:
        for number in range(50):
            self.denied(f"user{number}@example.org", "x")
        self.assertEqual(set(self.hashes.done), {"hash of one", "another of two"})

    def test_C2_the_right_password_of_another_opens_nothing(self) -> None:
        for name in ("carol", *(f"user{number}" for number in range(50))):
            self.denied(f"{name}@example.org", "one")
            self.denied(f"{name}@example.org", "two")

    def test_a_domain_without_users(self) -> None:
        self.denied("alice@empty.example", "one")
        self.assertEqual(self.hashes.done, [])

    def test_a_file_with_a_mistake(self) -> None:
        self.write("Example.ORG/passwd", "alice\n")
        refusal = self.failureResultOf(self.check("alice@example.org", "one"), Refusal).value
        self.assertEqual((refusal.reply.code, refusal.reply.status), (454, "4.7.0"))
        self.write("domains.cf", "nonsense\n")
        watch = Watch(Clock().seconds, self.warnings.append)
        domains = Domains(NAMES, self.directory, frozenset, watch, no_exchange())
        self.checker = VirtualPasswords(domains, self.users, self.hashes, self.at_once)
        self.assertEqual(self.failureResultOf(self.check("a@b", "one"), Refusal).value.reply.code, 454)
        self.assertTrue(domains.any_virtual())

    def test_too_many_at_once(self) -> None:
        self.checker = VirtualPasswords(
            self.domains, self.users, self.hashes, lambda _: fail(BlockingIOError(11, "60 wait already"))
        )
        refusal = self.failureResultOf(self.check("alice@example.org", "one"), Refusal).value
        self.assertEqual((refusal.reply.code, refusal.why), (454, "[Errno 11] 60 wait already"))

    def test_D6_nothing_shows_a_hash(self) -> None:
        self.successResultOf(self.check("alice@example.org", "one"))
        domain = self.successResultOf(self.domains.find("example.org"))
        (user, *_) = self.successResultOf(self.users.all(domain)).values()
        self.assertNotIn("hash", repr(user))
        self.write("Example.ORG/passwd", "alice:hash of one\nalice:hash of two\n")
        self.clock.advance(2)
        self.successResultOf(self.check("alice@example.org", "one"))
        (warning,) = self.warnings
        self.assertIn("given twice", warning)
        self.assertNotIn("hash of", warning)

    def test_whether_there_are_any(self) -> None:
        self.assertTrue(self.domains.any_virtual())
        watch = Watch(Clock().seconds, self.warnings.append)
        self.assertFalse(Domains(NAMES, "/nonexistent", frozenset, watch, no_exchange()).any_virtual())


class System(Case):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[str] = []
        self.broken: Exception | None = None
        self.checker = SystemPasswords(self.domains, self.source)

    async def source(self, name: str, password: bytes) -> str | None:
        self.asked.append(name)
        if self.broken is not None:
            raise self.broken
        return name if (name, password) == ("root", b"one") else None

    def test_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(ICredentialsChecker, self.checker))

    def test_the_machines_own_names(self) -> None:
        """Release 1.4.9: AUTH for the machine's own domain."""
        for name in ("root", "ROOT", "root@mail.example.com", "root@Example.com", "root@localhost"):
            self.assertEqual(self.successResultOf(self.check(name, "one")), b"root", name)
        self.denied("root", "two")
        self.denied("nobody@example.com", "one")

    def test_others_are_not_asked_about(self) -> None:
        for name in (
            "root@example.org",
            "root@example.net",
            "root@off.example",
            "@",
            "",
            "root@",
            "a/b",
            "..",
            "a b",
        ):
            self.denied(name, "one")
        self.assertEqual(self.asked, [])

    def test_a_source_that_cannot_tell(self) -> None:
        for self.broken in (OSError(13, "it says why"), Unreadable("it says why")):
            refusal = self.failureResultOf(self.check("root", "one"), Refusal).value
            self.assertEqual((refusal.reply.code, refusal.reply.status), (454, "4.7.0"))
            self.assertIn("it says why", refusal.why)


class Spelling(Case):
    def spelt(self, name: str) -> str:
        return self.successResultOf(Deferred.fromCoroutine(spelling(self.domains, name)))

    def test_C2_an_account_has_one(self) -> None:
        for name in ("Alice@example.org", "alice@EXAMPLE.ORG", "alice@example.org."):
            self.assertEqual(self.spelt(name), "alice@example.org")
        places = ("", "@example.com", "@mail.example.com.", "@localhost", "@[127.0.0.1]", "@[127.1.2.3]")
        for place in (*places, "@[IPv6:::1]", "@[IPv6:0:0::1]"):
            self.assertEqual(self.spelt("Root" + place), "root")

    def test_what_is_no_account(self) -> None:
        self.assertEqual(self.spelt("Alice@far.example"), "alice@far.example")
        self.assertEqual(self.spelt("Alice@"), "alice@")
