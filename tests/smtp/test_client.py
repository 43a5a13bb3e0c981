from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.envelope import Envelope, ReportRequest
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply
from postoffice.smtp.answers import MAX_LINE, MAX_REPLY
from postoffice.smtp.client import GROUP, ClientEngine
from postoffice.smtp.client_events import Broken, Event, Finished, Proceed, Ready
from postoffice.smtp.encoding import Encoder
from tests.smtp.host import EHLO, SENDER, WAYS, WHERE, Talk, envelope

PLAIN = b"250 mx.test\r\n"
OK = b"250 2.0.0 fine\r\n"


def joined(talk: Talk) -> list[Event | bytes]:
    """What came of a conversation, with pieces that were sent one behind the other as one."""
    found: list[Event | bytes] = []
    for piece in talk.trace:
        if isinstance(piece, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += piece
        else:
            found.append(piece)
    return found


class EngineTests(SynchronousTestCase):
    """Every conversation is held whole, byte by byte, and with trailing data."""

    def setUp(self) -> None:
        self.held: list[Talk] = []

    def talk(self, lmtp: bool = False) -> Talk:
        self.held.append(Talk(lmtp))
        return self.held[-1]

    def greeted(self, ehlo: bytes = EHLO) -> Talk:
        return self.talk().greet(ehlo)

    def tearDown(self) -> None:
        for talk in self.held:
            talk.look()
            for name, way in WAYS.items():
                other = talk.again(way)
                self.assertEqual(joined(other), joined(talk), name)
                self.assertEqual(other.engine.awaiting, talk.engine.awaiting, name)
                ends_early = name == "with trailing data" and isinstance(talk.steps[-1], bytes)
                self.assertEqual(other.engine.reusable, talk.engine.reusable and not ends_early, name)

    def outcomes(self, talk: Talk, untouched: bool = False) -> tuple[Outcome, ...]:
        talk.look()
        finished = [event for event in talk.events if isinstance(event, Finished)]
        self.assertEqual(len(finished), 1, talk.events)
        self.assertEqual(finished[0].untouched, untouched)
        return finished[0].outcomes

    def failure(self, talk: Talk) -> Reply:
        """What broke the session."""
        broken = talk.events[-1]
        assert isinstance(broken, Broken), talk.events
        self.assertFalse(talk.engine.reusable)
        talk.engine.receive(b"250 more\r\n")
        self.assertIsNone(talk.engine.next_event())
        return broken.reply


class GreetingTests(EngineTests):
    def test_ehlo(self) -> None:
        talk = self.talk()
        self.assertEqual(talk.engine.awaiting, "greeting")
        self.assertEqual(talk.hear(b"220-mx.test\r\n220 hello\r\n"), b"EHLO me.test\r\n")
        self.assertEqual(talk.hear(EHLO), b"")
        self.assertEqual(talk.events, [Ready()])
        self.assertEqual(
            talk.engine.offers.extensions,
            {"PIPELINING": "", "SIZE": "1000", "8BITMIME": "", "ENHANCEDSTATUSCODES": ""},
        )
        self.assertTrue(talk.engine.reusable)

    def test_helo_where_ehlo_is_refused(self) -> None:
        talk = self.talk()
        talk.hear(b"220 old\r\n")
        self.assertEqual(talk.hear(b"502 what?\r\n"), b"HELO me.test\r\n")
        self.assertEqual(talk.hear(b"250 old\r\n"), b"")
        self.assertEqual((talk.events, talk.engine.offers.extensions), ([Ready()], {}))

    def test_helo_refused_too(self) -> None:
        talk = self.talk()
        talk.hear(b"220 old\r\n")
        talk.hear(b"502 what?\r\n")
        talk.hear(b"550 5.7.1 go away\r\n")
        self.assertEqual(self.failure(talk), Reply(550, (7, 1), "go away"))

    def test_refused_at_the_door(self) -> None:
        for line, reply in (
            (b"554 no\r\n", Reply(554, None, "no")),
            (b"421 4.3.2 busy\r\n", Reply(421, (3, 2), "busy")),
            (b"450 later\r\n", Reply(450, None, "later")),
        ):
            talk = self.talk()
            talk.hear(line)
            self.assertEqual(self.failure(talk), reply)
            self.assertEqual(talk.quit(), b"QUIT\r\n")

    def test_ehlo_postponed(self) -> None:
        talk = self.talk()
        talk.hear(b"220 x\r\n")
        self.assertEqual(talk.hear(b"451 4.3.0 later\r\n"), b"")
        self.assertEqual(self.failure(talk), Reply(451, (3, 0), "later"))

    def test_other_success_is_no_greeting(self) -> None:
        talk = self.talk()
        talk.hear(b"250 hello\r\n")
        self.assertEqual(self.failure(talk).code, 250)

    def test_odd_extensions_are_left_out(self) -> None:
        talk = self.greeted(b"250-x\r\n250-=\xff\r\n250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN\r\n250 SIZE\r\n")
        self.assertEqual(talk.engine.offers.extensions, {"AUTH": "PLAIN LOGIN", "SIZE": ""})

    def test_lost(self) -> None:
        talk = self.talk()
        talk.lost(Reply(442, (4, 2), "gone"))
        talk.look()
        self.assertEqual(self.failure(talk), Reply(442, (4, 2), "gone"))


class TransactionTests(EngineTests):
    def test_pipelined(self) -> None:
        talk = self.greeted()
        self.assertEqual(
            talk.begin(envelope(2)),
            b"MAIL FROM:<ann@here.test> SIZE=4\r\nRCPT TO:<r0@far.test>\r\nRCPT TO:<r1@far.test>\r\nDATA\r\n",
        )
        self.assertEqual(talk.hear(OK + OK + OK + b"354 go\r\n"), b"Hi\r\n.\r\n")
        talk.hear(b"250 2.0.0 Ok: queued as 4711\r\n")
        delivered = Delivered(Reply(250, (0, 0), "Ok: queued as 4711"), WHERE)
        self.assertEqual(self.outcomes(talk), (delivered, delivered))
        self.assertTrue(talk.engine.reusable)

    def test_one_by_one(self) -> None:
        talk = self.greeted(PLAIN)
        self.assertEqual(talk.begin(envelope(2, body="8BITMIME")), b"MAIL FROM:<ann@here.test>\r\n")
        self.assertEqual(talk.hear(OK), b"RCPT TO:<r0@far.test>\r\n")
        self.assertEqual(talk.hear(OK), b"RCPT TO:<r1@far.test>\r\n")
        self.assertEqual(talk.hear(b"551 5.1.6 moved\r\n"), b"DATA\r\n")
        self.assertEqual(talk.hear(b"354 go\r\n"), b"Hi\r\n.\r\n")
        talk.hear(b"250 yes\r\n")
        self.assertEqual(
            self.outcomes(talk),
            (
                Delivered(Reply(250, None, "yes"), WHERE),
                Failed(Reply(551, (1, 6), "moved"), WHERE),
            ),
        )

    def test_null_sender_and_eight_bits(self) -> None:
        talk = self.greeted()
        out = talk.begin(envelope(sender=None, body="8BITMIME"), 7)
        self.assertTrue(out.startswith(b"MAIL FROM:<> SIZE=7 BODY=8BITMIME\r\n"), out)

    def test_next_letter_goes_without_reset(self) -> None:
        talk = self.greeted()
        for last in (OK, b"554 5.7.1 spam\r\n", b"451 4.3.0 later\r\n"):
            self.assertTrue(talk.begin().startswith(b"MAIL"))
            talk.hear(OK + OK + b"354 go\r\n")
            talk.hear(last)
            self.assertTrue(talk.engine.reusable)

    def test_mail_refused(self) -> None:
        talk = self.greeted()
        talk.begin(envelope(2))
        talk.hear(b"550 5.7.1 not you\r\n" + b"503 5.5.1 MAIL first\r\n" * 2 + b"503 5.5.1 RCPT first\r\n")
        failed = Failed(Reply(550, (7, 1), "not you"), WHERE)
        self.assertEqual(self.outcomes(talk), (failed, failed))
        self.assertTrue(talk.begin().startswith(b"MAIL"))

    def test_mail_postponed(self) -> None:
        talk = self.greeted(PLAIN)
        talk.begin(envelope(2))
        self.assertEqual(talk.hear(b"451 4.3.0 later\r\n"), b"")
        later = Postponed(Reply(451, (3, 0), "later"), WHERE)
        self.assertEqual(self.outcomes(talk), (later, later))

    def test_mail_refused_but_data_taken(self) -> None:
        talk = self.greeted()
        talk.begin()
        self.assertEqual(talk.hear(b"550 no\r\n250 eh\r\n354 go\r\n"), b".\r\n")
        talk.hear(OK)
        self.assertEqual(self.outcomes(talk), (Failed(Reply(550, None, "no"), WHERE),))

    def test_all_recipients_refused(self) -> None:
        talk = self.greeted()
        talk.begin(envelope(2))
        talk.hear(OK + b"550 5.1.1 who?\r\n450 4.2.0 later\r\n554 5.5.1 no valid recipients\r\n")
        self.assertEqual(
            self.outcomes(talk),
            (
                Failed(Reply(550, (1, 1), "who?"), WHERE),
                Postponed(Reply(450, (2, 0), "later"), WHERE),
            ),
        )
        self.assertEqual(
            talk.begin(), b"RSET\r\nMAIL FROM:<ann@here.test> SIZE=4\r\nRCPT TO:<r0@far.test>\r\nDATA\r\n"
        )
        talk.events.clear()
        self.assertEqual(talk.hear(OK + OK + OK + b"354 go\r\n"), b"Hi\r\n.\r\n")
        talk.hear(OK)
        self.assertEqual(self.outcomes(talk), (Delivered(Reply(250, (0, 0), "fine"), WHERE),))

    def test_all_recipients_refused_but_data_taken(self) -> None:
        for last in (b"554 5.5.1 nobody\r\n", OK):
            talk = self.greeted()
            talk.begin()
            self.assertEqual(talk.hear(OK + b"550 5.1.1 who?\r\n354 go\r\n"), b".\r\n")
            self.assertFalse(talk.engine.reusable)
            talk.hear(last)
            self.assertEqual(self.outcomes(talk), (Failed(Reply(550, (1, 1), "who?"), WHERE),))
            self.assertTrue(talk.begin().startswith(b"MAIL"))

    def test_no_data_without_recipients_one_by_one(self) -> None:
        talk = self.greeted(PLAIN)
        talk.begin()
        talk.hear(OK)
        self.assertEqual(talk.hear(b"550 5.1.1 who?\r\n"), b"")
        self.assertEqual(self.outcomes(talk), (Failed(Reply(550, (1, 1), "who?"), WHERE),))
        self.assertEqual(talk.begin(), b"RSET\r\n")
        self.assertEqual(talk.hear(OK), b"MAIL FROM:<ann@here.test>\r\n")

    def test_reset_refused(self) -> None:
        talk = self.greeted(PLAIN)
        talk.begin()
        talk.hear(OK)
        talk.hear(b"550 5.1.1 who?\r\n")
        talk.events.clear()
        talk.begin()
        talk.hear(b"500 5.5.1 RSET?\r\n")
        self.assertEqual(
            self.outcomes(talk, untouched=True), (Postponed(Reply(500, (5, 1), "RSET?"), WHERE),)
        )
        self.assertEqual(self.failure(talk).code, 500)

    def test_data_refused_is_postponed(self) -> None:
        talk = self.greeted()
        talk.begin(envelope(2))
        talk.hear(OK + OK + b"550 5.1.1 who?\r\n" + b"554 5.7.1 not now\r\n")
        self.assertEqual(
            self.outcomes(talk),
            (
                Postponed(Reply(554, (7, 1), "not now"), WHERE),
                Failed(Reply(550, (1, 1), "who?"), WHERE),
            ),
        )
        self.assertTrue(talk.begin().startswith(b"RSET\r\nMAIL"))

    def test_content_refused(self) -> None:
        for code, kind in ((b"554", Failed), (b"451", Postponed)):
            talk = self.greeted()
            talk.begin(envelope(2))
            talk.hear(OK + b"550 5.1.1 who?\r\n" + OK + b"354 go\r\n")
            talk.hear(code + b" no\r\n")
            self.assertEqual(
                self.outcomes(talk),
                (
                    Failed(Reply(550, (1, 1), "who?"), WHERE),
                    kind(Reply(int(code), None, "no"), WHERE),
                ),
            )

    def test_too_many_recipients_is_not_for_ever(self) -> None:
        for line, kind in (
            (b"552 too many recipients\r\n", Postponed),
            (b"552 5.5.3 too many recipients\r\n", Postponed),
            (b"452 4.5.3 too many recipients\r\n", Postponed),
            (b"552 5.2.2 mailbox full\r\n", Failed),
        ):
            talk = self.greeted()
            talk.begin(envelope(2))
            talk.hear(OK + OK + line + b"354 go\r\n")
            talk.hear(OK)
            self.assertIsInstance(self.outcomes(talk)[1], kind, line)

    def test_552_for_the_first_recipient(self) -> None:
        talk = self.greeted()
        talk.begin()
        talk.hear(OK + b"552 full\r\n" + b"554 no\r\n")
        self.assertEqual(self.outcomes(talk), (Failed(Reply(552, None, "full"), WHERE),))

    def test_no_more_recipients_than_the_host_takes_at_once(self) -> None:
        limits = EHLO.replace(b"250 ENH", b"250-LIMITS MAILMAX=2 rcptmax=2 OTHER=1 RCPTMAX=x\r\n250 ENH")
        talk = self.greeted(limits)
        sent = talk.begin(envelope(4))
        self.assertEqual(sent.count(b"RCPT TO"), 2)
        talk.hear(OK + OK + OK + b"354 go\r\n" + OK)
        outcomes = self.outcomes(talk)
        self.assertEqual([type(outcome) for outcome in outcomes], [Delivered] * 2 + [Postponed] * 2)
        self.assertEqual((outcomes[3].reply.code, outcomes[3].where), (452, WHERE))
        self.assertTrue(talk.engine.reusable)
        talk.begin(envelope())
        talk.hear(OK + OK + b"354 go\r\n" + OK)
        self.assertFalse(talk.engine.reusable)

    def test_mail_of_any_script(self) -> None:
        what = Envelope(Address("änn", "here.test"), (Address("böb", "far.test"),), smtputf8=True)
        talk = self.greeted(EHLO.replace(b"250 ENH", b"250-SMTPUTF8\r\n250 ENH"))
        self.assertEqual(
            talk.begin(what),
            "MAIL FROM:<änn@here.test> SIZE=4 SMTPUTF8\r\nRCPT TO:<böb@far.test>\r\nDATA\r\n".encode(),
        )
        talk.hear(OK + OK + b"354 go\r\n" + OK)
        self.assertIsInstance(self.outcomes(talk)[0], Delivered)
        for ascii_only in (what, evolve(envelope(), smtputf8=True)):
            talk = self.greeted()
            self.assertEqual(talk.begin(ascii_only), b"")
            (outcome,) = self.outcomes(talk, untouched=False)
            assert isinstance(outcome, Failed)
            self.assertEqual(
                (outcome.reply.code, outcome.reply.enhanced, outcome.where), (550, (6, 7), WHERE)
            )
            self.assertTrue(talk.engine.reusable)

    def test_reports_that_were_asked_for(self) -> None:
        """RFC 3461 section 5.2.1: passed on where the host knows what to do with them."""
        one, two = Address("a", "far.test"), Address("b", "far.test")
        requests = {one: ReportRequest("SUCCESS,DELAY", "rfc822;o+40x"), two: ReportRequest("", "utf-8;ö")}
        what = Envelope(SENDER, (one, two), ret="HDRS", envid="Q+2B1", requests=requests)
        talk = self.greeted(EHLO.replace(b"250 ENH", b"250-DSN\r\n250 ENH"))
        self.assertEqual(
            talk.begin(what),
            b"MAIL FROM:<ann@here.test> SIZE=4 RET=HDRS ENVID=Q+2B1\r\n"
            b"RCPT TO:<a@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o+40x\r\n"
            b"RCPT TO:<b@far.test>\r\nDATA\r\n",
        )
        talk.hear(OK + OK + b"550 no\r\n354 go\r\n" + OK)
        served, failed = self.outcomes(talk)
        self.assertEqual(served, Delivered(Reply(250, (0, 0), "fine"), WHERE, answers=True))
        self.assertIsInstance(failed, Failed)
        talk = self.greeted()
        self.assertNotIn(b"=H", talk.begin(what))
        talk.hear(OK + OK + OK + b"354 go\r\n" + OK)
        self.assertEqual(self.outcomes(talk)[0], Delivered(Reply(250, (0, 0), "fine"), WHERE))

    def test_groups(self) -> None:
        talk = self.greeted()
        first = talk.begin(envelope(2 * GROUP))
        self.assertEqual(first.count(b"\r\n"), GROUP)
        self.assertNotIn(b"DATA", first)
        second = talk.hear(OK * GROUP)
        self.assertEqual(second.count(b"RCPT"), GROUP)
        self.assertEqual(talk.hear(OK * GROUP), b"RCPT TO:<r199@far.test>\r\nDATA\r\n")
        self.assertEqual(talk.hear(OK + b"354 go\r\n"), b"Hi\r\n.\r\n")
        talk.hear(OK)
        self.assertEqual(len(self.outcomes(talk)), 2 * GROUP)

    def test_no_more_groups_after_a_refused_sender(self) -> None:
        talk = self.greeted()
        talk.begin(envelope(2 * GROUP))
        self.assertEqual(talk.hear(b"550 no\r\n" + b"503 no\r\n" * (GROUP - 1)), b"")
        self.assertEqual(self.outcomes(talk), (Failed(Reply(550, None, "no"), WHERE),) * (2 * GROUP))

    def test_larger_than_the_host_takes(self) -> None:
        talk = self.greeted()
        self.assertEqual(talk.begin(size=1001), b"")
        (outcome,) = self.outcomes(talk)
        assert isinstance(outcome, Failed)
        self.assertEqual((outcome.reply.status, outcome.where), ("5.3.4", WHERE))
        self.assertTrue(talk.begin(size=1000).startswith(b"MAIL"))

    def test_size_without_a_limit(self) -> None:
        for parameter in (b"", b" 0", b" x", b" -1"):
            talk = self.greeted(b"250-x\r\n250 SIZE" + parameter + b"\r\n")
            self.assertEqual(talk.begin(size=10**9), b"MAIL FROM:<ann@here.test> SIZE=1000000000\r\n")

    def test_A6_addresses_that_cannot_be_written(self) -> None:
        talk = self.greeted()
        bad = (Address("m\xfcller", "far.test"), Address("a\r\nDATA", "far.test"), Address("a\0", "far.test"))
        out = talk.begin(Envelope(SENDER, (*bad, Address("ok", "far.test"))))
        self.assertEqual(out, b"MAIL FROM:<ann@here.test> SIZE=4\r\nRCPT TO:<ok@far.test>\r\nDATA\r\n")
        talk.hear(OK + OK + b"354 go\r\n")
        talk.hear(OK)
        outcomes = self.outcomes(talk)
        self.assertEqual([outcome.reply.status for outcome in outcomes], ["5.6.7"] * 3 + ["2.0.0"])
        for what in (Envelope(bad[1], envelope().recipients), Envelope(SENDER, bad)):
            talk.events.clear()
            self.assertEqual(talk.begin(what), b"")
            self.assertTrue(all(outcome.reply.status == "5.6.7" for outcome in self.outcomes(talk)))
        self.assertTrue(talk.engine.reusable)

    def test_calls_out_of_turn(self) -> None:
        engine = ClientEngine("me.test")
        self.assertRaises(AssertionError, engine.begin, envelope(), 1)
        self.assertRaises(AssertionError, engine.content, b"x")
        self.assertRaises(AssertionError, engine.end)


class BreakingTests(EngineTests):
    def test_lost_keeps_what_is_settled(self) -> None:
        talk = self.greeted()
        talk.begin(envelope(2))
        talk.hear(OK + b"550 5.1.1 who?\r\n" + OK + b"354 go\r\n")
        self.assertEqual(talk.engine.awaiting, "end of data")
        talk.lost(Reply(442, (4, 2), "gone"))
        self.assertEqual(
            self.outcomes(talk),
            (
                Failed(Reply(550, (1, 1), "who?"), WHERE),
                Postponed(Reply(442, (4, 2), "gone"), WHERE),
            ),
        )
        self.assertEqual(self.failure(talk), Reply(442, (4, 2), "gone"))

    def test_lost_before_any_answer(self) -> None:
        talk = self.greeted()
        talk.begin()
        talk.lost(Reply(442, (4, 2), "gone"))
        self.outcomes(talk, untouched=True)

    def test_closing_for_a_while(self) -> None:
        for replies, untouched in (
            (b"", True),
            (OK, False),
            (OK + OK, False),
            (OK + OK + b"354 go\r\n", False),
        ):
            talk = self.greeted()
            talk.begin()
            talk.hear(replies + b"421 4.3.2 shutting down\r\n")
            self.assertEqual(
                self.outcomes(talk, untouched),
                (Postponed(Reply(421, (3, 2), "shutting down"), WHERE),),
            )
            self.assertEqual(self.failure(talk).code, 421)

    def test_nonsense(self) -> None:
        for junk in (
            b"\r\n", b"hello\r\n", b"25 x\r\n", b"2500 x\r\n", b"250x\r\n", b"150 x\r\n", b"650 x\r\n",
            b"250 ok\n",             b"250-a\r\n251 b\r\n", b"250-a\r\n\r\n", b"\xff\xfe\r\n", b" 250 x\r\n",
            b"250 " + b"x" * MAX_LINE,
            b"250-x\r\n" * (MAX_REPLY // 7 + 1),
            b"354 what?\r\n",
        ):  # fmt: skip
            talk = self.greeted()
            talk.begin()
            talk.hear(junk)
            (outcome,) = self.outcomes(talk, untouched=True)
            assert isinstance(outcome, Postponed)
            self.assertEqual(outcome.reply.status, "4.5.0", junk)
            self.assertTrue(str(outcome.reply).isprintable())
            self.failure(talk)

    def test_content_taken_without_asking(self) -> None:
        talk = self.greeted()
        talk.begin()
        talk.hear(OK + OK + OK)
        self.assertEqual(self.outcomes(talk)[0].reply.status, "4.5.0")
        self.failure(talk)

    def test_answered_before_it_was_asked(self) -> None:
        # Step by step, so not a conversation that is held again.
        talk = Talk().greet()
        talk.begin()
        talk.engine.receive(OK + b"550 5.1.1 who?\r\n354 go\r\n" + OK)
        self.assertIsNone(talk.engine.next_event(), "the lone dot is not sent yet")
        self.assertEqual(talk.engine.outgoing(), b".\r\n")
        self.assertIsInstance(talk.engine.next_event(), Finished)

    def test_354_for_the_content(self) -> None:
        talk = self.greeted()
        talk.begin()
        talk.hear(OK + OK + b"354 go\r\n")
        talk.hear(b"354 more\r\n")
        self.assertEqual(self.outcomes(talk)[0].reply.status, "4.5.0")

    def test_answered_before_the_end_of_the_content(self) -> None:
        engine = ClientEngine("me.test", WHERE)
        engine.receive(b"220 x\r\n")
        engine.next_event()
        engine.outgoing()
        engine.receive(EHLO)
        self.assertEqual(engine.next_event(), Ready())
        engine.begin(envelope(), 4)
        engine.receive(OK + OK + b"354 go\r\n")
        self.assertEqual(engine.next_event(), Proceed())
        engine.content(b"Hi")
        self.assertEqual(engine.awaiting, "content")
        self.assertEqual(engine.quit(), b"", "it would be content")
        engine.receive(b"552 5.3.4 enough\r\n")
        reply = Reply(552, (3, 4), "enough")
        self.assertEqual(engine.next_event(), Finished((Postponed(reply, WHERE),)))
        self.assertEqual(engine.next_event(), Broken(reply))
        self.assertEqual(engine.quit(), b"")

    def test_no_quit_that_might_be_content(self) -> None:
        for heard in (b"", OK, OK + OK, OK + OK + b"354 go\r\n"):
            talk = self.greeted()
            talk.begin()
            talk.hear(heard)
            self.assertEqual(talk.quit(), b"")

    def test_spoken_to_while_idle(self) -> None:
        talk = self.greeted()
        talk.hear(b"4")
        self.assertFalse(talk.engine.reusable)
        talk.hear(b"21 4.4.2 idle\r\n")
        self.assertEqual(self.failure(talk), Reply(421, (4, 2), "idle"))
        talk = self.greeted()
        talk.hear(b"250 surprise\r\n")
        self.assertEqual(self.failure(talk).status, "4.5.0")

    def test_quit(self) -> None:
        talk = self.greeted()
        self.assertEqual(talk.quit(), b"QUIT\r\n")
        self.assertEqual(talk.quit(), b"")
        self.assertFalse(talk.engine.reusable)
        talk.hear(b"221 2.0.0 bye\r\n")
        self.assertEqual(self.failure(talk), Reply(221, (0, 0), "bye"))


class ReplyTests(EngineTests):
    """Replies of a host go into logs, headers and reports."""

    def reply(self, raw: bytes) -> Reply:
        talk = self.greeted()
        talk.begin()
        talk.hear(OK + raw)
        talk.hear(b"503 no recipients\r\n")
        return self.outcomes(talk)[0].reply

    def test_lines_and_codes(self) -> None:
        for raw, reply in (
            (b"550-5.1.1 No such\r\n550 5.1.1 user\r\n", Reply(550, (1, 1), "No such\nuser")),
            (b"550-5.1.1 a\r\n550 5.1.10 b\r\n", Reply(550, (1, 1), "a\n5.1.10 b")),
            (b"550 5.1.1\r\n", Reply(550, (1, 1), "")),
            (b"550\r\n", Reply(550, None, "")),
            (b"550 4.1.1 no\r\n", Reply(550, None, "4.1.1 no")),
            (b"550 5.1 no\r\n", Reply(550, None, "5.1 no")),
            (b"550 5.1234.1 no\r\n", Reply(550, None, "5.1234.1 no")),
        ):
            self.assertEqual(self.reply(raw), reply)

    def test_A6_one_printable_line_each(self) -> None:
        reply = self.reply(b"550-a\rX-Evil: 1\0\x1b[2J\t\r\n550 b\xe9\x85\r\n")
        self.assertEqual(reply, Reply(550, None, "a?X-Evil: 1?[2J?\nb?"))
        self.assertTrue(str(reply).isascii() and str(reply).isprintable())

    def test_length(self) -> None:
        reply = self.reply(b"550-" + b"x" * 2000 + b"\r\n" + b"550-y\r\n" * 3000 + b"550 z\r\n")
        self.assertLessEqual(len(reply.text), 2000)


class EncoderTests(SynchronousTestCase):
    def encode(self, *pieces: bytes) -> bytes:
        encoder = Encoder()
        return b"".join([*map(encoder.encode, pieces), encoder.end()])

    def test_A2_content(self) -> None:
        for content, wire in (
            (b"", b".\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"),
            (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb", b"a.b\r\n.\r\n"),
            (b"a\r\r\n\r.\r\n", b"a\r\n..\r\n.\r\n"),
            (b"a\n\r.\r\nMAIL FROM:<x@y>\r\n", b"a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"),
            (b"a.b\r\n..c\r\n", b"a.b\r\n...c\r\n.\r\n"),
        ):
            self.assertEqual(self.encode(content), wire)
            self.assertEqual(self.encode(*[content[at : at + 1] for at in range(len(content))]), wire)
            for cut in range(len(content) + 1):
                self.assertEqual(self.encode(content[:cut], content[cut:]), wire)


class LocalDelivery(EngineTests):
    """LMTP: an answer for each recipient."""

    def addressed(self, recipients: int = 3) -> Talk:
        talk = self.talk(lmtp=True)
        self.assertEqual(talk.hear(b"220 mx.test LMTP\r\n"), b"LHLO me.test\r\n")
        talk.hear(EHLO)
        talk.events.clear()
        talk.begin(envelope(recipients))
        return talk

    def words(self, talk: Talk) -> list[str]:
        (finished,) = [event for event in talk.events if isinstance(event, Finished)]
        return [f"{type(outcome).__name__} {outcome.reply.code}" for outcome in finished.outcomes]

    def test_each_recipient_has_an_answer(self) -> None:
        for pieces in (1, 3):
            talk = self.addressed()
            talk.hear(OK * 2 + b"550 5.1.1 nobody\r\n" + OK + b"354 go\r\n")
            answers = [b"452 4.2.2 full\r\n", OK]
            for answer in [b"".join(answers)] if pieces == 1 else answers:
                talk.hear(answer)
            self.assertEqual(self.words(talk), ["Postponed 452", "Failed 550", "Delivered 250"])
            self.assertTrue(talk.engine.reusable)

    def test_lost_between_the_answers(self) -> None:
        talk = self.addressed(2)
        talk.hear(OK * 3 + b"354 go\r\n" + OK)
        talk.lost(Reply(442, (4, 2), "gone"))
        talk.look()
        self.assertEqual(self.words(talk), ["Delivered 250", "Postponed 442"])

    def test_nobody_is_left(self) -> None:
        talk = self.addressed(1)
        talk.hear(OK + b"550 5.1.1 nobody\r\n503 5.5.1 no recipients\r\n")
        self.assertEqual(self.words(talk), ["Failed 550"])
        talk = self.addressed(1)
        talk.hear(OK + b"550 5.1.1 nobody\r\n354 go\r\n")
        self.assertEqual(self.words(talk), ["Failed 550"])
        self.assertFalse(talk.engine.reusable)

    def test_a_host_that_does_not_know_it(self) -> None:
        talk = self.talk(lmtp=True)
        talk.hear(b"220 mx.test ESMTP\r\n")
        self.assertEqual(talk.hear(b"502 5.5.1 what\r\n"), b"")
        self.assertIsInstance(talk.events[-1], Broken)
