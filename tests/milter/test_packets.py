"""Packets and what answers mean: each form by its octets, and any octets at all."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Reply
from postoffice.milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Hold,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from postoffice.milter.packets import LONGEST, Decoder, Malformed, answer_of, packet, strings
from postoffice.milter.verdicts import CLOSED, PUT_OFF, REJECTED, Accept, Continue, Discard, Refuse, reply_of


class Framing(SynchronousTestCase):
    def test_a_packet(self) -> None:
        self.assertEqual(packet(b"A"), b"\0\0\0\1A")
        self.assertEqual(packet(b"H", b"me\0"), b"\0\0\0\4Hme\0")

    def test_strings_end_in_one_nul(self) -> None:
        self.assertEqual(strings([b"<a@b>", b"SIZE=1"]), b"<a@b>\0SIZE=1\0")
        self.assertEqual(strings([b"a\0b"]), b"a b\0")

    @given(
        st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.binary(max_size=40)), max_size=5),
        st.integers(1, 9),
    )
    def test_round_trip_in_pieces(self, sent: list[tuple[bytes, bytes]], step: int) -> None:
        stream = b"".join(packet(code, data) for code, data in sent)
        decoder, found = Decoder(LONGEST), []
        for start in range(0, len(stream), step):
            decoder.feed(stream[start : start + step])
            while (one := decoder.next()) is not None:
                found.append(one)
        self.assertEqual(found, sent)

    def refused(self, data: bytes, longest_body: int = 100) -> None:
        decoder = Decoder(longest_body)
        decoder.feed(data)
        self.assertRaises(Malformed, decoder.next)

    def test_E4_lengths_are_looked_at_before_anything_is_kept(self) -> None:
        self.refused(b"\0\0\0\0c")
        self.refused(b"\xff\xff\xff\xffc")
        self.refused(struct.pack(">I", LONGEST + 1) + b"h")
        self.refused(struct.pack(">I", 101) + b"b")
        decoder = Decoder(100)
        decoder.feed(struct.pack(">I", LONGEST) + b"h")
        self.assertIsNone(decoder.next())


class Answers(SynchronousTestCase):
    def test_verdicts(self) -> None:
        for code, verdict in (
            (b"c", Continue()),
            (b"a", Accept()),
            (b"d", Discard()),
            (b"r", Refuse(REJECTED)),
            (b"t", Refuse(PUT_OFF)),
            (b"4", Refuse(CLOSED)),
            (b"f", Refuse(CLOSED)),
        ):
            self.assertEqual(answer_of(code, b""), verdict)
            self.assertRaises(Malformed, answer_of, code, b"x")

    def test_edits(self) -> None:
        number = b"\0\0\0\2"
        for code, data, edit in (
            (b"h", b"X-A\0v\0", AddHeader(b"X-A", b"v")),
            (b"h", b"X-A\0v", AddHeader(b"X-A", b"v")),
            (b"h", b"X-A\0\0", AddHeader(b"X-A", b"")),
            (b"i", number + b"X-A\0 v\n\tw\0", InsertHeader(2, b"X-A", b" v\n\tw")),
            (b"m", number + b"X-A\0\0", ChangeHeader(2, b"X-A", b"")),
            (b"b", b"a\0b", ReplaceBody(b"a\0b")),
            (b"b", b"", ReplaceBody(b"")),
            (b"+", b"<a@b>\0", AddRecipient(b"<a@b>")),
            (b"2", b"<a@b>\0NOTIFY=NEVER ORCPT=x\0", AddRecipient(b"<a@b>", b"NOTIFY=NEVER ORCPT=x")),
            (b"2", b"<a@b>\0", AddRecipient(b"<a@b>")),
            (b"-", b"a@b", RemoveRecipient(b"a@b")),
            (b"e", b"<>\0", ChangeSender(b"<>")),
            (b"e", b"<a@b>\0RET=HDRS\0ENVID=1\0", ChangeSender(b"<a@b>", b"RET=HDRS ENVID=1")),
            (b"q", b"odd\0", Hold(b"odd")),
            (b"q", b"", Hold(b"")),
        ):
            self.assertEqual(answer_of(code, data), edit)

    def test_what_is_malformed(self) -> None:
        for code, data in (
            (b"h", b"X-A"),
            (b"h", b"a\0b\0c\0"),
            (b"i", b"\0\0\1"),
            (b"i", b"\0\0\0\1X-A"),
            (b"m", b""),
            (b"+", b"a\0b\0"),
            (b"q", b"a\0b\0"),
            (b"y", b"250 fine\0"),
            (b"y", b"\0"),
            (b"Z", b""),
            (b"\0", b""),
            (b"O", b""),
        ):
            self.assertRaises(Malformed, answer_of, code, data)

    @given(st.binary(min_size=1, max_size=1), st.binary(max_size=60))
    def test_any_octets_mean_something_or_are_malformed(self, code: bytes, data: bytes) -> None:
        try:
            answer_of(code, data)
        except Malformed:
            pass


class Replies(SynchronousTestCase):
    def test_the_filters_own_words(self) -> None:
        for text, reply in (
            (b"550 5.7.1 no", Reply(550, (7, 1), "no")),
            (b"451 4.7.1 later", Reply(451, (7, 1), "later")),
            (b"421 4.3.2 bye", Reply(421, (3, 2), "bye")),
            (b"554 no class", Reply(554, None, "no class")),
            (b"550 4.7.1 wrong class", Reply(550, None, "wrong class")),
            (b"550 5.7.1234 odd", Reply(550, None, "5.7.1234 odd")),
            (b"550", Reply(550, None, REJECTED.text)),
            (b"550 5.7.1", Reply(550, (7, 1), REJECTED.text)),
            (
                b"550-5.7.1 first 100%% line\r\n550 5.7.1 second",
                Reply(550, (7, 1), "first 100% line\nsecond"),
            ),
            (b"550 5.7.1 100% and %s", Reply(550, (7, 1), "100% and %s")),
            (b"550 5.7.1 a\x07b\x00\xe9c", Reply(550, (7, 1), "a?b??c")),
        ):
            self.assertEqual(reply_of(text), reply, text)

    def test_what_is_not_well_formed_gets_the_usual_words(self) -> None:
        for text in (b"5xx", b"550-a\r\n551 b", b"550 a\r\n550 b", b"550-a", b"550-a\r\nb", b"55", b"550:no"):
            self.assertEqual(reply_of(text), REJECTED, text)
        self.assertEqual(reply_of(b"4"), PUT_OFF)
        self.assertEqual(reply_of(b"\r\n".join([b"550-a"] * 40 + [b"550 b"])), REJECTED)

    def test_other_classes_are_no_refusal(self) -> None:
        for text in (b"", b"250 ok", b"no", b" 550 x"):
            self.assertIsNone(reply_of(text), text)

    def test_long_lines_are_wrapped(self) -> None:
        reply = reply_of(b"550 5.7.1 " + b"word " * 180)
        assert reply is not None
        self.assertTrue(all(len(line) <= 510 for line in reply.encode().split(b"\r\n")))
        self.assertEqual(reply.text.replace("\n", " ").split(), ["word"] * 180)
        reply = reply_of(b"450 " + b"x" * 2000)
        assert reply is not None
        self.assertTrue(all(len(line) <= 510 for line in reply.encode().split(b"\r\n")))

    @given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda text: b"550 " + text)))
    def test_A6_any_text_is_one_reply_on_the_wire(self, text: bytes) -> None:
        reply = reply_of(text)
        if reply is None:
            return
        lines = reply.encode().split(b"\r\n")
        self.assertEqual(lines.pop(), b"")
        for number, line in enumerate(lines):
            self.assertRegex(
                line, rb"\A[45][0-9][0-9]%b[ -~]*\Z" % (b" " if number == len(lines) - 1 else b"-")
            )
            self.assertEqual(line[:3], lines[0][:3])
