"""Command lines out of a stream of bytes.

Used by the server engine. A line ends at CRLF and nowhere else (RFC 5321 section 2.3.8); a bare CR
or LF is part of the line, for the engine to refuse. Memory is bounded: of a line that is too long
only the beginning is kept, and the rest is dropped as it comes.
"""

from __future__ import annotations


class LineBuffer:
    """Bytes received and not yet used. Lines longer than `limit` octets are cut to `limit` + 1."""

    __slots__ = ("_at", "_data", "_head", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""
        self._at = 0
        self._head: bytes | None = None

    def __len__(self) -> int:
        """Octets that are held, the kept beginning of a line that is too long not counted."""
        return len(self._data) - self._at

    def receive(self, data: bytes) -> None:
        """Append what came from the peer."""
        if self._at == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    def starts_with(self, prefix: bytes) -> bool:
        """Whether what is held begins so, and is the beginning of a line."""
        return self._head is None and self._data.startswith(prefix, self._at)

    def take(self, limit: int | None = None) -> bytes:
        """Hand out everything that is held, or at most so many octets of it."""
        if limit is not None and limit < len(self):
            start = self._at
            self._at += limit
            return self._data[start : self._at]
        data = self._data[self._at :] if self._at else self._data
        self._data = b""
        self._at = 0
        return data

    def next_line(self) -> bytes | None:
        """The next line without its CRLF, or None while it is incomplete.

        A line that came back longer than the limit was too long: it is the first `limit` + 1 octets
        of it, and the rest, up to and with its CRLF, is gone.
        """
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            if self._head is not None or len(self) > self._limit + 1:
                self._drop()
            return None
        head, self._head = self._head, None
        line = self._data[self._at : min(end, self._at + self._limit + 1)]
        self._at = end + 2
        if self._at == len(self._data):
            # An idle session is not to hold on to the segment that came last.
            self.take()
        return line if head is None else head

    def _drop(self) -> None:
        if self._head is None:
            self._head = self._data[self._at : self._at + self._limit + 1]
        # The CR may be the first half of the CRLF that ends the line.
        self._data = b"\r" if self._data.endswith(b"\r") else b""
        self._at = 0
