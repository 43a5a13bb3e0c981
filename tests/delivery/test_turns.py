from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.files import MailboxBusy
from postoffice.delivery.job import LOCK_PAUSE, LOCK_WAIT, Job
from postoffice.delivery.turns import LARGEST, MOST, Place, Turns, Whole

JOE = Place("/var/mail/joe", "", True, "joe")
SALLY = Place("/var/mail/sally", "", True, "sally")


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.writing: list[tuple[Place, list[bytes], Deferred[list[Exception | None]]]] = []
        self.turns = Turns(self.write, self.clock)
        self.addCleanup(lambda: self.assertEqual((self.turns._turns, self.turns._open), ({}, {})))
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def write(self, place: Place, letters: Sequence[Whole]) -> Deferred[list[Exception | None]]:
        done: Deferred[list[Exception | None]] = Deferred()
        self.writing.append((place, [text for _, _, text in letters], done))
        return done

    def put(self, text: bytes, place: Place = JOE, job: Job | None = None) -> Deferred[None]:
        return Deferred.fromCoroutine(self.turns.put(place, job or Job(), ("a@b.example", 1e9, text)))

    def end(self, *errors: Exception | None) -> list[bytes]:
        """End what is being written first; what it was."""
        _, letters, done = self.writing.pop(0)
        done.callback(list(errors) or [None] * len(letters))
        return letters

    def test_what_waits_goes_together(self) -> None:
        done = [self.put(text) for text in (b"1", b"2", b"3")]
        self.assertEqual(self.end(), [b"1"])
        self.successResultOf(done[0])
        self.assertNoResult(done[1])
        done.append(self.put(b"4"))
        self.assertEqual(self.end(), [b"2", b"3"])
        self.assertEqual(self.end(), [b"4"])
        for letter in done:
            self.assertIsNone(self.successResultOf(letter))

    def test_mailboxes_do_not_wait_for_each_other(self) -> None:
        self.put(b"1")
        self.put(b"2", SALLY)
        self.assertEqual((self.end(), self.end()), ([b"1"], [b"2"]))

    def test_other_ways_to_write_the_same_file_wait(self) -> None:
        self.put(b"1")
        self.put(b"2", Place(JOE.path, "", False, "joe"))
        self.assertEqual(len(self.writing), 1)
        self.assertEqual((self.end(), self.end()), ([b"1"], [b"2"]))

    def test_a_step_of_its_own_waits_and_is_waited_for(self) -> None:
        gate: Deferred[None] = Deferred()
        self.put(b"1")

        async def step() -> None:
            await gate

        own = Deferred.fromCoroutine(self.turns.take(JOE.path, step))
        self.put(b"2")
        self.end()
        self.assertEqual(self.writing, [])
        gate.callback(None)
        self.successResultOf(own)
        self.assertEqual(self.end(), [b"2"])

    def test_bounds(self) -> None:
        large = b"x" * (LARGEST // 2)
        for text in (b"first", *[b"1"] * (MOST + 1), large, large, large):
            self.put(text)
        sizes = []
        while self.writing:
            sizes.append(len(self.end()))
        self.assertEqual(sizes, [1, MOST, 2, 2])

    def test_each_letter_has_an_outcome_of_its_own(self) -> None:
        done = [self.put(text) for text in (b"1", b"2", b"3")]
        self.end()
        self.end(OSError(28, "full"), None)
        self.failureResultOf(done[1], OSError)
        self.successResultOf(done[2])

    def test_what_cannot_be_written_at_all_fails_for_all(self) -> None:
        done = [self.put(text) for text in (b"1", b"2", b"3")]
        self.end()
        self.writing.pop()[2].errback(ValueError("gone"))
        for letter in done[1:]:
            self.failureResultOf(letter, ValueError)

    def test_all_wait_for_the_lock_together_and_give_up_together(self) -> None:
        done = [self.put(text) for text in (b"1", b"2", b"3")]
        self.end()
        self.end(MailboxBusy(), MailboxBusy())
        for _ in range(int(LOCK_WAIT / LOCK_PAUSE)):
            self.clock.advance(LOCK_PAUSE)
            self.assertNoResult(done[1])
            self.assertEqual(self.end(MailboxBusy(), MailboxBusy()), [b"2", b"3"])
        for letter in done[1:]:
            self.failureResultOf(letter, MailboxBusy)

    def test_what_is_not_wanted_any_more_while_others_wait_for_the_lock(self) -> None:
        jobs = [Job() for _ in range(3)]
        done = [self.put(b"%d" % at, job=job) for at, job in enumerate(jobs)]
        self.end()
        self.end(MailboxBusy(), MailboxBusy())
        jobs[1].cancel()
        self.clock.advance(LOCK_PAUSE)
        self.assertEqual(self.end(), [b"2"])
        self.failureResultOf(done[1], CancelledError)
        self.successResultOf(done[2])

    def test_none_is_wanted_any_more(self) -> None:
        jobs = [Job() for _ in range(3)]
        done = [self.put(b"%d" % at, job=job) for at, job in enumerate(jobs)]
        self.end()
        self.end(MailboxBusy(), MailboxBusy())
        for job in jobs:
            job.cancel()
        for letter in done[1:]:
            self.failureResultOf(letter, CancelledError)
        self.assertEqual(self.writing, [])
