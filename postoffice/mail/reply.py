"""Replies of the SMTP server, and the one exception that carries a refusal through all stages.

A stage that cannot accept what a client asks raises `Refusal`; whoever holds the conversation (a
session, the queue, the local socket) turns it into a reply, an outcome or an exit code. RFC 5321
section 4.2, enhanced codes of RFC 3463.
"""

from __future__ import annotations

import re

from attrs import frozen

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


def printable(text: str, limit: int = 400) -> str:
    """Make foreign text fit for a reply, a header or a log line: one line of printable ASCII.

    Every run of other characters becomes one `?`; what is longer than `limit` characters is cut.
    """
    return _UNPRINTABLE.sub("?", text)[:limit]


def legible(text: str, limit: int = 400) -> str:
    """Like `printable`, for places that may hold any script: a header of such a letter, a log line."""
    if text.isascii() or not text.isprintable():
        return printable(text, limit)
    return text[:limit]


@frozen
class Reply:
    """One reply: a three-digit code, the subject and detail of its enhanced code, and its text.

    The class of the enhanced code is the first digit of `code`, so the two cannot disagree; `None`
    stands for replies that carry no enhanced code (220, 221 of HELO, 354, RFC 2034 section 4).
    `text` may have several lines separated by `\\n`.
    """

    code: int
    enhanced: tuple[int, int] | None
    text: str

    @property
    def status(self) -> str:
        """The enhanced code as text (`5.1.1`), `X.0.0` where the reply has none."""
        subject, detail = self.enhanced or (0, 0)
        return f"{self.code // 100}.{subject}.{detail}"

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def encode(self) -> bytes:
        """The reply as it stands on the wire, every line ended with CRLF."""
        prefix = f"{self.status} " if self.enhanced else ""
        lines = self.text.split("\n") if "\n" in self.text else (self.text,)
        last = len(lines) - 1
        return "".join(
            f"{self.code}{'-' if at < last else ' '}{prefix}{line}\r\n" for at, line in enumerate(lines)
        ).encode("ascii", "replace")

    def __str__(self) -> str:
        """The reply on one line, for logs and reports."""
        prefix = f"{self.status} " if self.enhanced else ""
        return f"{self.code} {prefix}{self.text}".replace("\n", " / ")


class Refusal(Exception):
    """What was asked is refused: `reply` goes to the stranger, `why` to the log."""

    def __init__(self, reply: Reply, why: str = "") -> None:
        super().__init__(why or str(reply))
        self.reply = reply
        self.why = why or str(reply)
