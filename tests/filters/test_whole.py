"""Whole sessions with a milter that sends anything: it costs its own verdict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postoffice.config.values import Disposition
from postoffice.filters.chain import Chain
from postoffice.filters.milter import Milter, MilterSettings
from postoffice.filters.terms import ChainSettings, OnError, Terms
from postoffice.milter.packets import packet
from tests.filters.fake import PATH, Network
from tests.filters.test_screening import HELO, LETTER, MAIL, RCPT, FiltersCase
from tests.queue.support import Directory

CODES = st.sampled_from([bytes([code]) for code in b"cartdsyhimb+2-eqpO4fZ"])
DATA = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [b"", b"550 5.7.1 no\0", b"X\0v\0", b"\0\0\0\1Subject\0t\0", b"<x@example.org>\0", b"\xff" * 9]
    ),
)
SAID = st.lists(st.one_of(st.builds(packet, CODES, DATA), st.binary(max_size=12)), max_size=4).map(b"".join)
LINES = (
    "HELO client.example",
    "NONSENSE",
    "MAIL FROM:<a@example.net>",
    "RCPT TO:<bob@example.org>",
    "DATA",
    "Subject: s\r\n\r\ntext\r\n.",
    "RSET",
    "QUIT",
)
EVENTS = st.sampled_from([bytes([code]) for code in b"OCHMRTLNBEU"])


class WholeCase(FiltersCase):
    def milter(
        self, answers: dict[bytes, bytes], on_error: OnError = "tempfail", spam: str = "bounce"
    ) -> None:
        """One milter that says this, for the sessions to come."""
        self.setUp()
        self.network = Network()
        self.network.answers = dict(answers)
        office = self.door.office
        self.door.change(errors=0)
        settings = MilterSettings(path=PATH, longest_body=1000)
        self.door.factory.filters = Chain(
            [(Milter(settings, self.network, self.network, office.journal.warning), Terms(on_error))],
            ChainSettings("mx.example.org", Disposition(spam)),  # type: ignore[arg-type]
            Directory(),
            self.policy,
            office.journal,
            office.spool.new_id,
            office.clock,
        )


class Holds(WholeCase):
    """A milter that wants letters on hold, accepts them, and has nothing more to say."""

    def test_E4_a_hold_stays_when_the_filter_has_gone(self) -> None:
        for event, client_too in ((b"C", True), (b"H", True), (b"M", False), (b"R", False), (b"T", False)):
            self.milter({event: packet(b"q", b"odd\0") + packet(b"a")})
            visit = self.visit()
            self.say(visit, HELO)
            for line in (MAIL, RCPT, "DATA"):
                self.say(visit, line)
                if event in (b"C", b"H", line[:1].encode(), line[2:3].encode()):
                    self.network.last.hang_up()
            self.assertEqual(self.codes(self.say(visit, LETTER)), ["250"], event)
            self.assertEqual(self.held(), [f"odd (filter {PATH})"], event)
            # It was not asked about the content, so it has said nothing about it.
            said = self.door.office.journal.named("filtered")
            self.assertFalse([one for one in said if " content: " in one], said)
            self.letter(visit)
            self.assertEqual(len(self.held()), 2, event)
            self.assertEqual(len(self.network.connections), 1 if client_too else 2)

    def test_a_hold_goes_with_a_filter_that_breaks_before_its_last_word(self) -> None:
        self.milter({b"M": packet(b"q", b"odd\0") + packet(b"c")}, "accept")
        visit = self.greeted()
        self.say(visit, MAIL, RCPT, "DATA")
        self.network.last.hang_up()
        self.assertEqual(self.codes(self.say(visit, LETTER)), ["250"])
        self.assertEqual((self.held(), len(self.door.contents())), ([], 1))


class Anything(WholeCase):
    @given(
        st.dictionaries(EVENTS, SAID, min_size=1, max_size=3),
        st.sampled_from(["tempfail", "accept", "reject", "shutdown", "quarantine"]),
        st.sampled_from(["bounce", "accept"]),
    )
    def test_E4_any_octets_cost_a_verdict(
        self, answers: dict[bytes, bytes], on_error: OnError, spam: str
    ) -> None:
        self.milter(answers, on_error, spam)
        visit = self.visit()
        for line in LINES:
            if visit.closed:
                break
            answer = visit.send(line.encode() + b"\r\n")
            if not answer:
                # It waits for more of a packet that was begun.
                self.network.advance(300)
                answer = visit.heard()
            self.assertRegex(answer, rb"\A(?:[2345][0-9][0-9][ -][ -~]*\r\n)+\Z")
        visit.leave()
        self.assertEqual(self.door.office.journal.named("error"), [])
        self.assertEqual([call for call in self.network.getDelayedCalls() if call.active()], [])
