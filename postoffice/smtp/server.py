"""The SMTP server engine: bytes of one client in, events out; replies in, bytes out.

The link feeds it and the session answers it; it has no I/O and no clock. It yields one event at a
time and no second one before the first was answered, so replies cannot come in another order than
their commands, whatever the session waits for. What is malformed, out of order (`phases`) or an
attack on the framing it refuses itself: it yields `Refused` with the reply to give. Bad input never
raises; `RuntimeError` means that the caller broke the protocol of this class.

RFC 5321 section 4, PIPELINING of RFC 2920, SIZE of RFC 1870, 8BITMIME of RFC 6152. The reply to EHLO,
and so the list of extensions, is the session's.
"""

from __future__ import annotations

import re
from functools import lru_cache

from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.commands import COMMANDS
from postoffice.smtp.content import BareNewline, ContentDecoder
from postoffice.smtp.events import (
    Content,
    EndOfContent,
    Event,
    Mail,
    Other,
    Refused,
)
from postoffice.smtp.framing import LineBuffer
from postoffice.smtp.phases import CLOSE, END, ORDER, Bar, Move, Phase

# Longest command lines in octets without CRLF: RFC 5321 section 4.5.3.1.4 asks for 512 with it, and
# parameters of extensions add to MAIL and RCPT.
COMMAND_LIMIT = 510
PATH_COMMAND_LIMIT = 2046

LINE_TOO_LONG = Reply(500, (5, 2), "The command line is too long")
UNPRINTABLE = Reply(500, (5, 2), "Commands are printable ASCII, ended with CR LF")
EARLY_TALK = Reply(554, (5, 1), "You spoke before the banner")
IMPROPER_PIPELINING = Reply(554, (5, 1), "Improper pipelining: wait for the reply to that command")
NOT_SMTP = Reply(554, (5, 1), "This is an SMTP server")
DECLARED_TOO_BIG = Reply(552, (3, 4), "The message is larger than is accepted here")

