"""The replies of an SMTP server, out of a stream of bytes. RFC 5321 section 4.2, RFC 2034.

Used by the client engine. Strict, and bounded in memory: lines end with CRLF, all lines of a reply carry
the same code, a line and a reply have a largest size; anything else raises `Nonsense`, after which the
stream cannot be trusted and the session has to end. What comes out is fit for logs, headers and reports:
printable ASCII, cut to a sensible length, whatever the host sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

from postoffice.mail.reply import Reply, printable

MAX_LINE = 2048
MAX_REPLY = 65536
MAX_TEXT = 2000

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\n]*))?\r\n")
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|\Z)")


class Nonsense(Exception):
    """What the host sent is no SMTP reply; the message says what is wrong with it."""


@frozen
class Answer:
    """One reply: its code and the text of its lines, as the host wrote them (Latin-1)."""

    code: int
    lines: tuple[str, ...]

    def reply(self) -> Reply:
        """The reply as a value.

        An enhanced code counts if its class is that of the code; it is taken from the first line and removed
        from each line that repeats it.
        """
        found = _ENHANCED.match(self.lines[0])
        if found is None or int(found[1]) != self.code // 100:
            return Reply(self.code, None, _text(self.lines))
        code = found[0].rstrip()
        lines = (
            line[len(code) :].lstrip() if f"{line} ".startswith(f"{code} ") else line for line in self.lines
        )
        return Reply(self.code, (int(found[2]), int(found[3])), _text(lines))


class AnswerBuffer:
    """Bytes received and not yet made an answer."""

    __slots__ = ("_at", "_code", "_data", "_lines", "_size")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._code = b""
        self._lines: list[str] = []
        self._size = 0

    def __bool__(self) -> bool:
        """Whether anything is held, be it the beginning of a reply only."""
        return self._at < len(self._data) or bool(self._lines)

    def receive(self, data: bytes) -> None:
        """Append what came from the host."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def take(self) -> Answer | None:
        """The next complete reply, `None` where more bytes are needed. Errors: `Nonsense`."""
        while True:
            end = self._data.find(b"\n", self._at) + 1
            length = (end or len(self._data)) - self._at
            if length > MAX_LINE or self._size + length > MAX_REPLY:
                raise Nonsense("a reply without end")
            if not end:
                return None
            line = _LINE.fullmatch(self._data, self._at, end)
            if line is None or (self._lines and line[1] != self._code):
                raise Nonsense(f"no reply: {_excerpt(self._data[self._at : end])}")
            self._at = end
            self._lines.append((line[3] or b"").decode("latin-1"))
            if line[2] != b"-":
                answer = Answer(int(line[1]), tuple(self._lines))
                self._lines, self._size = [], 0
                return answer
            self._code = line[1]
            self._size += length


def _text(lines: Iterable[str]) -> str:
    return "\n".join(map(printable, lines))[:MAX_TEXT]


def _excerpt(line: bytes) -> str:
    return printable(line.decode("latin-1").rstrip("\r\n"), 80)
