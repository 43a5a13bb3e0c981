"""The queue against the in-memory spool: what is tried when, and what becomes of it."""

from __future__ import annotations

import email
from email.message import Message
from unittest import mock

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import SpoolFull
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Mailbox, Remote
from postoffice.mail.outcome import Postponed
from postoffice.mail.reply import Reply
from postoffice.queue.lane import CROWDED, DEAD_FOR, REMOTE_AT_ONCE, WAITING, Job, Lanes
from postoffice.queue.scheduler import LETTERS_IN_HAND
from tests.queue.support import FINE, LATER, NEVER, Office


class SchedulerCase(SynchronousTestCase):
    """Every test ends without a delayed call left over."""

    def office(self, **settings: float) -> Office:
        office = Office(**settings)  # type: ignore[arg-type]
        office.scheduler.start()
        self.addCleanup(self._stopped, office)
        return office

    def _stopped(self, office: Office) -> None:
        self.stop(office)
        self.assertEqual(office.clock.getDelayedCalls(), [])

    def stop(self, office: Office) -> None:
        """Stop the queue; what hangs is cut off after the bound."""
        stopped = Deferred.fromCoroutine(office.scheduler.stop(5.0))
        office.clock.advance(0 if stopped.called else 5)
        self.successResultOf(stopped)


class AtOnce(SchedulerCase):
    def test_what_was_taken_is_delivered_from_memory_and_forgotten(self) -> None:
        office = self.office()
        letter = office.post("a@example.org", "b@example.net")
        self.assertEqual(
            office.local.attempts, [(letter, Mailbox("maildir", "/mail/a", "a"), ["a@example.org"])]
        )
        self.assertEqual(office.remote.attempts, [(letter, Remote("example.net"), ["b@example.net"])])
        self.assertEqual(office.remote.contents, [b"Subject: s\r\n\r\nx\r\n"])
        self.assertEqual(office.entries(), {})

    def test_one_transaction_for_the_recipients_of_a_destination(self) -> None:
        office = self.office()
        office.post("a@example.net", "b@other.example", "c@example.net")
        self.assertEqual(
            [names for _, _, names in office.remote.attempts],
            [["a@example.net", "c@example.net"], ["b@other.example"]],
        )

    def test_no_transaction_asks_for_more_than_every_server_takes(self) -> None:
        office = self.office()
        office.post(*(f"u{n}@example.net" for n in range(250)))
        # Others get their turn between hundreds that are looked up.
        office.clock.pump([0, 0])
        self.assertEqual([len(names) for _, _, names in office.remote.attempts], [100, 100, 50])
        self.assertEqual(office.entries(), {})

    def test_a_destination_gets_so_many_attempts_at_once(self) -> None:
        office = self.office()
        office.remote.answer = None
        letters = [office.post("a@example.net") for _ in range(25)]
        self.assertEqual(len(office.remote.open), 20)
        while office.remote.open:
            office.remote.finish()
        self.assertEqual([letter for letter, _, _ in office.remote.attempts], letters)
        self.assertEqual(office.entries(), {})


