"""Letters and questions of local commands, against the office in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.values import Disposition
from postoffice.filters.chain import Chain
from postoffice.filters.terms import ChainSettings, Terms
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from postoffice.milter.edits import AddHeader, Hold
from postoffice.milter.verdicts import Refuse
from postoffice.policy.greylist import Greylist, GreylistSettings
from postoffice.server.letters import Letters
from postoffice.server.office import IOffice, ISubmission, Pattern
from postoffice.server.submission import LocalOffice
from tests.doubles import MemoryGreylist, MemoryVirtualFiles, ScriptedPolicy
from tests.filters.scripted import ScriptedFilter
from tests.queue.support import LATER, Directory
from tests.server.support import Door

T = TypeVar("T")
CALLER = Client("", user="joe", protocol="LOCAL", may_relay=True)
HERE, AWAY = Address("a", "example.org"), Address("b", "example.net")
NOBODY = Address("nobody", "example.org")


class LocalCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()
        office = self.door.office
        seconds = office.clock.seconds
        greylist = Greylist(MemoryGreylist(seconds), GreylistSettings(0), office.journal, seconds)
        self.policy = ScriptedPolicy()
        self.local = LocalOffice(
            self.door.intake,
            Letters(office.spool, office.scheduler.run),
            Directory(),
            self.policy,
            greylist,
            MemoryVirtualFiles(),
            lambda user: f"{user.title()} \u00d6. (Box)",
        )

    def done(self, work: Coroutine[Any, Any, T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(work))
        return result

    def begin(
        self, *recipients: Address, warning: str | None = None
    ) -> tuple[ISubmission, list[tuple[Address, object]]]:
        return self.done(self.local.begin(CALLER, Address("joe", ""), recipients, warning))  # type: ignore[return-value]


class Filtered(LocalCase):
    """Letters of local commands go through the same filters."""

    def setUp(self) -> None:
        super().setUp()
        self.script = ScriptedFilter()
        office = self.door.office
        chain = Chain(
            [(self.script, Terms(when="submit"))],
            ChainSettings("mx.example.org", Disposition("bounce")),
            Directory(),
            self.policy,
            office.journal,
            office.spool.new_id,
            office.clock,
        )
        self.local._filters = chain

    def letter(self, *recipients: Address) -> str:
        submission, self.refused = self.begin(*recipients)
        submission.write(b"Subject: x\r\n\r\nhello\r\n")
        return self.done(submission.finish())  # type: ignore[arg-type]

    def refusal(self, *recipients: Address) -> Reply:
        """What a letter is refused with."""

        async def hand_in() -> None:
            submission, _ = await self.local.begin(CALLER, Address("joe", ""), recipients, None)
            try:
                submission.write(b"Subject: x\r\n\r\nhello\r\n")
                await submission.finish()
            finally:
                submission.abort()

        error = self.failureResultOf(Deferred.fromCoroutine(hand_in()), Refusal).value
        assert isinstance(error, Refusal)
        return error.reply

    def test_what_they_are_told(self) -> None:
        self.script.changes = [AddHeader(b"X-Seen", b"yes")]
        letter_id = self.letter(HERE, AWAY)
        self.assertEqual(
            self.script.told,
            ["open", "client", "helo mx.example.org", "sender <joe>", "recipient <a@example.org>",
             "recipient <b@example.net>", "data 2", "content letter", "close"],
        )  # fmt: skip
        self.assertEqual(self.script.open, 0)
        for content in self.door.contents():
            self.assertIn(b"X-Seen: yes\r\n", content)
            self.assertIn(letter_id.encode(), content)
        self.assertIn(b"From", [field.name for field in self.script.letters[0].fields])

    def test_refusals(self) -> None:
        for stage in ("client", "sender", "data", "content"):
            self.script.says = {stage: Refuse(Reply(550, (7, 1), "no"))}
            self.assertEqual(self.refusal(HERE).text, "no")
            self.assertEqual((self.door.contents(), self.script.open), ([], 0), stage)

    def test_a_refused_recipient(self) -> None:
        self.script.says = {"recipient": Refuse(Reply(550, (7, 1), "no"))}
        self.assertEqual(self.refusal(HERE).text, "no")
        self.assertEqual(self.script.open, 0)

    def test_what_we_refuse_ourselves_is_for_those_who_want_it(self) -> None:
        for wanted in (False, True):
            self.script.hears_refused = wanted
            self.script.told.clear()
            submission, refused = self.begin(NOBODY, HERE)
            submission.abort()
            self.assertEqual([address for address, _ in refused], [NOBODY])
            told = [one for one in self.script.told if "refused" in one]
            self.assertEqual(told, ["recipient <nobody@example.org> refused 550"] if wanted else [])

    def test_one_that_is_broken_off(self) -> None:
        submission, _ = self.begin(HERE)
        submission.write(b"Subject")
        submission.abort()
        self.assertEqual(self.script.open, 0)

    def test_a_letter_on_hold_goes_on_when_it_is_released(self) -> None:
        self.script.changes = [Hold(b"odd")]
        letter_id = self.letter(HERE)
        self.assertEqual(self.door.contents(), [])
        self.assertTrue(self.done(self.local.letters.set_held(letter_id, False)))
        self.door.office.clock.advance(0)
        self.assertEqual(len(self.door.contents()), 1)
        self.assertFalse(self.done(self.local.letters.set_held(letter_id, True)))

    def test_a_letter_on_hold_can_be_read_and_deleted(self) -> None:
        self.script.changes = [Hold(b"odd")]
        letter_id = self.letter(HERE)
        content = self.done(self.local.letters.content(letter_id))
        self.assertTrue(content.held.startswith(b"Received: "))
        self.assertTrue(self.done(self.local.letters.delete(letter_id)))
        self.assertFalse(self.done(self.local.letters.delete(letter_id)))
        self.assertIsNone(self.done(self.local.letters.content(letter_id)))


class Handing(LocalCase):
    def test_a_letter_is_completed_and_goes_its_way(self) -> None:
        submission, refused = self.begin(HERE, AWAY)
        self.assertEqual(refused, [])
        submission.write(b"Subject: x\r\n\r\nhello\r\n")
        letter = self.done(submission.finish())  # type: ignore[arg-type]
        here, away = self.door.contents()
        self.assertEqual(here, away)
        self.assertTrue(here.startswith(b"Received: (from joe on this machine)\r\n\tby mx.example.org"))
        self.assertIn(letter.encode(), here)
        self.assertIn(b"\r\nFrom: =?utf-8?b?Sm9lIMOWLiAoQm94KQ==?= <joe@mx.example.org>\r\n", here)
        self.assertNotIn(b"Warning", here)
        # Policy learns whom our users write to.
        self.assertEqual(self.policy.told, ["accepted a@example.org b@example.net"])

    def test_a_forged_sender_is_marked(self) -> None:
        submission, _ = self.begin(HERE, warning="joe set sender to ann\r\nX-Evil: 1")
        submission.write(b"Subject: x\r\n\r\n")
        self.done(submission.finish())  # type: ignore[arg-type]
        head = self.door.contents()[0]
        self.assertIn(b"X-Authentication-Warning: mx.example.org: joe set sender to ann?X-Evil: 1\r\n", head)

    def test_bad_recipients_are_named_and_the_others_get_it(self) -> None:
        submission, refused = self.begin(NOBODY, HERE, Address("A".lower(), "EXAMPLE.org"))
        self.assertEqual([(address, str(reply)[:3]) for address, reply in refused], [(NOBODY, "550")])
        submission.write(b"x\r\n")
        self.done(submission.finish())  # type: ignore[arg-type]
        self.assertEqual(len(self.door.contents()), 1)

    def test_no_good_recipient_is_a_refusal(self) -> None:
        work = Deferred.fromCoroutine(self.local.begin(CALLER, None, [NOBODY], None))
        self.assertEqual(self.failureResultOf(work, Refusal).value.reply.code, 550)

    def test_nothing_is_kept_of_what_is_given_up(self) -> None:
        submission, _ = self.begin(HERE)
        submission.write(b"Subject: x\r\n\r\nhalf")
        submission.abort()
        self.assertEqual((self.door.office.entries(), self.door.contents()), ({}, []))

    def test_a_full_disk(self) -> None:
        self.door.office.shelf.capacity = 1
        submission, _ = self.begin(HERE)
        waiting = submission.write(b"Subject: x\r\n\r\n")
        self.done(waiting)  # type: ignore[arg-type]
        failed = self.failureResultOf(Deferred.fromCoroutine(submission.finish()), Refusal)  # type: ignore[arg-type]
        self.assertEqual(failed.value.reply.code, 452)


class Asking(LocalCase):
    def test_the_queue_is_listed_and_run(self) -> None:
        remote = self.door.office.remote
        remote.answer = lambda recipient: LATER
        for recipient in (AWAY, Address("c", "other.example")):
            submission, _ = self.begin(recipient)
            submission.write(b"x\r\n")
            self.done(submission.finish())  # type: ignore[arg-type]
        self.assertEqual(len(self.done(self.local.letters.entries())), 2)
        self.assertEqual(self.done(self.local.letters.run(Pattern("recipient", "other"))), 1)
        self.assertEqual([names for _, _, names in remote.attempts][2:], [["c@other.example"]])
        self.assertEqual(self.done(self.local.letters.run(None)), 2)
        self.assertEqual(len(remote.attempts), 5)

    def test_it_is_what_the_door_asks_for(self) -> None:
        self.assertTrue(IOffice.providedBy(self.local))
        self.assertTrue(ISubmission.providedBy(self.begin(HERE)[0]))
