"""How many jobs are under way at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.as_user import AsUser
from postoffice.delivery.identities import AT_ONCE, Identities


async def pieces() -> AsyncIterator[bytes]:
    """A letter."""
    yield b"Hi\r\n"


class Deaf:
    """Who is asked for children that never answer; `asked` is for whom, and what for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def request(self, account: str, purpose: str, connection: int) -> None:
        self.asked.append((account, purpose))

    async def stop(self) -> None:
        pass


class SharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.helper = Deaf()
        self.identities = Identities(MemoryReactorClock(), self.helper)
        self.addCleanup(self.end)
        self.jobs: list[Deferred[object]] = []

    def end(self) -> None:
        self.identities._abandon()
        for job in self.jobs:
            self.failureResultOf(job)
        self.assertEqual(self.identities._shares, {})

    def run_commands(self, account: str, count: int) -> None:
        for _ in range(count):
            work = self.identities.run(account, {"timeout": 0}, -1, lambda _: None)
            self.jobs.append(Deferred.fromCoroutine(work))

    def test_A9_commands_of_one_user_do_not_hold_up_those_of_others(self) -> None:
        most, share = AT_ONCE["command"]
        self.run_commands("ann", 2 * most)
        self.assertEqual(self.helper.asked, [("ann", "command")] * share)
        self.run_commands("bob", 1)
        self.assertEqual(self.helper.asked[share:], [("bob", "command")])

    def test_A9_letters_are_checked_whatever_users_have_run(self) -> None:
        most, share = AT_ONCE["command"]
        for number in range(most // share):
            self.run_commands(f"user{number}", share)
        self.run_commands("nobody", 1)
        self.assertEqual(len(self.helper.asked), most)
        as_user = AsUser(self.identities)
        self.jobs.append(
            Deferred.fromCoroutine(as_user.check("nobody", "av", {}, pieces(), 0, lambda _: None))
        )
        self.assertEqual(self.helper.asked[most:], [("nobody", "command")])
