"""Passwords of the machine's accounts, as the service has them checked: who is asked, and how long."""

from __future__ import annotations

import errno
import os
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.helper import packets
from postoffice.delivery.identities import Lost, NotAllowed
from postoffice.delivery.passwords import MOST, PATIENCE, SHARE, STEP, HelpedPasswords


@frozen
class Found:
    """An account."""

    name: str


class Checks:
    """Stands in for the identities; `asked` are account, purpose, name and password. `one` is right.

    `wrong` is what goes wrong; `waiting` are checks that are not answered, where it is a list.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.wrong: Exception | None = None
        self.waiting: list[Deferred[bool]] | None = None

    async def check(self, account: str, purpose: str, name: str, file: int) -> bool:
        assert packets.is_sealed(file)
        password = b"".join(packets.pieces(file))
        self.asked.append((account, purpose, name, password))
        if self.waiting is not None:
            self.waiting.append(Deferred())
            return await self.waiting[-1]
        if self.wrong is not None:
            raise self.wrong
        return password == b"one"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.checks = Checks()
        self.passwords = self.made(self.find)

    def made(self, find: Any) -> HelpedPasswords:
        return HelpedPasswords(self.clock, self.checks, "postie", find)  # type: ignore[arg-type]

    async def find(self, name: str) -> Found | None:
        return Found("Ann") if name == "ann" else None

    def files(self) -> int:
        """How many files in memory are open here."""
        places = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum("memfd:" in os.readlink(place) for place in places if os.path.islink(place))


class Shadow(Case):
    def check(self, name: str, password: bytes) -> Deferred[str | None]:
        return Deferred.fromCoroutine(self.passwords.by_shadow(name, password))

    def test_everybody_is_asked_about(self) -> None:
        self.assertEqual(self.successResultOf(self.check("ann", b"one")), "ann")
        self.assertIsNone(self.successResultOf(self.check("nobody-known", b"two")))
        self.assertEqual(
            self.checks.asked,
            [("postie", "shadow", "ann", b"one"), ("postie", "shadow", "nobody-known", b"two")],
        )

    def test_C2_trouble_is_no_answer(self) -> None:
        troubles = OSError(5, "told"), Lost("told"), NotAllowed("told", never=False)
        for self.checks.wrong in troubles:
            error = self.failureResultOf(self.check("ann", b"one"), OSError)
            self.assertIn("told", str(error.value))

    def test_A9_no_answer_in_time(self) -> None:
        before = self.files()
        self.checks.waiting = []
        check = self.check("ann", b"one")
        self.clock.advance(PATIENCE - 1)
        self.assertNoResult(check)
        self.assertEqual(self.files(), before + 1)
        self.clock.advance(1)
        self.failureResultOf(check, OSError)
        self.assertEqual(self.files(), before)

    def test_A9_no_file_is_no_check_under_way(self) -> None:
        def fail() -> int:
            raise OSError(errno.EMFILE, "told to fail")

        patch = self.patch(packets, "memory_file", fail)
        for _ in range(MOST + 1):
            error = self.failureResultOf(self.check("ann", b"one"), OSError)
            self.assertEqual(error.value.errno, errno.EMFILE)
        patch.restore()
        self.assertEqual(self.successResultOf(self.check("ann", b"one")), "ann")

    def test_A9_too_many_at_once(self) -> None:
        self.checks.waiting = []
        checks = [self.check("ann", b"one") for _ in range(MOST)]
        self.failureResultOf(self.check("ann", b"one"), BlockingIOError)
        self.checks.waiting[0].callback(True)
        self.successResultOf(checks[0])
        checks.append(self.check("ann", b"one"))
        for waiting in self.checks.waiting[1:]:
            waiting.callback(False)
        for check in checks[1:]:
            self.assertIsNone(self.successResultOf(check))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Pam(Case):
    def check(self, name: str, password: bytes) -> Deferred[str | None]:
        return Deferred.fromCoroutine(self.passwords.by_pam(name, password))

    def test_as_the_account(self) -> None:
        self.assertEqual(self.successResultOf(self.check("ann", b"one")), "Ann")
        self.assertEqual(self.checks.asked, [("Ann", "pam", "Ann", b"one")])

    def test_as_the_one_there_is(self) -> None:
        self.passwords = self.made(None)
        self.assertEqual(self.successResultOf(self.check("joe", b"one")), "joe")
        self.assertEqual(self.checks.asked, [("postie", "pam", "joe", b"one")])

    def test_A9_one_account_does_not_take_all_the_room(self) -> None:
        """Its user may have stopped the processes."""
        self.checks.waiting = []
        checks = [self.check("ann", b"one") for _ in range(SHARE)]
        error = self.failureResultOf(self.check("ann", b"one"), BlockingIOError)
        self.assertIn("of ann", str(error.value))
        self.passwords._find = None
        other = self.check("joe", b"one")
        for waiting in self.checks.waiting:
            waiting.callback(True)
        self.assertEqual(self.successResultOf(other), "joe")
        self.assertEqual([self.successResultOf(check) for check in checks], ["Ann"] * SHARE)
        self.checks.waiting = None
        self.assertEqual(self.successResultOf(self.check("ann", b"one")), "ann")

    def test_C2_a_share_tells_no_names(self) -> None:
        """Who is not there is refused as early as who is."""
        for name in ("ann", "joe"):
            checks = [self.check(name, b"two") for _ in range(SHARE)]
            self.failureResultOf(self.check(name, b"two"), BlockingIOError)
            self.clock.advance(STEP)
            self.assertEqual({self.successResultOf(check) for check in checks}, {None})
        self.assertEqual(self.passwords._shares, {})

    def test_C2_a_failure_tells_nothing_by_its_time(self) -> None:
        """The password is wrong, nothing is done as that account, there is none, PAM takes a while."""

        def forbid() -> None:
            self.checks.wrong = NotAllowed("below min-uid", never=True)

        def wait() -> None:
            self.checks.waiting = []

        for name, prepare in (("ann", lambda: None), ("joe", lambda: None), ("ann", forbid), ("ann", wait)):
            prepare()
            check = self.check(name, b"two")
            self.clock.advance(STEP / 2)
            for waiting in self.checks.waiting or ():
                waiting.callback(False)
            self.assertNoResult(check)
            self.clock.advance(STEP / 2)
            self.assertIsNone(self.successResultOf(check))
        self.assertNotIn("joe", [name for name, *_ in self.checks.asked])

    def test_C2_trouble_is_no_answer(self) -> None:
        for self.checks.wrong in (OSError(5, "told"), Lost("told"), NotAllowed("told", False, rule=False)):
            error = self.failureResultOf(self.check("ann", b"one"), OSError)
            self.assertIn("told", str(error.value))