class DeadHosts(SchedulerCase):
    gone = Postponed(Reply(441, (4, 1), "cannot connect"), "[192.0.2.1]:25")

    def test_what_waits_for_a_dead_host_is_put_off_with_the_first_that_failed(self) -> None:
        office = self.office()
        office.remote.answer = None
        letters = [office.post("a@dead.example") for _ in range(50)]
        self.assertEqual(len(office.remote.open), 20)
        office.remote.finish(self.gone)
        self.assertEqual(len(office.journal.named("postponed")), 31)
        while office.remote.open:
            office.remote.finish(self.gone)
        self.assertEqual(sorted(office.entries()), sorted(letters))
        self.assertEqual(len(office.remote.attempts), 20)

    def test_for_a_while_nothing_more_is_tried(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: self.gone
        office.post("a@dead.example")
        for _ in range(10):
            office.post("b@dead.example")
        self.assertEqual(len(office.remote.attempts), 1)
        self.assertEqual(len(office.journal.named("postponed")), 11)
        office.clock.advance(DEAD_FOR)
        office.post("c@dead.example")
        self.assertEqual(len(office.remote.attempts), 2)

    def test_a_run_tries_them_all_the_same(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: self.gone
        office.post("a@dead.example")
        office.remote.answer = lambda recipient: FINE
        self.successResultOf(Deferred.fromCoroutine(office.scheduler.run(None)))
        self.assertEqual(office.entries(), {})

    def test_a_silent_host_does_not_take_the_room_of_others(self) -> None:
        office = self.office()
        office.remote.answer = None
        for _ in range(LETTERS_IN_HAND + 200):
            office.post("a@silent.example")
        self.assertTrue(office.scheduler.has_room())
        office.post("b@example.org")
        self.assertEqual(office.journal.named("delivered"), ["b@example.org"])
        self.assertEqual(len(office.remote.open), 20)
        self.assertEqual(len(office.entries()), LETTERS_IN_HAND + 200)
        office.remote.answer = lambda recipient: FINE
        while office.remote.open:
            office.remote.finish()
        for _ in range(10):
            office.clock.advance(30)
        self.assertEqual(office.entries(), {})
        self.assertGreater(LETTERS_IN_HAND, 2 * WAITING)

    def test_the_dns_without_an_answer_counts_as_a_dead_host(self) -> None:
        office = self.office()
        office.remote.answer = None
        for _ in range(30):
            office.post("a@dead.example")
        office.remote.finish(Postponed(Reply(451, (4, 3), "no answer")))
        self.assertEqual(len(office.journal.named("postponed")), 11)
        while office.remote.open:
            office.remote.finish(self.gone)

    def test_a_host_that_says_not_now_does_not(self) -> None:
        office = self.office()
        office.remote.answer = None
        for _ in range(30):
            office.post("a@busy.example")
        office.remote.finish(LATER)
        self.assertEqual(len(office.journal.named("postponed")), 1)
        while office.remote.open:
            office.remote.finish()


class NotNow(SchedulerCase):
    def test_postponed_recipients_are_tried_again_later_and_later(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: LATER
        office.post("a@example.net")
        times = []
        seen = 1
        for _ in range(4 * 3600 // 10):
            office.clock.advance(10)
            if len(office.remote.attempts) > seen:
                seen += 1
                times.append(office.clock.seconds() - 1_000_000)
        waits = [after - before for before, after in zip([0.0, *times], times, strict=False)]
        for measured, wanted in zip(waits, (300, 900, 3600, 3600), strict=False):
            self.assertLessEqual(abs(measured - wanted), wanted * 0.1 + 10)
        self.assertGreaterEqual(len(waits), 4)

    def test_only_what_is_left_is_tried_again(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: LATER if recipient.address.local == "b" else NEVER
        office.post("a@example.net", "b@example.net", sender=None)
        office.clock.advance(400)
        self.assertEqual([names for _, _, names in office.remote.attempts][1:], [["b@example.net"]])

    def test_past_its_lifetime_it_is_returned_with_the_last_answer(self) -> None:
        office = self.office(lifetime=1000.0)
        office.remote.answer = lambda recipient: LATER
        office.post("a@example.net")
        for _ in range(200):
            office.clock.advance(10)
        self.assertEqual(office.entries(), {})
        self.assertEqual(office.journal.named("bounced"), ["a@example.net"])
        (content,) = office.local.contents
        assert content is not None
        block = _delivery_status(content)
        self.assertEqual(block["Status"], "5.4.7")
        self.assertIn("451 4.4.1 not now", block["Diagnostic-Code"])

    def test_a_look_up_that_failed_is_retried_and_one_that_says_no_is_final(self) -> None:
        office = self.office()
        letter = office.post("unknown@example.org", "nobody@example.org")
        self.assertEqual(office.entries()[letter], ["unknown@example.org"])
        self.assertEqual(office.journal.named("bounced"), ["nobody@example.org"])

    def test_a_bug_postpones_and_is_logged(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: {}[recipient.key]
        letter = office.post("a@example.net", "bug@example.org")
        self.assertEqual(office.entries()[letter], ["bug@example.org", "a@example.net"][::-1])
        self.assertEqual(len(office.journal.named("error")), 2)


class Returned(SchedulerCase):
    def test_a_failure_is_returned_to_the_sender(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: NEVER
        office.post("a@example.net", "b@example.net", content=b"Subject: mine\r\nTo: x\r\n\r\nbody\r\n")
        (content,) = office.local.contents
        assert content is not None
        message = email.message_from_bytes(content)
        self.assertEqual(message["To"], "sender@example.org")
        self.assertEqual(_delivery_status(content)["Final-Recipient"], "rfc822; a@example.net")
        self.assertIn(b"Subject: mine\r\nTo: x\r\n", content)
        self.assertNotIn(b"body", content)
        self.assertEqual(office.entries(), {})

    def test_C3_nobody_is_told_of_a_letter_from_the_null_sender(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: NEVER
        office.post("a@example.net", sender=None)
        self.assertEqual(office.entries(), {})
        self.assertEqual(office.local.attempts, [])
        self.assertEqual(office.journal.named("bounced"), [])

    def test_a_bounce_that_cannot_be_delivered_ends_there(self) -> None:
        office = self.office()
        office.remote.answer = lambda recipient: NEVER
        office.post("a@example.net", sender=Address("s", "elsewhere.example"))
        self.assertEqual(
            [names for _, _, names in office.remote.attempts], [["a@example.net"], ["s@elsewhere.example"]]
        )
        self.assertEqual(office.entries(), {})


class Waiting(SchedulerCase):
    def test_without_immediate_remote_mail_waits_for_the_run_and_local_mail_does_not(self) -> None:
        office = self.office(immediate=False)
        office.post("a@example.org", "b@example.net")
        self.assertEqual((len(office.local.attempts), len(office.remote.attempts)), (1, 0))
        office.clock.advance(900)
        self.assertEqual(len(office.remote.attempts), 1)

    def test_a_run_makes_everything_due(self) -> None:
        office = self.office(immediate=False)
        office.post("b@example.net")
        count = self.successResultOf(Deferred.fromCoroutine(office.scheduler.run(None)))
        self.assertEqual((count, len(office.remote.attempts)), (1, 1))

    def test_what_does_not_fit_in_hand_is_fetched_when_there_is_room(self) -> None:
        office = self.office()
        office.remote.answer = None
        for number in range(LETTERS_IN_HAND + 5):
            office.post(f"a@d{number % 200}.example")
        self.assertFalse(office.scheduler.has_room())
        while office.remote.open:
            office.remote.finish()
        self.assertEqual(len(office.remote.attempts), LETTERS_IN_HAND + 5)
        self.assertEqual(office.entries(), {})


class Looking(SchedulerCase):
    def test_what_is_stored_while_the_spool_is_asked_is_found(self) -> None:
        office = self.office()
        asked: list[Deferred[float | None]] = []

        def slow() -> Deferred[float | None]:
            asked.append(Deferred())
            return asked[-1]

        with mock.patch.object(office.spool, "next_due", slow):
            office.scheduler.wake(0.0)
            with mock.patch.object(office.scheduler, "has_room", lambda: False):
                office.post("a@example.net")
            self.assertEqual(office.remote.attempts, [])
            asked.pop(0).callback(None)
            self.assertEqual(len(office.remote.attempts), 1)
            for waiting in asked:
                waiting.callback(None)


class Trouble(SchedulerCase):
    def test_an_outcome_that_cannot_be_recorded_is_kept_until_it_can(self) -> None:
        office = self.office()
        settle = office.spool.settle
        with mock.patch.object(office.spool, "settle", lambda *_: fail(SpoolFull("no room"))):
            letter = office.post("a@example.net")
            office.clock.advance(3)
        self.assertIn(letter, office.entries())
        self.assertEqual(len(office.remote.attempts), 1)
        office.spool.settle = settle  # type: ignore[method-assign]
        office.clock.advance(3)
        self.assertEqual(office.entries(), {})

    def test_a_claim_that_was_lost_is_not_recorded(self) -> None:
        office = self.office()
        office.remote.answer = None
        letter = office.post("a@example.net")
        office.spool.delete(letter)
        office.remote.finish()
        self.assertEqual(office.journal.named("delivered"), [])
        self.assertEqual(len(office.journal.named("warning")), 1)

    def test_claims_in_hand_outlive_their_lease(self) -> None:
        office = self.office()
        office.remote.answer = None
        office.post("a@example.net")
        for _ in range(100):
            office.clock.advance(10)
        office.remote.finish()
        self.assertEqual(office.entries(), {})
        self.assertEqual(len(office.remote.attempts), 1)


class Stopping(SchedulerCase):
    def test_what_is_under_way_is_finished(self) -> None:
        office = self.office()
        office.remote.answer = None
        for _ in range(25):
            office.post("a@example.net")
        stopped = Deferred.fromCoroutine(office.scheduler.stop(5.0))
        self.assertNoResult(stopped)
        while office.remote.open:
            office.remote.finish()
        self.successResultOf(stopped)
        self.assertEqual(len(office.remote.attempts), 20)
        self.assertEqual(len(office.entries()), 5)

    def test_what_takes_too_long_is_cut_off_and_tried_at_once_by_the_next_start(self) -> None:
        office = self.office()
        office.remote.answer = None
        letter = office.post("a@example.net")
        stopped = Deferred.fromCoroutine(office.scheduler.stop(5.0))
        office.clock.advance(5.0)
        self.successResultOf(stopped)
        office.begin()
        office.scheduler.start()
        self.addCleanup(self._stopped, office)
        self.assertEqual([entry for entry, _, _ in office.remote.attempts], [letter])
        self.assertEqual(office.entries(), {})


PLACE = Mailbox("mbox", "/x", "x")


class LaneOrder(SynchronousTestCase):
    def job(self, destination: Destination) -> Job:
        return Job(None, None, destination, ())  # type: ignore[arg-type]

    def test_letters_for_one_mailbox_are_under_way_together(self) -> None:
        started: list[Job] = []
        lanes = Lanes(started.append, Clock())
        for _ in range(40):
            lanes.put(self.job(Mailbox("mbox", "/x", "x")))
        self.assertEqual(len(started), 32)
        lanes.ended(started[0], FINE)
        self.assertEqual(len(started), 33)
        lanes.close()
        lanes.ended(started[1], FINE)
        self.assertEqual(len(started), 33)

    def crowded(self) -> tuple[Lanes, list[Job], Clock]:
        """A lane that is full."""
        started: list[Job] = []
        clock = Clock()
        lanes = Lanes(started.append, clock)
        while not lanes.full(PLACE):
            lanes.put(self.job(PLACE))
        return lanes, started, clock

    def test_what_found_no_room_comes_again_at_the_pace_of_the_lane(self) -> None:
        lanes, started, clock = self.crowded()
        for _ in range(100):
            clock.advance(0.01)
            lanes.ended(started.pop(0), FINE)
            lanes.put(self.job(PLACE))
        turns = [lanes.room_at(PLACE) - clock.seconds() for _ in range(1000)]
        # Half of the five hundred have gone in 2.5 seconds, and a hundred go in each second.
        self.assertTrue(2.5 <= turns[0] <= 4.5, turns[0])
        self.assertTrue(12 <= turns[-1] <= 14, turns[-1])
        self.assertTrue(all(turns.count(turn) <= 101 for turn in turns))

    def test_a_lane_that_stands_still_is_asked_again_in_a_minute(self) -> None:
        lanes, _, clock = self.crowded()
        for _ in range(100):
            self.assertEqual(lanes.room_at(PLACE), clock.seconds() + CROWDED)
        clock.advance(30)
        self.assertEqual(lanes.room_at(PLACE), clock.seconds() + CROWDED)

    def test_the_pace_of_long_ago_is_forgotten(self) -> None:
        lanes, started, clock = self.crowded()
        clock.advance(86400.0)
        for _ in range(20 * WAITING):
            clock.advance(0.001)
            lanes.ended(started.pop(0), FINE)
            lanes.put(self.job(PLACE))
        self.assertLess(lanes.room_at(PLACE) - clock.seconds(), CROWDED)

    def test_all_destinations_share_a_bound_in_turn(self) -> None:
        started: list[Job] = []
        lanes = Lanes(started.append, Clock())
        for number in range(REMOTE_AT_ONCE + 10):
            lanes.put(self.job(Remote(f"d{number}.example")))
        lanes.put(self.job(Remote("d0.example")))
        lanes.put(self.job(Remote("d0.example")))
        self.assertEqual(len(started), REMOTE_AT_ONCE)
        for job in started[:12]:
            lanes.ended(job, FINE)
        # The ten that waited from the beginning came before the second letters for the first host.
        self.assertEqual(
            [job.destination for job in started[REMOTE_AT_ONCE:]],
            [Remote(f"d{REMOTE_AT_ONCE + number}.example") for number in range(10)]
            + [Remote("d0.example")] * 2,
        )

    def test_mailboxes_here_do_not_wait_for_hosts_elsewhere(self) -> None:
        started: list[Job] = []
        lanes = Lanes(started.append, Clock())
        for number in range(REMOTE_AT_ONCE + 10):
            lanes.put(self.job(Remote(f"d{number}.example")))
        lanes.put(self.job(Mailbox("maildir", "/x", "x")))
        self.assertEqual(started[-1].destination, Mailbox("maildir", "/x", "x"))

    def test_attempts_that_end_at_once_do_not_nest(self) -> None:
        depth = deepest = 0

        def start(job: Job) -> None:
            nonlocal depth, deepest
            depth += 1
            deepest = max(deepest, depth)
            lanes.ended(job, FINE)
            depth -= 1

        lanes = Lanes(start, Clock())
        place = Mailbox("mbox", "/x", "x")
        for _ in range(3):
            lanes.put(self.job(place))
        self.assertEqual(deepest, 1)


def _delivery_status(content: bytes) -> Message:
    """The block of the first recipient in a bounce."""
    message = email.message_from_bytes(content)
    report = message.get_payload(1)
    assert isinstance(report, Message)
    block = report.get_payload(1)
    assert isinstance(block, Message)
    return block
