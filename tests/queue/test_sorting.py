"""Recipients that stand for others: replaced in the spool, delivered, put off and failed each for itself."""

from __future__ import annotations

from postoffice.mail.destination import Mailbox, Remote
from postoffice.mail.envelope import Recipient
from postoffice.mail.outcome import Outcome
from tests.queue.support import FINE, LATER, NEVER, Office
from tests.queue.test_scheduler import SchedulerCase

LIST = "list@example.org"


class SortingTests(SchedulerCase):
    def lists(self, **lists: str) -> Office:
        """An office in which names stand for others."""
        office = self.office()
        office.directory.lists = {name: tuple(text.split()) for name, text in lists.items()}
        return office

    def reached(self, office: Office) -> list[str]:
        """Whom deliveries were tried for, in order."""
        attempts = office.local.attempts + office.remote.attempts
        return [address for _, _, addresses in attempts for address in addresses]

    def test_a_list_reaches_all_at_once(self) -> None:
        office = self.lists(list="a@example.org b@example.org c@example.net d@example.net")
        letter = office.post(LIST)
        self.assertEqual(
            office.local.attempts,
            [
                (letter, Mailbox("maildir", "/mail/a", "a"), ["a@example.org"]),
                (letter, Mailbox("maildir", "/mail/b", "b"), ["b@example.org"]),
            ],
        )
        self.assertEqual(
            office.remote.attempts, [(letter, Remote("example.net"), ["c@example.net", "d@example.net"])]
        )
        self.assertEqual(office.local.contents, [b"Subject: s\r\n\r\nx\r\n"] * 2)
        self.assertEqual(office.entries(), {})
        told = "list@example.org: a@example.org, b@example.org, c@example.net, d@example.net"
        self.assertEqual(office.journal.named("expanded"), [told])

    def test_whoever_fails_or_waits_does_so_alone(self) -> None:
        office = self.lists(list="a@example.org b@example.net c@example.net nobody@example.org")

        def answer(recipient: Recipient) -> Outcome:
            return {"b": LATER, "c": NEVER}.get(recipient.address.local, FINE)

        office.remote.answer = answer
        letter = office.post(LIST)
        self.assertEqual(office.entries()[letter], ["b@example.net"])
        self.assertEqual(office.journal.named("failed"), ["c@example.net", "nobody@example.org"])
        office.remote.answer = None
        office.clock.advance(400)
        self.assertEqual([str(one.address) for one in office.remote.open[0][0]], ["b@example.net"])
        office.remote.finish()
        self.assertEqual(office.entries(), {})
        self.assertEqual(self.reached(office).count("a@example.org"), 1)

    def test_nobody_gets_two_copies_of_one_letter(self) -> None:
        office = self.lists(
            one="a@example.org b@example.net", two="b@example.net a@example.org c@example.net"
        )
        office.post("a@example.org", "one@example.org", "b@example.net", "two@example.org")
        self.assertEqual(sorted(self.reached(office)), ["a@example.org", "b@example.net", "c@example.net"])
        self.assertEqual(office.entries(), {})

    def test_nobody_gets_a_second_copy_later(self) -> None:
        """One list could not be looked up while its members were served by name and by another."""
        office = self.lists(one="b@example.org")
        letter = office.post("a@example.org", "one@example.org", "unknown@example.org")
        self.assertEqual(office.entries()[letter], ["unknown@example.org"])
        office.directory.lists["unknown"] = ("a@example.org", "b@example.org", "c@example.org")
        office.directory.known = True
        office.clock.advance(400)
        self.assertEqual(self.reached(office), ["a@example.org", "b@example.org", "c@example.org"])
        self.assertEqual(office.entries(), {})

    def test_lists_within_lists(self) -> None:
        office = self.lists(one="two@example.org a@example.org")
        office.directory.lists["two"] = ("b@example.org",)
        # What the directory did not follow itself is looked up when its turn comes.
        office.directory.onward.add("two")
        office.post("one@example.org")
        self.assertEqual(sorted(self.reached(office)), ["a@example.org", "b@example.org"])
        self.assertEqual(len(office.journal.named("expanded")), 2)

    def test_a_list_of_people_who_have_it_already(self) -> None:
        office = self.lists(one="a@example.org")
        office.post("a@example.org", "one@example.org")
        self.assertEqual(self.reached(office), ["a@example.org"])
        self.assertEqual(office.entries(), {})

    def test_copies_for_other_hosts_wait_for_the_queue_run(self) -> None:
        office = self.office(immediate=False)
        office.directory.lists["list"] = ("a@example.org", "b@example.net")
        letter = office.post(LIST)
        self.assertEqual(self.reached(office), ["a@example.org"])
        self.assertEqual(office.entries()[letter], ["b@example.net"])
        office.clock.advance(900)
        self.assertEqual(self.reached(office), ["a@example.org", "b@example.net"])
        self.assertEqual(office.entries(), {})

    def test_a_long_list(self) -> None:
        office = self.lists(list=" ".join(f"u{n}@example.net" for n in range(1000)))
        office.post(LIST)
        office.clock.pump([0] * 20)
        self.assertEqual(len(self.reached(office)), 1000)
        self.assertEqual(office.entries(), {})

    def test_a_copy_that_was_cut_off_by_the_end_is_delivered_after_the_next_start(self) -> None:
        office = self.lists(list="a@example.org b@example.org")
        office.local.answer = None
        office.post(LIST)
        self.stop(office)
        office.begin()
        office.scheduler.start()
        self.assertEqual(self.reached(office), ["a@example.org", "b@example.org"])
        self.assertEqual(office.entries(), {})

    def test_a_letter_that_was_deleted_meanwhile(self) -> None:
        office = self.lists(list="a@example.org")
        office.scheduler.has_room = lambda: False  # type: ignore[method-assign]
        letter = office.post(LIST)
        claims: list[object] = []
        office.spool.claim(1).addCallback(claims.extend)
        office.spool.delete(letter)
        office.scheduler.take(*claims[0])  # type: ignore[misc]
        self.assertEqual(self.reached(office), [])
        self.assertIn("was not recorded", office.journal.named("warning")[0])
        self.assertEqual(office.scheduler._hands, {})

    def test_the_bounce_names_who_was_written_to(self) -> None:
        office = self.lists(list="nobody@example.org a@example.org")
        office.post(LIST)
        bounce = next(
            content for content in office.local.contents if content and b"multipart/report" in content
        )
        self.assertIn(b"<nobody@example.org> (for list@example.org):", bounce)
        self.assertIn(b"\r\nOriginal-Recipient: rfc822; list@example.org\r\n", bounce)
        self.assertIn(b"\r\nFinal-Recipient: rfc822; nobody@example.org\r\n", bounce)

    def test_C3_no_bounce_to_the_null_sender(self) -> None:
        office = self.lists(list="nobody@example.org")
        office.post(LIST, sender=None)
        self.assertEqual(self.reached(office), [])
        self.assertEqual(office.entries(), {})
