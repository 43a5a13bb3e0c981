"""The text of a letter as mailbox files hold it: LF line ends, and quoted `From ` lines in an mbox.

The quoting is that of mboxrd: every line of any number of `>` and then `From ` gets one more `>`,
so that it can be undone exactly. Works on pieces of any size, and holds back at most five octets
however long a line is.
"""

from __future__ import annotations

import re

_FROM = b"From "
_LINE = re.compile(rb"^(?=>*+From )", re.MULTILINE)


class LineWriter:
    """Turns a letter in CRLF form, fed piece by piece, into its stored form."""

    def __init__(self, *, quote: bool) -> None:
        self._quote = quote
        self._held = b""
        # Whether what comes next follows a line's beginning and nothing but `>`.
        self._fresh = True

    def feed(self, piece: bytes) -> bytes:
        """The stored form of the next piece, except for what can be told only from what follows."""
        data = self._held + piece if self._held else piece
        end = b""
        if data.endswith(b"\r"):
            data, end = data[:-1], b"\r"
        data = data.replace(b"\r\n", b"\n")
        if self._quote:
            data, kept = self._quoted(data)
            end = kept + end
        self._held = end
        return data

    def finish(self) -> bytes:
        """What was held back: the letter is over."""
        held, self._held = self._held, b""
        return held

    def _quoted(self, data: bytes) -> tuple[bytes, bytes]:
        """Quote `data`, and split off an end that may yet become a `From `."""
        line = data.rfind(b"\n") + 1
        if not line and not self._fresh:
            return data, b""
        first = 0 if self._fresh else data.find(b"\n") + 1
        tail = data[line:].lstrip(b">")
        self._fresh = len(tail) < len(_FROM) and _FROM.startswith(tail)
        kept = tail if self._fresh else b""
        if kept:
            data = data[: -len(kept)]
        if _FROM in data:
            data = data[:first] + _LINE.sub(b">", data[first:])
        return data, kept
