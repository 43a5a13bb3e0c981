from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.lines import LineWriter

LETTERS = st.lists(
    st.sampled_from(
        [b"From ", b">", b">>From x", b"F", b"Fro", b"From", b"\r\n", b"\r", b" ", b"x", b"\r\nFrom "]
    )
).map(b"".join)


def stored(pieces: list[bytes], *, quote: bool) -> bytes:
    lines = LineWriter(quote=quote)
    return b"".join([*map(lines.feed, pieces), lines.finish()])


def unquoted(text: bytes) -> bytes:
    return re.sub(rb"(?m)^>(>*From )", rb"\1", text)


class LineWriterTests(SynchronousTestCase):
    def test_line_ends(self) -> None:
        self.assertEqual(stored([b"a\r\nb\r\n\r\nFrom c\r\n"], quote=False), b"a\nb\n\nFrom c\n")

    def test_quoting(self) -> None:
        for line, quoted in (
            (b"From x", b">From x"),
            (b"From ", b">From "),
            (b">From x", b">>From x"),
            (b">>>From x", b">>>>From x"),
            (b"From", b"From"),
            (b"From:", b"From:"),
            (b"from x", b"from x"),
            (b" From x", b" From x"),
            (b"> From x", b"> From x"),
            (b"x From y", b"x From y"),
            (b"From From ", b">From From "),
        ):
            for before, after in ((b"", b""), (b"a\r\n", b"\r\nb\r\n")):
                expected = (before + quoted + after).replace(b"\r\n", b"\n")
                self.assertEqual(stored([before + line + after], quote=True), expected)
                split = [bytes([octet]) for octet in before + line + after]
                self.assertEqual(stored(split, quote=True), expected)

    def test_what_is_held_back_is_bounded(self) -> None:
        lines = LineWriter(quote=True)
        given = b">" * 100_000
        self.assertEqual(lines.feed(given), given)
        self.assertEqual(lines.feed(b"From"), b"")
        self.assertEqual(lines.feed(b" x"), b">From x")

    @given(LETTERS)
    def test_quoting_can_be_undone(self, letter: bytes) -> None:
        text = stored([letter], quote=True)
        self.assertNotRegex(text, rb"(?m)^From ")
        self.assertEqual(unquoted(text), letter.replace(b"\r\n", b"\n"))

    @given(LETTERS, st.lists(st.integers(0, 60)), st.booleans())
    def test_pieces_make_no_difference(self, letter: bytes, cuts: list[int], quote: bool) -> None:
        places = sorted({0, len(letter), *(cut for cut in cuts if cut < len(letter))})
        pieces = [letter[begin:end] for begin, end in pairwise(places)]
        self.assertEqual(stored(pieces, quote=quote), stored([letter], quote=quote))
