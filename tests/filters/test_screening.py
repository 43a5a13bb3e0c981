"""What filters say, and what comes of it for the client and the letter: whole sessions in memory."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import product
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.values import Disposition
from postoffice.filters.chain import Chain
from postoffice.filters.screening import HOLD_LIMIT
from postoffice.filters.terms import ChainSettings, Terms
from postoffice.mail.reply import Refusal, Reply
from postoffice.milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Edit,
    Hold,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from postoffice.milter.verdicts import (
    CLOSED,
    PUT_OFF,
    REJECTED,
    Accept,
    Continue,
    Discard,
    Failed,
    Refuse,
)
from tests.doubles import ScriptedPolicy
from tests.filters.scripted import ScriptedFilter
from tests.queue.support import Directory
from tests.server.support import OUTSIDE, Door, Visit

NO = Refuse(Reply(550, (7, 1), "we saw spam"))
LATER = Refuse(Reply(451, (7, 1), "come back"))
DOWN = Failed("it is down")
HELO, MAIL, RCPT = "HELO client.example", "MAIL FROM:<a@example.net> SIZE=9", "RCPT TO:<bob@example.org>"
LETTER = "Subject: s\r\n\r\ntext\r\n."


class FiltersCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()
        self.policy = ScriptedPolicy()
        self.door.factory.policy = self.policy
        self.first, self.second = ScriptedFilter("first"), ScriptedFilter("second")
        self.chain()

    def chain(self, spam: str = "bounce", *, safe: bool = False, size: int = 0, **terms: Any) -> None:
        """The two filters, the first on these terms, for the sessions to come."""
        mode, _, text = spam.partition(":")
        disposition = Disposition(mode, text)  # type: ignore[arg-type]
        office = self.door.office
        self.door.factory.filters = Chain(
            [(self.first, Terms(**terms)), (self.second, Terms())],
            ChainSettings("mx.example.org", disposition, safe, size),
            Directory(),
            self.policy,
            office.journal,
            office.spool.new_id,
            office.clock,
        )

    def say(self, visit: Visit, *lines: str) -> list[str]:
        """The answers, in short: code and text of the last line of each."""
        answers = []
        for line in lines:
            heard = visit.send(line.encode("latin-1") + b"\r\n").decode().split("\r\n")
            answers.append(heard[-2] if len(heard) > 1 else "")
        return answers

    def visit(self) -> Visit:
        visit = self.door.visit(OUTSIDE)
        self.banner = visit.heard().decode()
        return visit

    def letter(self, visit: Visit | None = None, content: str = LETTER, *more: str) -> list[str]:
        """One whole letter: the answers from MAIL on."""
        visit = visit or self.greeted()
        return self.say(visit, MAIL, RCPT, *more, "DATA", content)

    def greeted(self) -> Visit:
        visit = self.visit()
        self.say(visit, HELO)
        return visit

    def codes(self, answers: list[str]) -> list[str]:
        return [answer[:3] for answer in answers]

    def held(self) -> list[str]:
        """Of each letter in the spool, why it is on hold; empty where it is not."""
        found: list[Any] = []
        self.door.office.spool.entries().addCallback(found.extend)
        return [entry.held_for if entry.held else "" for entry in found]


class Events(FiltersCase):
    def test_order(self) -> None:
        visit = self.visit()
        self.say(visit, HELO, "NOOP", MAIL, RCPT, "RCPT TO:<nobody@example.org>", "RSET", "DATA")
        self.assertEqual(
            self.first.told,
            ["open", f"client {OUTSIDE}", "helo client.example", "sender <a@example.net> SIZE=9",
             "recipient <bob@example.org>", "abort"],
        )  # fmt: skip
        self.first.told.clear()
        self.letter(visit)
        self.say(visit, "EHLO other.example")
        visit.leave()
        self.assertEqual(
            self.first.told,
            ["sender <a@example.net> SIZE=9", "recipient <bob@example.org>", "data 1", "content letter",
             "helo other.example", "close"],
        )  # fmt: skip
        self.assertEqual(self.first.told, self.second.told[-6:])
        self.assertEqual((self.first.open, self.second.open), (0, 0))

    def test_a_letter_that_is_broken_off_is_aborted(self) -> None:
        for last in ("RSET", HELO, MAIL, None, "DATA"):
            visit = self.greeted()
            self.say(visit, MAIL, RCPT)
            self.first.told.clear()
            if last is None:
                visit.leave()
            else:
                self.say(visit, last)
                if last == "DATA":
                    visit.send(b"half a letter")
                    visit.leave()
            self.assertIn("abort", self.first.told, last)
            self.assertIn("abort", self.second.told, last)
            visit.leave()

    def test_no_content_without_a_recipient_and_no_recipient_without_a_sender(self) -> None:
        self.first.says["sender"] = NO
        visit = self.greeted()
        self.assertEqual(self.codes(self.say(visit, MAIL, RCPT, "DATA")), ["550", "503", "503"])
        self.assertFalse(any(told.startswith(("recipient", "data")) for told in self.first.told))

    def test_refused_recipients_are_for_those_who_want_them(self) -> None:
        self.second.hears_refused = True
        self.second.says["recipient"] = Continue()
        visit = self.greeted()
        self.say(visit, MAIL, RCPT, "RCPT TO:<nobody@example.org>", "RCPT TO:<x@elsewhere.example>")
        self.assertEqual(
            [told for told in self.second.told if "refused" in told],
            ["recipient <nobody@example.org> refused 550", "recipient <x@elsewhere.example> refused 550"],
        )
        self.assertFalse([told for told in self.first.told if "refused" in told])
        self.second.says["recipient"] = Accept()
        self.assertEqual(self.codes(self.say(visit, "RCPT TO:<nobody@example.org>")), ["550"])

    def test_the_queue_id_is_the_same_everywhere(self) -> None:
        answers = self.letter()
        letter_id = answers[-1].split()[-1]
        self.assertIn(f"id {letter_id}", bytes(self.first.letters[0].fields[0]).decode())
        self.assertIn(letter_id.encode(), self.door.contents()[0])

    def test_unknown_commands(self) -> None:
        visit = self.greeted()
        self.assertEqual(self.say(visit, "NONSENSE x")[0][:3], "500")
        self.assertIn("unknown NONSENSE x", self.first.told)
        self.first.says["unknown"] = NO
        self.assertEqual(self.say(visit, "NONSENSE y"), ["550 5.7.1 we saw spam"])
        self.assertNotIn("unknown NONSENSE y", self.second.told)

    def test_what_is_not_offered_is_unknown(self) -> None:
        visit = self.greeted()
        for line in ("EXPN list", "DEBUG", "STARTTLS"):
            self.assertEqual(self.say(visit, line)[0][:3], "502")
            self.assertEqual(self.first.told[-1], f"unknown {line}")
        self.first.says["unknown"] = NO
        visit = self.greeted()
        self.assertEqual(self.say(visit, "EXPN list", "DEBUG"), ["550 5.7.1 we saw spam"] * 2)
        self.first.told.clear()
        self.assertEqual(self.codes(self.say(visit, "NOOP", "HELP", "VRFY bob")), ["250", "214", "252"])
        self.assertEqual(self.first.told, [])

    def test_passwords_are_not_for_filters(self) -> None:
        visit = self.greeted()
        self.assertEqual(self.codes(self.say(visit, "AUTH PLAIN AGFsaWNlAHNlY3JldA==")), ["502"])
        self.assertFalse(any(told.startswith("unknown") for told in self.first.told))

    def test_lazy_filters_hear_of_the_session_at_its_first_letter(self) -> None:
        self.chain(lazy=True)
        visit = self.greeted()
        self.assertEqual(self.first.told, [])
        self.letter(visit)
        self.assertEqual(self.first.told[:4], ["open", f"client {OUTSIDE}", "helo client.example",
                                               "sender <a@example.net> SIZE=9"])  # fmt: skip
        self.first.says["client"] = NO
        self.first.told.clear()
        visit = self.greeted()
        self.assertEqual(self.say(visit, MAIL), ["550 5.7.1 we saw spam"])

    def test_a_lazy_filter_that_refuses_the_client_does_so_at_each_letter(self) -> None:
        self.chain(lazy=True)
        self.first.says["helo"] = NO
        visit = self.greeted()
        self.assertEqual(self.say(visit, MAIL, MAIL), ["550 5.7.1 we saw spam"] * 2)
        self.assertEqual(self.first.open, 0)

    def test_another_client_is_another_session(self) -> None:
        self.door.change(xclient=(ip_network("192.0.2.0/24"),))
        visit = self.greeted()
        self.assertEqual(self.codes(self.say(visit, "XCLIENT ADDR=198.51.100.7 NAME=far.example"))[0], "220")
        self.assertEqual(self.first.told[-3:], ["close", "open", "client 198.51.100.7"])
        self.assertEqual(self.codes(self.say(visit, HELO, MAIL)), ["250", "250"])
        self.assertEqual(self.first.open, 1)

    def test_filters_are_told_how_many_connections_an_address_has(self) -> None:
        self.door.change(xclient=(ip_network("192.0.2.0/24"),))
        first, second = self.greeted(), self.greeted()
        self.assertEqual(self.first.connections, [(1, 1), (2, 2)])
        first.leave()
        self.say(second, "XCLIENT ADDR=198.51.100.7 NAME=far.example")
        self.door.office.clock.advance(60)
        self.say(self.greeted(), "XCLIENT ADDR=198.51.100.7 NAME=far.example")
        self.assertEqual(self.first.connections[2:], [(1, 1), (1, 1), (2, 1)])

    def test_chunks(self) -> None:
        visit = self.greeted()
        self.say(visit, MAIL, RCPT)
        heard = visit.send(b"BDAT 14\r\nSubject: s\r\n\r\nBDAT 6 LAST\r\ntext\r\n")
        self.assertEqual([line[:3] for line in heard.split(b"\r\n")], [b"250", b"250", b""])
        self.assertEqual(self.first.told[-2:], ["data 1", "content letter"])
        self.first.says["data"] = NO
        visit = self.greeted()
        self.say(visit, MAIL, RCPT)
        self.assertEqual(visit.send(b"BDAT 2 LAST\r\nx\n"), b"550 5.7.1 we saw spam\r\n")
        self.assertIn("abort", self.second.told)

    def test_nothing_is_told_between_chunks(self) -> None:
        visit = self.greeted()
        self.say(visit, MAIL, RCPT)
        visit.send(b"BDAT 2\r\nx\n")
        self.assertEqual(self.codes(self.say(visit, "NONSENSE")), ["500"])
        self.assertEqual(visit.send(b"BDAT 0 LAST\r\n")[:3], b"250")
        self.assertFalse(any(told.startswith("unknown") for told in self.first.told))
        self.assertEqual(self.codes(self.say(visit, "NONSENSE")), ["500"])
        self.assertEqual(self.first.told[-1], "unknown NONSENSE")

    def test_filters_that_do_not_apply_are_not_asked(self) -> None:
        self.chain(when="submit")
        self.letter()
        self.assertEqual((self.first.told, self.second.open), ([], 1))
        self.door.change(door="msp")
        self.letter()
        self.assertIn("content letter", self.first.told)

    def test_safe(self) -> None:
        self.chain(safe=True)
        self.door.accounts.passwords[b"alice"] = b"secret"
        self.door.change(auth_plaintext=True, auth_any_sender=True)
        visit = self.greeted()
        self.say(visit, "EHLO client.example")
        self.assertEqual(self.say(visit, "AUTH PLAIN AGFsaWNlAHNlY3JldA==")[0][:3], "235")
        self.assertEqual(self.codes(self.letter(visit))[-1], "250")
        self.assertFalse(any(told.startswith("sender") for told in self.first.told))

    def test_networks_that_a_filter_has_no_part_in(self) -> None:
        self.chain(skip=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
        self.door.change(xclient=(ip_network("192.0.2.0/24"),))
        visit = self.greeted()
        self.assertEqual(self.codes(self.letter(visit)), ["250", "250", "354", "250"])
        self.assertEqual((self.first.told, self.first.open, self.second.open), ([], 0, 1))
        self.say(visit, "XCLIENT ADDR=198.51.100.7 NAME=far.example", HELO)
        self.assertEqual(self.codes(self.letter(visit))[-1], "250")
        self.assertEqual(self.first.told[:2], ["open", "client 198.51.100.7"])
        self.assertIn("content letter", self.first.told)

    def test_log_ins_that_a_filter_has_no_part_in(self) -> None:
        self.chain("accept", skip=("login",))
        self.door.accounts.passwords[b"alice"] = b"secret"
        self.door.change(auth_plaintext=True, auth_any_sender=True)
        self.first.says["client"] = NO
        self.first.changes = [AddHeader(b"X-Seen", b"yes")]
        visit = self.greeted()
        self.letter(visit)
        self.assertIn(b"X-Spam: we saw spam", self.door.contents()[0])
        self.say(visit, "EHLO client.example", "AUTH PLAIN AGFsaWNlAHNlY3JldA==")
        self.first.told.clear()
        self.assertEqual(self.codes(self.letter(visit))[-1], "250")
        self.assertEqual(self.first.told, [])
        self.assertIn("content letter", self.second.told)
        self.assertNotIn(b"X-Spam", self.door.contents()[1])
        self.assertNotIn(b"X-Seen", self.door.contents()[1])

    def test_log_ins_are_not_asked_about_between_letters_either(self) -> None:
        self.door.accounts.passwords[b"alice"] = b"secret"
        self.door.change(auth_plaintext=True, auth_any_sender=True)
        terms: tuple[dict[str, Any], ...] = ({"skip": ("login",)}, {"safe": True})
        for one in terms:
            self.chain(**one)
            visit = self.greeted()
            self.say(visit, "EHLO client.example", "AUTH PLAIN AGFsaWNlAHNlY3JldA==")
            self.first.told.clear()
            self.first.says = {"helo": NO, "unknown": NO}
            self.assertEqual(self.codes(self.say(visit, "EHLO client.example", "NONSENSE")), ["250", "500"])
            self.assertEqual(self.codes(self.letter(visit))[-1], "250")
            self.assertEqual(self.first.told, [], one)
            self.first.says = {}


class Verdicts(FiltersCase):
    def test_refusals_of_the_client(self) -> None:
        for verdict, begin in (
            (NO, "554 5.7.1 we saw spam"),
            (LATER, "421 4.7.1 come back"),
            (Refuse(CLOSED), "421"),
        ):
            self.first.says["client"] = verdict
            visit = self.visit()
            self.assertTrue(self.banner.startswith(begin), self.banner)
            self.assertEqual(visit.closed, verdict is not NO)
            self.assertNotIn(f"client {OUTSIDE}", self.second.told)
            self.assertEqual((self.first.open, self.second.open), (0, 0))
            visit.leave()

    def test_a_client_that_is_refused_for_good_is_waited_for_to_quit(self) -> None:
        self.first.says["client"] = NO
        visit = self.visit()
        answers = self.say(visit, HELO, MAIL, "NONSENSE", "QUIT")
        self.assertEqual((self.codes(answers), visit.closed), (["503", "503", "503", "221"], True))
        self.assertEqual(self.first.told[-1], "close")

    def test_its_commands_and_its_time_are_bounded(self) -> None:
        self.first.says["client"] = NO
        visit = self.visit()
        self.assertEqual(self.codes(self.say(visit, *["RSET"] * 4)), ["503", "503", "503", "421"])
        self.assertTrue(visit.closed)
        self.door.change(errors=0)
        visit = self.visit()
        self.assertEqual(set(self.codes(self.say(visit, *["RSET"] * 40))), {"503"})
        self.door.office.clock.advance(31)
        self.assertEqual(self.codes(self.say(visit, MAIL)), ["503"])
        # From then on it has a tenth of the time, as others have.
        self.door.office.clock.advance(31)
        self.assertTrue(visit.heard().startswith(b"421 4.4.2"))
        self.assertTrue(visit.closed)

    def test_A9_it_does_not_stay_for_ever(self) -> None:
        self.first.says["client"] = NO
        self.door.change(errors=0)
        visit = self.visit()
        said = []
        while not visit.closed and len(said) < 100:
            self.door.office.clock.advance(60)
            said += self.codes(self.say(visit, "NOOP"))
        self.assertEqual(said, ["503"] * 61 + ["421"])

    def test_refusals_of_the_greeting(self) -> None:
        self.first.says["helo"] = NO
        visit = self.visit()
        self.assertEqual(self.say(visit, HELO, MAIL), ["550 5.7.1 we saw spam"] * 2)
        # Nothing else is done for this client until it greets in another way.
        self.assertEqual(self.say(visit, "NOOP", "RSET")[0], "550 5.7.1 we saw spam")
        del self.first.says["helo"]
        visit = self.visit()
        self.first.says["helo"] = LATER
        answers = self.say(visit, HELO, "VRFY bob", "NONSENSE", RCPT, "DATA", MAIL)
        self.assertEqual(answers, ["451 4.7.1 come back"] * 6)
        self.assertFalse(any(told.startswith(("sender", "unknown")) for told in self.first.told))
        del self.first.says["helo"]
        self.assertEqual(self.codes(self.say(visit, HELO, MAIL, RCPT)), ["250"] * 3)
        self.first.says["helo"] = NO
        self.assertEqual(self.codes(self.say(visit, HELO, "QUIT")), ["550", "221"])

    def test_every_refusal_at_every_stage_of_a_letter(self) -> None:
        stages = ["sender", "recipient", "data", "content"]
        for stage, verdict in product(stages, (NO, LATER)):
            self.setUp()
            self.first.says[stage] = verdict
            visit = self.greeted()
            answers = []
            for line in (MAIL, RCPT, "DATA", LETTER)[: stages.index(stage) + 1]:
                answers += self.say(visit, line)
            self.assertEqual(answers[-1], str(verdict.reply))
            self.assertFalse(any(told.startswith(stage) for told in self.second.told), stage)
            if stage == "recipient":
                self.assertEqual(self.codes(self.say(visit, RCPT)), [answers[-1][:3]])
                del self.first.says[stage]
                self.assertEqual(self.codes(self.say(visit, RCPT, "DATA", LETTER)), ["250", "354", "250"])
            else:
                self.assertEqual("abort" in self.second.told, stage != "sender", stage)
                del self.first.says[stage]
                self.assertEqual(self.codes(self.letter(visit))[-1], "250")
            self.assertEqual(len(self.door.contents()), 1)
            visit.leave()

    def test_a_letter_that_we_put_off_is_over_at_once(self) -> None:
        self.policy.refusals["content"] = Refusal(LATER.reply)
        visit = self.greeted()
        self.assertEqual(self.codes(self.say(visit, MAIL, RCPT, "DATA")), ["250", "250", "451"])
        self.assertEqual((self.first.told[-1], self.second.told[-1]), ("abort", "abort"))

    def test_a_greeting_that_is_refused_inside_of_a_letter(self) -> None:
        for chunk in (b"BDAT 2 LAST\r\nx\n", b"BDAT 2\r\nx\n"):
            self.setUp()
            visit = self.greeted()
            self.say(visit, MAIL, RCPT)
            self.first.says["helo"] = NO
            self.assertEqual(self.codes(self.say(visit, HELO)), ["550"])
            self.assertEqual(visit.send(chunk), b"550 5.7.1 we saw spam\r\n")
            self.assertEqual(self.door.office.journal.named("error"), [])

    def test_the_second_filter_refuses(self) -> None:
        for stage in ("sender", "data", "content"):
            self.setUp()
            self.second.says[stage] = NO
            self.assertIn("550 5.7.1 we saw spam", self.letter())
            if stage != "content":
                self.assertIn("abort", self.first.told, stage)

    def test_discard(self) -> None:
        for stage in ("sender", "recipient", "data", "content"):
            self.setUp()
            self.first.says[stage] = Discard()
            self.assertEqual(self.codes(self.letter()), ["250", "250", "354", "250"], stage)
            self.assertEqual(self.door.contents(), [])
            self.assertFalse(any(told.startswith("content") for told in self.second.told))
            self.assertEqual(self.held(), [])

    def test_a_client_cannot_be_discarded(self) -> None:
        for stage, what in (("client", "connection"), ("helo", "HELO")):
            self.setUp()
            self.first.says[stage] = Discard()
            self.assertEqual(self.codes(self.letter())[-1], "250")
            self.assertEqual(len(self.door.contents()), 1)
            self.assertIn(f"first {what}: discard", self.door.office.journal.named("filtered"))

    def test_accept_takes_only_that_filter_out(self) -> None:
        for stage in ("client", "helo", "sender", "recipient", "data"):
            self.setUp()
            self.first.says[stage] = Accept()
            self.assertEqual(self.codes(self.letter())[-1], "250")
            self.assertNotIn("content letter", self.first.told)
            self.assertIn("content letter", self.second.told)

    def test_1_4_5_spam_bounce_bounces(self) -> None:
        self.chain("bounce:We take no spam")
        for verdict, text in ((Refuse(REJECTED), "We take no spam"), (NO, "we saw spam")):
            self.first.says["content"] = verdict
            self.assertEqual(self.letter()[-1], f"550 5.7.1 {text}")
        self.assertEqual(self.door.contents(), [])

    def test_421_closes(self) -> None:
        self.first.says["content"] = Refuse(CLOSED)
        visit = self.greeted()
        self.letter(visit)
        self.assertTrue(visit.closed)

    def test_a_rejected_sender_begins_anew_in_the_greylist(self) -> None:
        for spam, verdict, told in (("bounce", NO, True), ("accept", NO, True), ("bounce", LATER, False)):
            self.setUp()
            self.chain(spam)
            self.first.says["content"] = verdict
            self.letter()
            self.assertEqual("rejected a@example.net" in self.policy.told, told)

    def test_so_does_who_sends_by_a_client_that_was_rejected(self) -> None:
        for stage in ("client", "helo"):
            self.setUp()
            self.chain("accept")
            self.first.says[stage] = NO
            self.letter()
            self.assertIn("rejected a@example.net", self.policy.told)

    def test_verdicts_are_logged_with_name_and_time(self) -> None:
        self.first.says["content"] = waiting = Deferred()  # type: ignore[assignment]
        self.letter()
        self.door.office.clock.advance(2)
        waiting.callback(Accept())
        journal = self.door.office.journal
        self.assertIn("first content: accept", journal.named("filtered"))
        self.assertEqual(journal.named("took"), ["first content: 2 s", "second content: 0 s"])

    def test_what_filters_let_go_on_is_one_line_a_letter(self) -> None:
        journal = self.door.office.journal
        self.first.says["recipient"] = waiting = Deferred()  # type: ignore[assignment]
        visit = self.greeted()
        self.say(visit, MAIL, RCPT)
        self.door.office.clock.advance(2)
        self.first.says["recipient"] = again = Deferred()  # type: ignore[assignment]
        waiting.callback(Continue())
        self.say(visit, RCPT)
        self.door.office.clock.advance(3)
        again.callback(Continue())
        self.say(visit, "DATA", LETTER)
        session, letter = "session connection, HELO: 0 s, 0 s", "letter MAIL, 2 RCPT, DATA"
        self.assertEqual(
            journal.named("passed"),
            [
                f"first {session}",
                f"second {session}",
                f"first {letter}: 5 s, 3 s",
                f"second {letter}: 0 s, 0 s",
            ],
        )

    def test_it_is_told_of_what_comes_to_nothing_too(self) -> None:
        for last in ("RSET", "DATA", None):
            self.setUp()
            journal = self.door.office.journal
            visit = self.greeted()
            self.say(visit, MAIL, RCPT)
            journal.facts.clear()
            if last is None:
                visit.leave()
            else:
                self.first.says["data"] = NO
                self.say(visit, last, "RSET")
            letter = "letter MAIL, RCPT: 0 s, 0 s"
            self.assertEqual(journal.named("passed"), [f"first {letter}", f"second {letter}"])
            visit.leave()
            journal.facts.clear()
            self.greeted().leave()
            session = "session connection, HELO: 0 s, 0 s"
            self.assertEqual(journal.named("passed"), [f"first {session}", f"second {session}"])

    def test_who_was_not_asked_has_let_nothing_go_on(self) -> None:
        self.first.says["sender"] = Accept()
        self.letter()
        told = self.door.office.journal.named("passed") + self.door.office.journal.named("filtered")
        first = [one for one in told if one.startswith("first ")]
        self.assertEqual(first, ["first session connection, HELO: 0 s, 0 s", "first MAIL: accept"])

    def test_debug_lists_filters_and_their_state(self) -> None:
        self.door.change(disclosure=("x=1",))
        self.first.says["content"] = DOWN
        visit = self.greeted()
        self.letter(visit)
        heard = visit.send(b"DEBUG\r\n").decode()
        self.assertIn("Filter: first (failing: it is down; 1 failed)", heard)
        self.assertIn("Filter: second (ready)", heard)
        self.first.says = {"recipient": LATER}
        self.say(visit, MAIL, RCPT)
        self.first.says.clear()
        self.letter(visit)
        heard = visit.send(b"DEBUG\r\n").decode()
        self.assertIn("Filter: first (ready; 1 continue, 1 failed, 1 refuse)", heard)
        self.assertIn("Filter: second (ready; 1 continue)", heard)


class Spam(FiltersCase):
    def test_1_4_3a_a_rejection_marks_the_letter(self) -> None:
        for stage in ("client", "helo", "sender", "data", "content"):
            self.setUp()
            self.chain("accept")
            self.first.says[stage] = NO
            self.assertEqual(self.codes(self.letter())[-1], "250", stage)
            lines = self.door.contents()[0].split(b"\r\n")
            self.assertIn(b"X-Spam: we saw spam", lines)
            self.assertIn("content letter", self.second.told)
            if stage != "content":
                self.assertNotIn("content letter", self.first.told)

    def test_1_4_3a_a_mark_that_was_there_stays(self) -> None:
        self.chain("accept")
        self.first.says["content"] = self.second.says["content"] = NO
        self.letter(None, "X-Spam: from before\r\nSubject: s\r\n\r\ntext\r\n.")
        content = self.door.contents()[0]
        self.assertEqual(content.count(b"X-Spam: we saw spam"), 2)
        self.assertLess(content.index(b"X-Spam: we saw spam"), content.index(b"X-Spam: from before"))
        self.assertTrue(content.startswith(b"Received: "))

    def test_A6_a_mark_is_one_line(self) -> None:
        self.chain("accept")
        self.first.says["content"] = Refuse(Reply(550, (7, 1), "a\nBcc: x\r\n\r\nbody"))
        self.letter()
        self.assertIn(b"X-Spam: a Bcc: x body\r\n", self.door.contents()[0])

    def test_1_4_3a_a_folder_for_marked_letters(self) -> None:
        self.chain("folder:~/Junk")
        self.door.office.local.answer = None
        self.first.says["content"] = NO
        self.letter()
        found: list[Any] = []
        self.door.office.spool.entries().addCallback(found.extend)
        self.assertEqual([entry.letter.folder for entry in found], ["~/Junk"])

    def test_recipients_and_temporary_refusals_are_refused_in_every_mode(self) -> None:
        for spam, (stage, verdict) in product(
            ("accept", "folder:~/J"),
            (("recipient", NO), ("sender", LATER), ("data", LATER), ("content", LATER)),
        ):
            self.setUp()
            self.chain(spam)
            self.first.says[stage] = verdict
            self.assertIn(str(verdict.reply), self.letter())
            self.assertEqual(self.door.contents(), [])

    def test_the_next_letter_is_not_marked(self) -> None:
        self.chain("accept")
        self.first.says["content"] = NO
        visit = self.greeted()
        self.letter(visit)
        del self.first.says["content"]
        self.letter(visit)
        self.assertEqual([b"X-Spam" in content for content in self.door.contents()], [True, False])

    def test_a_greeting_that_was_rejected_is_forgotten_with_the_next(self) -> None:
        self.chain("accept")
        self.first.says["helo"] = NO
        visit = self.greeted()
        self.letter(visit)
        del self.first.says["helo"]
        self.say(visit, "HELO other.example")
        self.letter(visit)
        self.assertEqual([b"X-Spam" in content for content in self.door.contents()], [True, False])
        self.assertIn("content letter", self.first.told)


class Failures(FiltersCase):
    ON_ERROR = {
        "tempfail": "451 4.7.1 Service unavailable - try again later",
        "reject": "550 5.5.0 The message could not be checked",
        "shutdown": "421 4.7.1 The message could not be checked, closing the connection",
    }

    def test_on_error_at_every_stage_of_a_letter(self) -> None:
        stages = ["sender", "recipient", "data", "content"]
        for stage, (on_error, answer) in product(stages, self.ON_ERROR.items()):
            self.setUp()
            self.chain(on_error=on_error)
            self.first.says[stage] = DOWN
            visit = self.greeted()
            lines = (MAIL, RCPT, "DATA", LETTER)[: stages.index(stage) + 1]
            self.assertEqual(self.say(visit, *lines)[-1], answer, (stage, on_error))
            self.assertEqual(visit.closed, on_error == "shutdown")
            self.assertEqual(self.door.contents(), [])
            visit.leave()

    def test_a_failure_at_a_recipient_spoils_the_letter(self) -> None:
        self.first.says["recipient"] = DOWN
        visit = self.greeted()
        self.say(visit, MAIL, RCPT)
        self.first.says.clear()
        self.assertEqual(self.codes(self.say(visit, RCPT, "DATA")), ["451", "554"])

    def test_E4_a_failure_at_an_unknown_command_spoils_the_letter(self) -> None:
        self.first.says["unknown"] = DOWN
        visit = self.greeted()
        self.assertEqual(self.codes(self.say(visit, MAIL, RCPT, "NONSENSE", RCPT, "DATA")),
                         ["250", "250", "500", "451", "451"])  # fmt: skip
        self.first.says.clear()
        self.assertEqual(self.codes(self.letter(visit))[-1], "250")

    def test_E4_accept_goes_on_without_it(self) -> None:
        for stage in ("open", "client", "helo", "sender", "recipient", "data", "content"):
            self.setUp()
            self.chain(on_error="accept")
            self.first.changes = [AddHeader(b"X-Half", b"v")]
            self.first.says[stage] = DOWN
            self.assertEqual(self.codes(self.letter()), ["250", "250", "354", "250"], stage)
            self.assertNotIn(b"X-Half", self.door.contents()[0])
            self.assertIn("content letter", self.second.told)

    def test_quarantine_holds_the_letter(self) -> None:
        for stage in ("open", "client", "helo", "sender", "recipient", "data", "content"):
            self.setUp()
            self.chain(on_error="quarantine")
            self.first.says[stage] = DOWN
            self.assertEqual(self.codes(self.letter())[-1], "250", stage)
            self.assertEqual(self.held(), ["filter failure: first"], stage)
            self.assertEqual(self.door.contents(), [])

    def test_nothing_is_said_before_the_first_letter(self) -> None:
        for stage in ("open", "client", "helo"):
            self.setUp()
            self.first.says[stage] = DOWN
            visit = self.visit()
            self.assertTrue(self.banner.startswith("220"))
            self.assertEqual(self.codes(self.say(visit, HELO, MAIL)), ["250", "451"], stage)

    def test_shutdown_when_it_cannot_judge_the_client(self) -> None:
        for stage in ("open", "client"):
            self.setUp()
            self.chain(on_error="shutdown")
            self.first.says[stage] = DOWN
            visit = self.visit()
            self.assertTrue(self.banner.startswith("421"))
            self.assertTrue(visit.closed)

    def test_it_is_tried_again_at_the_next_letter(self) -> None:
        self.first.says["content"] = DOWN
        visit = self.greeted()
        self.assertEqual(self.codes(self.letter(visit))[-1], "451")
        self.first.says.clear()
        self.first.told.clear()
        self.assertEqual(self.codes(self.letter(visit))[-1], "250")
        self.assertEqual(
            self.first.told[:4],
            ["close", "open", f"client {OUTSIDE}", "helo client.example"],
        )

    def test_one_that_went_away_between_letters_is_asked_about_the_next(self) -> None:
        visit = self.greeted()
        self.letter(visit)
        self.first.lost = "the connection was closed"
        self.first.told.clear()
        self.assertEqual(self.codes(self.letter(visit))[-1], "250")
        self.assertEqual(self.first.told[:4],
                         ["close", "open", f"client {OUTSIDE}", "helo client.example"])  # fmt: skip
        self.assertIn(
            "first connection: failed: the connection was closed",
            self.door.office.journal.named("filtered"),
        )

    def test_once_a_letter_and_no_more(self) -> None:
        self.first.says["open"] = DOWN
        visit = self.greeted()
        self.first.told.clear()
        self.assertEqual(self.codes(self.say(visit, MAIL, RCPT)), ["451", "503"])
        self.assertEqual(self.first.told.count("open"), 1)

    def test_the_others_are_not_harmed(self) -> None:
        self.first.says["content"] = DOWN
        self.letter()
        self.assertEqual(self.second.told[-1], "abort")

    def test_a_client_that_leaves_while_filters_think(self) -> None:
        self.first.says["content"] = Deferred()
        visit = self.greeted()
        self.letter(visit)
        visit.leave()
        self.assertEqual((self.door.contents(), self.held()), ([], []))
        self.assertEqual((self.first.open, self.second.open), (0, 0))

    def test_a_slow_filter_holds_up_its_own_session_only(self) -> None:
        self.first.says["content"] = waiting = Deferred()  # type: ignore[assignment]
        slow = self.greeted()
        self.assertEqual(self.letter(slow)[-1], "")
        del self.first.says["content"]
        self.assertEqual(self.codes(self.letter())[-1], "250")
        waiting.callback(Continue())
        self.assertEqual(slow.heard()[:3], b"250")

    def test_a_spool_that_cannot_be_read_is_our_trouble(self) -> None:
        self.door.office.shelf.capacity = 10
        self.assertEqual(self.letter()[-1][:3], "452")
        self.assertEqual(self.held(), [])


class Edits(FiltersCase):
    def edited(self, *edits: Edit, content: str = LETTER) -> bytes:
        """The letter as it is delivered."""
        self.setUp()
        self.first.changes = edits
        self.assertEqual(self.codes(self.letter(None, content))[-1], "250")
        return self.door.contents()[0]

    def test_header_and_body(self) -> None:
        content = self.edited(
            InsertHeader(0, b"X-Top", b"one\n\ttwo"),
            InsertHeader(2, b"X-Below", b"three"),
            ChangeHeader(1, b"Subject", b"other"),
            AddHeader(b"X-End", b"four"),
            ReplaceBody(b"new\nbody"),
        )
        head, _, body = content.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"X-Top: one\r\n\ttwo\r\nReceived: "))
        self.assertTrue(head.endswith(b"\r\nX-Below: three\r\nSubject: other\r\nX-End: four"))
        self.assertEqual(body, b"new\r\nbody\r\n")

    def test_the_next_filter_sees_them(self) -> None:
        self.edited(
            InsertHeader(1, b"X-New", b"v"), ReplaceBody(b"new\r\n"), AddRecipient(b"<carol@example.org>")
        )
        seen = self.second.letters[0]
        self.assertEqual([bytes(field) for field in seen.fields if not field.hidden],
                         [b"X-New: v\r\n", b"Subject: s\r\n"])  # fmt: skip
        self.assertEqual(self.second.bodies, [b"new\r\n"])
        self.assertEqual(len(seen.envelope.recipients), 2)

    def test_an_untouched_letter_is_the_same_as_without_filters(self) -> None:
        for content in (
            "Subject: s\r\n\r\ntext\r\n.",
            "no header at all\r\n.",
            "Subject:x\r\nX-Odd : y\r\n\tz\r\nno field\r\n\r\nrest\r\n.",
            "\r\nbody only\r\n.",
            ".",
            "Subject: s\r\n.",
        ):
            with_filters = self.edited(content=content)
            self.door.factory.filters = None
            self.letter(None, content)
            without = self.door.contents()[-1]
            self.assertEqual(with_filters.partition(b"1970")[2], without.partition(b"1970")[2], content)

    def test_large_letters(self) -> None:
        text = "x" * 70 + "\r\n"
        self.door.change(size=0)
        content = f"Subject: s\r\n\r\n{text * 3000}."
        self.first.changes = [AddHeader(b"X-End", b"v")]
        self.assertEqual(self.codes(self.letter(None, content))[-1], "250")
        (stored,) = self.door.contents()
        self.assertEqual(stored.partition(b"\r\n\r\n")[2], (text * 3000).encode())
        self.assertIn(b"X-End: v\r\n\r\n", stored)

    def recipients(self, *edits: Edit) -> list[str]:
        self.edited(*edits)
        return [name for attempt in self.door.office.local.attempts for name in attempt[2]]

    def test_recipients(self) -> None:
        self.assertEqual(
            sorted(self.recipients(AddRecipient(b"carol@example.org"), AddRecipient(b"<broken"))),
            ["bob@example.org", "carol@example.org"],
        )
        for text in (b"bob@example.org", b"<bob@EXAMPLE.org>", b"<BOB@example.org>"):
            edits = [RemoveRecipient(text), AddRecipient(b"<carol@example.org>")]
            self.assertEqual(self.recipients(*edits), ["carol@example.org"])
        self.assertEqual(self.recipients(RemoveRecipient(b"<dave@example.org>")), ["bob@example.org"])
        self.assertEqual(self.recipients(AddRecipient(b"<bob@example.org>")), ["bob@example.org"])

    def test_nobody_left(self) -> None:
        self.first.changes = [RemoveRecipient(b"<bob@example.org>")]
        self.assertEqual(self.codes(self.letter())[-1], "250")
        self.assertEqual((self.door.contents(), self.held()), ([], []))
        said = self.door.office.journal.named("filtered")
        self.assertIn("first content: removed every recipient", said)

    def envelope(self, *edits: Edit) -> Any:
        self.setUp()
        self.door.office.local.answer = None
        self.first.changes = edits
        self.letter()
        found: list[Any] = []
        self.door.office.spool.entries().addCallback(found.extend)
        return found[0] if found else None

    def test_sender(self) -> None:
        letter = self.envelope(ChangeSender(b"<x@example.com>", b"RET=HDRS ENVID=e1 ODD=1 NOTIFY")).letter
        self.assertEqual((str(letter.sender), letter.ret, letter.envid), ("x@example.com", "HDRS", "e1"))
        self.assertIsNone(self.envelope(ChangeSender(b"<>")).letter.sender)

    def test_what_a_new_sender_brings_in_vain_is_told(self) -> None:
        self.envelope(ChangeSender(b"<x@example.com>", b"AUTH=<> SIZE=9 RET=FULL"))
        for name in ("AUTH", "SIZE"):
            self.assertIn(
                f"first content: dropped a parameter of no effect here: {name}",
                self.door.office.journal.named("filtered"),
            )
        self.assertFalse([said for said in self.door.office.journal.named("filtered") if "RET" in said])

    def test_whether_only_hosts_with_smtputf8_take_it_is_seen_again(self) -> None:
        plain, wide = "Subject: s\r\n\r\ntext\r\n.", "Subject: \xc3\xa9\r\n\r\ntext\r\n."
        for content, value, international in ((plain, "\xe9", True), (wide, "e", False)):
            self.setUp()
            self.door.office.local.answer = None
            self.first.changes = [ChangeHeader(1, b"Subject", value.encode())]
            visit = self.greeted()
            self.say(visit, "EHLO client.example")
            self.say(visit, MAIL + " SMTPUTF8", RCPT, "DATA", content)
            found: list[Any] = []
            self.door.office.spool.entries().addCallback(found.extend)
            self.assertEqual([entry.letter.smtputf8 for entry in found], [international])

    def test_a_sender_that_is_none_puts_the_letter_off(self) -> None:
        self.first.changes = [ChangeSender(b"<not an address>")]
        self.assertEqual(self.letter()[-1], str(PUT_OFF))
        self.assertEqual((self.door.contents(), self.second.told[-1]), ([], "abort"))

    def test_recipients_bring_what_is_asked_about_them(self) -> None:
        edits = [AddRecipient(b"<carol@example.org>", b"NOTIFY=NEVER ORCPT=rfc822;c@x ODD")]
        carol = self.envelope(*edits).recipients[1]
        self.assertEqual((carol.notify, carol.orcpt), ("NEVER", "rfc822;c@x"))

    def test_hold(self) -> None:
        self.first.changes, self.second.changes = [Hold(b"looks odd")], [Hold(b"")]
        self.assertEqual(self.codes(self.letter())[-1], "250")
        why = "looks odd (filter first); held by filter second"
        self.assertEqual((self.held(), self.door.contents()), ([why], []))
        self.assertEqual(self.door.office.journal.named("held"), [why])

    def test_A6_the_reason_for_a_hold_is_one_short_line(self) -> None:
        self.first.changes = [Hold(b"\x1b[1modd\r\nthing")]
        self.letter()
        self.assertEqual(self.held(), ["?[1modd?thing (filter first)"])
        self.setUp()
        self.first.changes = [Hold(b"x" * 5000)] * 100
        self.letter()
        (why,) = self.held()
        self.assertEqual(len(why), HOLD_LIMIT)

    def test_edits_of_a_letter_that_is_refused_change_nothing(self) -> None:
        for verdict in (NO, LATER, Discard(), DOWN):
            self.setUp()
            self.chain("accept", on_error="accept")
            self.first.changes = [AddHeader(b"X-Gone", b"v"), Hold(b"x"), ReplaceBody(b"y")]
            self.first.says["content"] = verdict
            self.letter()
            self.assertFalse(any(b"X-Gone" in content for content in self.door.contents()))
            self.assertEqual(self.held(), [])

    def test_the_size_is_looked_at_again(self) -> None:
        self.chain(size=1000)
        self.first.changes = [ReplaceBody(b"x" * 3000)]
        self.assertEqual(self.letter()[-1][:9], "552 5.3.4")
        self.assertEqual(self.door.contents(), [])

    def test_headers_that_filters_could_not_be_shown(self) -> None:
        for content in ("X: a\0b\r\n\r\ntext\r\n.", "X: " + "y\r\n " * 16000 + "y\r\n\r\ntext\r\n."):
            self.door.change(size=0)
            self.assertEqual(self.letter(None, content)[-1][:9], "554 5.6.0")
            self.assertEqual(self.first.letters, [])
