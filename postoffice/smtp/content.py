"""The content of a letter out of the bytes behind DATA, or out of chunks.

Used by the server engine, one decoder a letter. Behind DATA only CRLF.CRLF ends the content (RFC 5321
section 4.1.1.4), decided on the bytes as they came; then stuffed dots are removed on lines that began
after a real CRLF (section 4.5.2). Chunks (RFC 3030) are counted octets, and dots mean nothing in them.
Last, in both, bare CRs are dropped and bare LFs become CRLF. A defect never ends the content: it is
remembered, nothing more is yielded, and reading goes on to the real end.

Content is never walked line by line: a segment costs a few searches and copies in C, whatever is in
it, and at most four octets are carried from one segment to the next.
"""

from __future__ import annotations

from typing import Literal

from postoffice.mail.reply import Reply
from postoffice.smtp.dots import find_dot_line

BareNewline = Literal["normalize", "reject"]

LINE_LIMIT = 16384
"""The longest line, in octets without its line end; lines end at any LF, as they will be stored."""

TOO_BIG = Reply(552, (3, 4), "The message is larger than is accepted here")
LINE_TOO_LONG = Reply(554, (5, 2), "A line of the message is too long")
BARE_NEWLINE = Reply(550, (5, 2), "Lines must end with CR LF; a bare CR or LF is not accepted here")

_END = b"\r\n.\r\n"
_HELD = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


class _Decoder:
    """What both have in common. `size` counts octets as received, `max_size` limits it; 0 for no limit."""

    __slots__ = ("_bare", "_line", "_long", "_max_size", "_reject", "size")

    def __init__(self, bare_newline: BareNewline = "normalize", max_size: int = 0) -> None:
        self.size = 0
        self._reject = bare_newline == "reject"
        self._max_size = max_size
        self._line = 0
        self._long = False
        self._bare = False

    @property
    def defect(self) -> Reply | None:
        """Why the letter must be refused; the gravest where there are several, however it was cut up."""
        if self._max_size and self.size > self._max_size:
            return TOO_BIG
        if self._long:
            return LINE_TOO_LONG
        return BARE_NEWLINE if self._bare else None

    def _normalise(self, raw: bytes) -> bytes:
        """Lines as they are to be stored, in which no CRLF may be cut in two; nothing after a defect."""
        # All CRs can go and all LFs be given one. Searching for single bytes, this is faster than finding
        # out whether there is anything to do.
        text = raw.replace(b"\r", b"").replace(b"\n", b"\r\n")
        if self._reject and text != raw:
            self._bare = True
        self._measure(text)
        return b"" if self.defect else text

    def _measure(self, text: bytes) -> None:
        """Note whether a line exceeds the limit, by strides of the limit instead of line by line."""
        if self._long:
            return
        begin, size = -self._line, len(text)
        while size - begin > LINE_LIMIT:
            newline = text.rfind(b"\n", max(begin, 0), begin + LINE_LIMIT + 2)
            if newline < 0:
                self._long = True
                break
            begin = newline + 1
        newline = text.rfind(b"\n")
        self._line = self._line + size if newline < 0 else size - newline - 1


class ContentDecoder(_Decoder):
    """Decodes what comes behind DATA."""

    __slots__ = ("_held", "_virtual")

    def __init__(self, bare_newline: BareNewline = "normalize", max_size: int = 0) -> None:
        super().__init__(bare_newline, max_size)
        # The content begins as if behind a CRLF, so that a dot on its first line counts.
        self._held = b"\r\n"
        self._virtual = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Decode a segment: the content in it (maybe empty), and what came behind the end.

        None for the latter means that the end has not come. After a defect the content is empty.
        """
        data = self._held + data
        # Mostly the end is the last there is, and not worth a search.
        last = len(data) - len(_END) if data.endswith(_END) else -1
        dot = find_dot_line(data, len(data) if last < 0 else last + 2)
        end = last if dot < 0 else data.find(_END, dot)
        if end >= 0:
            return self._decode(data[: end + 2], 0 <= dot < end), data[end + 5 :]
        self._held = next((held for held in _HELD if data.endswith(held)), b"")
        return self._decode(data[: len(data) - len(self._held)], dot >= 0), None

    def _decode(self, raw: bytes, dots: bool) -> bytes:
        if not raw:
            return b""
        skip, self._virtual = self._virtual, 0
        self.size += len(raw) - skip
        if dots:
            raw = raw.replace(b"\r\n.", b"\r\n")
        text = self._normalise(raw)
        return text[skip:] if skip else text


class ChunkDecoder(_Decoder):
    """Decodes chunks: `begin` each, `feed` its octets as they come, `finish` behind the last."""

    __slots__ = ("_announced", "_cr")

    def __init__(self, bare_newline: BareNewline = "normalize", max_size: int = 0) -> None:
        super().__init__(bare_newline, max_size)
        self._announced = 0
        # A CR that came last may be the first half of a CRLF.
        self._cr = False

    @property
    def defect(self) -> Reply | None:
        """As for any content; a chunk that will be too much is known before its first octet."""
        return TOO_BIG if 0 < self._max_size < self._announced else super().defect

    def begin(self, octets: int) -> None:
        """A chunk of so many octets follows."""
        self._announced = self.size + octets

    def feed(self, data: bytes) -> bytes:
        """Decode a piece of a chunk: the content in it, maybe empty, and so after a defect."""
        self.size += len(data)
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        return self._normalise(data[:-1] if self._cr else data)

    def finish(self) -> bytes:
        """What is left: the CRLF that the last line may lack."""
        if self._cr:
            self._normalise(b"\r")
        return self._normalise(b"\r\n") if self._line else b""