_CLOSING_CODES = frozenset({221, 421, 521})
_LONG_COMMANDS = frozenset({b"MAIL", b"RCPT"})
# RFC 2920 section 3.1; bytes behind one of these were sent without knowing what they would mean.
_LAST_IN_GROUP = frozenset({b"HELO", b"EHLO", b"DATA", b"QUIT"})
# A browser that was steered here speaks these; nothing behind them may be read as SMTP.
_HTTP = frozenset(
    {b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE"}
)
_TLS_HANDSHAKE = b"\x16\x03"

_unprintable = re.compile(rb"[^ -~]").search
_encode = lru_cache(maxsize=256)(Reply.encode)


class ServerEngine:
    """One session. `max_size` is in octets of content as received, 0 for no limit.

    Feed it with `receive`, send the banner with `greet`, then take events with `next_event` until it
    returns None, answering each but `Content`; write what `greet` and `answer` return, in order.
    """

    __slots__ = ("_bare_newline", "_decoder", "_first", "_lines", "_max_size", "_move", "_next", "_phase",
                 "_require_helo", "_unanswered")  # fmt: skip

    def __init__(
        self, bare_newline: BareNewline = "normalize", max_size: int = 0, require_helo: bool = False
    ) -> None:
        self._bare_newline: BareNewline = bare_newline
        self._max_size = max_size
        self._require_helo = require_helo
        self._lines = LineBuffer(PATH_COMMAND_LIMIT)
        self._decoder = ContentDecoder()
        self._phase = Phase.CONNECTED
        self._first = True
        # The event the session has, what its answer does, and an event that comes before any other.
        self._unanswered: Event | None = None
        self._move: Move | None = None
        self._next: Event | None = None

    @property
    def buffered(self) -> int:
        """Octets received and not yet turned into events."""
        return len(self._lines)

    @property
    def closing(self) -> bool:
        """The connection is to be closed once what was returned is written; nothing is read any more."""
        return self._phase is Phase.CLOSED

    def receive(self, data: bytes) -> None:
        """Take bytes from the client, as many as came. No bytes mean nothing (not the end)."""
        if self._phase is not Phase.CLOSED:
            self._lines.receive(data)

    def greet(self, reply: Reply) -> bytes:
        """The banner; any but a positive one closes.

        A client that spoke before gets none: the next event is a `Refused` that closes.
        """
        if self._phase is not Phase.CONNECTED:
            raise RuntimeError("the banner was sent before")
        self._phase = Phase.STRANGER if self._require_helo else Phase.OPEN
        if reply.code >= 400:
            self._close()
        elif self._lines:
            self._next = self._refuse_and_close("", EARLY_TALK)
            return b""
        return reply.encode()

    def next_event(self) -> Event | None:
        """The next thing the client did; None when more bytes (or the banner) are needed, or all is over."""
        if self._unanswered is not None:
            raise RuntimeError(f"the last event is not answered: {type(self._unanswered).__name__}")
        event: Event | None
        if self._next is not None:
            event, self._next = self._next, None
        elif self._phase is Phase.CONTENT:
            event = self._read_content()
        elif self._phase is Phase.CONNECTED or self._phase is Phase.CLOSED:
            return None
        else:
            event = self._read_command()
        if type(event) is not Content:
            self._unanswered = event
        return event

    def answer(self, reply: Reply) -> bytes:
        """Answer the last event: the bytes to send.

        A `Data` answered 354 to a client that did not wait for it gives no bytes: the next event is a
        `Refused` that closes.
        """
        if self._unanswered is None:
            raise RuntimeError("there is no event to answer")
        self._unanswered = None
        move, self._move = self._move, None
        if move is not None:
            self._phase = move.accepted if reply.code < 400 else move.refused
            if self._phase is Phase.CONTENT:
                if self._lines:
                    self._next = self._refuse_and_close("DATA", IMPROPER_PIPELINING)
                    return b""
                self._decoder = ContentDecoder(self._bare_newline, self._max_size)
        if self._phase is Phase.CLOSED or reply.code in _CLOSING_CODES:
            self._close()
        return _encode(reply)

    def _close(self) -> None:
        self._phase = Phase.CLOSED
        self._lines.take()

    def _read_content(self) -> Event | None:
        if not self._lines:
            return None
        content, rest = self._decoder.feed(self._lines.take())
        if rest is None:
            return Content(content) if content else None
        self._lines.receive(rest)
        self._move = END
        end = EndOfContent(self._decoder.size, self._decoder.defect)
        if not content:
            return end
        self._next = end
        return Content(content)

    def _read_command(self) -> Event | None:
        if self._first and self._lines.starts_with(_TLS_HANDSHAKE):
            return self._refuse_and_close("", NOT_SMTP)
        line = self._lines.next_line()
        if line is None:
            return None
        self._first = False
        verb, _, argument = line.partition(b" ")
        command = COMMANDS.get(verb)
        if command is None:
            verb = verb.upper()
            command = COMMANDS.get(verb)
        step = ORDER[self._phase].get(verb)
        bar = None
        if type(step) is Move:
            self._move = step
        elif type(step) is Bar:
            bar = step
        name = verb.decode("ascii") if command else ""
        if verb in _HTTP:
            return self._refuse_and_close("", NOT_SMTP)
        if len(line) > COMMAND_LIMIT and (verb not in _LONG_COMMANDS or len(line) > PATH_COMMAND_LIMIT):
            return Refused(name, LINE_TOO_LONG)
        if _unprintable(line):
            return Refused(name, UNPRINTABLE)
        if command is None:
            return Other(verb[:20].decode("ascii"))
        if verb in _LAST_IN_GROUP and self._lines:
            return self._refuse_and_close(name, IMPROPER_PIPELINING)
        if bar is not None:
            return Refused(name, bar.reply, bar.error)
        try:
            event = command(argument.strip())
        except Refusal as refusal:
            return Refused(name, refusal.reply)
        if type(event) is Mail and event.size and 0 < self._max_size < event.size:
            return Refused(name, DECLARED_TOO_BIG, error=False)
        return event

    def _refuse_and_close(self, verb: str, reply: Reply) -> Refused:
        """Refuse, and close with the answer: what else was received is never read."""
        self._move = CLOSE
        self._lines.take()
        return Refused(verb, reply)
