"""Whatever bytes come, in whatever pieces: events or refusals, the same ones, and never an exception."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Reply
from postoffice.smtp.commands import OPTIONAL
from postoffice.smtp.content import BareNewline
from postoffice.smtp.events import Content, EndOfChunk, EndOfContent, Event, Mail, Rcpt, Refused
from postoffice.smtp.phases import Phase
from postoffice.smtp.server import AUTH_LIMIT, ServerEngine
from postoffice.smtp.server import IMPROPER_PIPELINING as IMPROPER
from tests.smtp.dialogue import BANNER, UNANSWERED, Policy, Transcript, challenging, each_byte, talk

WORDS = st.sampled_from(
    [
        b"HELO x\r\n",
        b"EHLO [192.0.2.1]\r\n",
        b"MAIL FROM:<a@b> SIZE=9\r\n",
        b"MAIL FROM:<>\r\n",
        b"MAIL FROM:<\xc3\xa9@b> SMTPUTF8 RET=HDRS ENVID=x\r\n",
        b"RCPT TO:<\xc3\xa9@\xc3\xa9.example> NOTIFY=NEVER ORCPT=utf-8;\xc3\xa9\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<nobody@d>\r\n",
        b"DATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY x\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"Zm9v\r\n",
        b"*\r\n",
        b"ETRN example.org\r\n",
        b"XCLIENT NAME=x\r\n",
        b"DEBUG\r\n",
        b"GET /\r\n",
        b"BDAT 0\r\n",
        b"BDAT 9\r\n",
        b"BDAT 9 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 200\r\n",
        b"BDAT 20000\r\n",
        b"BDAT x\r\n",
        b"\r\n.\r\n",
        b".",
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\0",
        b"\xff",
        b"x" * 600,
        b"x" * 3000,
        b"x" * 17_000,
        b"\x16\x03",
    ]
)
ENVELOPE = st.sampled_from(
    [
        [b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"],
        [b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 12\r\n"],
        [b"AUTH LOGIN\r\n"],
    ]
)
STREAMS = st.one_of(
    st.binary(max_size=300),
    st.lists(WORDS, max_size=20).map(b"".join),
    st.lists(st.sampled_from([b"\r", b"\n", b"."])).map(b"".join),
)
GROUPS = st.builds(lambda a, b: [*a, *b], st.one_of(st.just([]), ENVELOPE), st.lists(STREAMS, max_size=5))
MODES = st.sampled_from(["normalize", "reject"])
POLICY = challenging(accepted=b"Zm9v", refused=b"*")


def grumpy(event: Event) -> Reply:
    """Refuse what can be refused for a while, but the first steps of a transaction."""
    return POLICY(event) if isinstance(event, Refused | Mail | Rcpt) else Reply(450, (3, 0), "Not now")


class Engine(ServerEngine):
    """Offers everything; a client that is told to start TLS has done so at once."""

    def __init__(
        self, bare_newline: BareNewline = "normalize", max_size: int = 0, lenient_order: bool = False
    ) -> None:
        super().__init__(bare_newline, max_size, offered=OPTIONAL, lenient_order=lenient_order)

    def answer(self, reply: Reply) -> bytes:
        sent = super().answer(reply)
        if self._phase is Phase.TLS:
            self.secured()
        return sent


def letters(events: list[Event]) -> list[Event]:
    """The events without the content of letters that were refused: how much of it came is left open."""
    kept: list[Event] = []
    for event in events:
        if (
            isinstance(event, EndOfContent | EndOfChunk)
            and event.defect
            and kept
            and type(kept[-1]) is Content
        ):
            kept.pop()
        kept.append(event)
    if kept and type(kept[-1]) is Content:
        kept.pop()
    return kept


def replies(told: Transcript) -> int:
    return sum(not isinstance(event, UNANSWERED) for event in told.events)


class Properties(SynchronousTestCase):
    @settings(deadline=None, max_examples=300)
    @given(GROUPS, MODES, st.sampled_from([0, 100]), st.booleans(), st.sampled_from([POLICY, grumpy]))
    def test_whole_equals_byte_by_byte(
        self, groups: list[bytes], mode: BareNewline, size: int, lenient: bool, policy: Policy
    ) -> None:
        """But for pipelining: byte by byte, a client seems to wait for every reply."""
        one = talk(groups, policy=policy, engine=Engine(mode, size, lenient))
        many = talk(groups, each_byte, policy, Engine(mode, size, lenient))
        last = one.events[-1] if one.events else None
        if isinstance(last, Refused) and last.reply == IMPROPER:
            before = letters(one.events[:-1])
            self.assertEqual(letters(many.events)[: len(before)], before)
        else:
            self.assertEqual(letters(one.events), letters(many.events))
            self.assertEqual(one.sent, many.sent)
            self.assertEqual(one.engine.closing, many.engine.closing)

    @settings(deadline=None, max_examples=300)
    @given(GROUPS, MODES)
    def test_one_reply_an_event_and_bounded_memory(self, groups: list[bytes], mode: BareNewline) -> None:
        for group in groups:
            told = talk([group], policy=POLICY, engine=Engine(mode))
            self.assertEqual(told.sent.count(b"\r\n"), 1 + replies(told))
            self.assertLess(told.engine.buffered, AUTH_LIMIT + 4)

    @settings(deadline=None, max_examples=200)
    @given(STREAMS, st.integers(0, 400))
    def test_answers_that_come_late_change_nothing(self, stream: bytes, at: int) -> None:
        """Bytes that arrive while an event is unanswered are the same as bytes that were there before."""
        one = talk([stream], policy=POLICY, engine=Engine())
        late = Transcript(Engine())
        late.sent = late.engine.greet(BANNER)
        late.engine.receive(stream[:at])
        late.engine.receive(stream[at:])
        late.run(POLICY)
        self.assertEqual((late.events, late.sent), (one.events, one.sent))
