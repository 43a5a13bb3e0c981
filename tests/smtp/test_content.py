"""The content of a letter: where it ends, what of it is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Reply
from postoffice.smtp.content import (
    BARE_NEWLINE,
    LINE_LIMIT,
    LINE_TOO_LONG,
    TOO_BIG,
    BareNewline,
    ChunkDecoder,
    ContentDecoder,
)

MIB = 1 << 20


def decode(
    segments: Iterable[bytes], bare_newline: BareNewline = "normalize", max_size: int = 0
) -> tuple[bytes, bytes | None, ContentDecoder]:
    """The content, what is behind its end (None: it did not end), and the decoder."""
    decoder = ContentDecoder(bare_newline, max_size)
    content, rest = [], None
    for segment in segments:
        if rest is not None:
            rest += segment
            continue
        piece, rest = decoder.feed(segment)
        content.append(piece)
    return b"".join(content), rest, decoder


def reference(data: bytes) -> tuple[bytes, bytes | None]:
    """The same done the slow and plain way: find the end, then go line by line."""
    end = (b"\r\n" + data).find(b"\r\n.\r\n")
    if end < 0:
        return b"", None
    content = b""
    for line in data[:end].split(b"\r\n")[:-1]:
        line = line[1:] if line[:1] == b"." else line
        content += line.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    return content, data[end + 3 :]


CASES = [
    (b".\r\n", b""),
    (b"\r\n.\r\n", b"\r\n"),
    (b"a\r\n.\r\n", b"a\r\n"),
    (b"a\r\n\r\n.\r\n", b"a\r\n\r\n"),
    (b"..\r\n.\r\n", b".\r\n"),
    (b".a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n"),
    (b"a.\r\nb..\r\n.\r\n", b"a.\r\nb..\r\n"),
    (b"a\rb\nc\r\n.\r\n", b"ab\r\nc\r\n"),
    (b"a\r\r\n.\r\n", b"a\r\n"),
    (b"a\n\r\n.\r\n", b"a\r\n\r\n"),
    (b"a\r\n.\rb\r\n.\r\n", b"a\r\nb\r\n"),
    (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
    (b"a\n.b\r\n.\r\n", b"a\r\n.b\r\n"),
    (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
    (b"a\r.\rb\r\n.\r\n", b"a.b\r\n"),
    (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
    (b"\x00\xff\r\n.\r\n", b"\x00\xff\r\n"),
    (b"x" * 998 + b"\r\n.\r\n", b"x" * 998 + b"\r\n"),
]


class Decoding(SynchronousTestCase):
    def test_cases(self) -> None:
        for data, content in CASES:
            self.assertEqual(reference(data), (content, b""), data)
            for trailing in (b"", b"QUIT\r\n", b"\r\n.\r\n"):
                for cut in (
                    [data + trailing],
                    [(data + trailing)[at : at + 1] for at in range(len(data + trailing))],
                ):
                    decoded, rest, decoder = decode(cut)
                    self.assertEqual((decoded, rest), (content, trailing), data)
                    self.assertEqual((decoder.size, decoder.defect), (len(data) - 3, None), data)

    def test_split_at_every_index(self) -> None:
        for data, content in CASES:
            for at in range(len(data)):
                self.assertEqual(decode([data[:at], data[at:]])[:2], (content, b""), (data, at))

    def test_without_an_end(self) -> None:
        for data, _ in CASES:
            for at in range(len(data)):
                self.assertIsNone(decode([data[:at]])[1], (data, at))

    def test_memory_is_bounded(self) -> None:
        """Everything but the few octets that may begin the end is handed out at once."""
        decoder = ContentDecoder()
        for _ in range(100):
            self.assertGreaterEqual(len(decoder.feed(b"x" * 100 + b"\r\n.\r")[0]), 100)

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\0"]), max_size=30),
        st.data(),
    )
    @example([b"\r\n.", b"\r", b"\n."], None)
    def test_equals_the_reference(self, pieces: list[bytes], data: st.DataObject | None) -> None:
        stream = b"".join(pieces) + b"\r\n.\r\nQUIT\r\n"
        content, rest = reference(stream)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6))) if data else [3]
        segments = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(decode(segments)[:2], (content, rest))
        decoded, rest_too, decoder = decode(segments, "reject")
        raw = stream[: len(stream) - len(rest or b"") - 3]
        bare = raw.replace(b"\r\n", b"")
        self.assertEqual(rest_too, rest)
        self.assertEqual(decoder.defect, BARE_NEWLINE if b"\r" in bare or b"\n" in bare else None)
        if decoder.defect is None:
            self.assertEqual(decoded, content)


class Chunks(SynchronousTestCase):
    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\0"]), max_size=30),
        st.data(),
    )
    def test_however_they_are_cut(self, pieces: list[bytes], data: st.DataObject) -> None:
        stream = b"".join(pieces)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        plain = stream.replace(b"\r", b"").replace(b"\n", b"\r\n")
        plain += b"\r\n" if plain and not plain.endswith(b"\n") else b""
        bare = stream.replace(b"\r\n", b"")
        for mode in ("normalize", "reject"):
            decoder = ChunkDecoder(mode)
            decoded = b""
            for chunk in chunks:
                decoder.begin(len(chunk))
                decoded += decoder.feed(chunk)
            decoded += decoder.finish()
            self.assertEqual(decoder.size, len(stream))
            if mode == "reject" and (b"\r" in bare or b"\n" in bare):
                self.assertEqual(decoder.defect, BARE_NEWLINE)
            else:
                self.assertEqual((decoded, decoder.defect), (plain, None))


class Defects(SynchronousTestCase):
    def check(
        self, data: bytes, defect: Reply | None, bare_newline: BareNewline = "normalize", max_size: int = 0
    ) -> None:
        """However it is cut up, the defect is the same, and reading goes on to the real end."""
        stream = data + b".\r\nQUIT\r\n"
        for step in (len(stream), 1, 7, 4096, 65536):
            if step == 1 and len(stream) > 50_000:
                continue
            segments = [stream[at : at + step] for at in range(0, len(stream), step)]
            decoded, rest, decoder = decode(segments, bare_newline, max_size)
            self.assertEqual((rest, decoder.defect, decoder.size), (b"QUIT\r\n", defect, len(data)), step)
            if defect is None:
                self.assertEqual(decoded, reference(stream)[0])

    def test_bare_newlines_may_be_refused(self) -> None:
        for data in [
            b"a\nb\r\n",
            b"a\rb\r\n",
            b"\n\r\n",
            b"a\r\r\n",
            b"a\n\r\n",
            b"\r\n.\r.\n\r\n",
            b"a\r\n.\rb\r\n",
            b"\n\r\r\n",
        ]:
            self.check(data, BARE_NEWLINE, "reject")
            self.check(data, None)
        self.check(b"a\r\n..b\r\n\r\n", None, "reject")

    def test_A3_long_lines(self) -> None:
        line = b"x" * LINE_LIMIT
        self.check(line + b"\r\n", None)
        self.check(line + b"x\r\n", LINE_TOO_LONG)
        self.check(b"a\r\n" * 5000 + line + b"\r\n" + line + b"\r\n", None)
        self.check(b"a\r\n" * 5000 + line + b"x\r\n" + b"a\r\n" * 5000, LINE_TOO_LONG)
        self.check(b"\r\n" + line + b"\n" + line + b"\r\n", None)
        self.check(b"." + line + b"\r\n", None)
        self.check(b".." + line + b"\r\n", LINE_TOO_LONG)
        self.check(b"x" * 20_000 + b"\r\nMAIL FROM:<ceo@example.org>\r\n", LINE_TOO_LONG)
        self.check(b"x" * MIB + b"\r\n", LINE_TOO_LONG)

    def test_A9_size(self) -> None:
        self.check(b"x" * 98 + b"\r\n", None, max_size=100)
        self.check(b"x" * 99 + b"\r\n", TOO_BIG, max_size=100)
        self.check(b".." + b"x" * 96 + b"\r\n", None, max_size=100)
        self.check(b".." + b"x" * 97 + b"\r\n", TOO_BIG, max_size=100)
        self.check(b"a\r\n" * 100_000, TOO_BIG, max_size=100)

    def test_the_gravest_is_told(self) -> None:
        self.check(b"a\n" + b"x" * 20_000 + b"\r\n", LINE_TOO_LONG, "reject")
        self.check(b"a\n" + b"x" * 20_000 + b"\r\n", TOO_BIG, "reject", 100)

    def test_nothing_is_yielded_after_a_defect(self) -> None:
        for arguments in [("normalize", 4), ("reject", 0)]:
            decoder = ContentDecoder(*arguments)
            self.assertEqual(decoder.feed(b"ab\r\n1")[0], b"ab\r\n1"[: 0 if arguments[1] else 5])
            decoder.feed(b"a\nb")
            self.assertEqual(decoder.feed(b"c\r\nmore\r\n")[0], b"")
            self.assertEqual(decoder.feed(b".\r\n"), (b"", b""))
