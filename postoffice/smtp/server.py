"""The SMTP server engine: bytes of one client in, events out; replies in, bytes out.

The link feeds it and the session answers it; it has no I/O and no clock. It yields one event at a
time and no second one before the first was answered, so replies cannot come in another order than
their commands, whatever the session waits for. What is malformed, out of order (`phases`) or an
attack on the framing it refuses itself: it yields `Refused` with the reply to give. Bad input never
raises; `RuntimeError` means that the caller broke the protocol of this class.

RFC 5321 section 4, PIPELINING of RFC 2920, SIZE of RFC 1870, 8BITMIME of RFC 6152, SMTPUTF8 of RFC 6531,
CHUNKING of RFC 3030, the framing of STARTTLS (RFC 3207), AUTH (RFC 4954), ETRN (RFC 1985) and XCLIENT. The
reply to EHLO, and so the list of extensions, is the session's.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import define

from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.commands import COMMANDS, OPTIONAL
from postoffice.smtp.content import BareNewline, ChunkDecoder, ContentDecoder
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    EndOfChunk,
    EndOfContent,
    Event,
    Mail,
    Noop,
    Other,
    Refused,
)
from postoffice.smtp.framing import LineBuffer
from postoffice.smtp.grammar import is_legible
from postoffice.smtp.phases import CLOSE, EARLY_RECIPIENT, END, EXCHANGE, ORDER, Bar, Move, Phase

# Longest command lines in octets without CRLF: RFC 5321 section 4.5.3.1.4 asks for 512 with it, and
# parameters of extensions add to MAIL and RCPT. For AUTH and its exchange RFC 4954 section 4.
COMMAND_LIMIT = 510
PATH_COMMAND_LIMIT = 2046
AUTH_LIMIT = 12288

LINE_TOO_LONG = Reply(500, (5, 2), "The command line is too long")
UNPRINTABLE = Reply(500, (5, 2), "Commands are printable ASCII, ended with CR LF")
NOT_UTF8 = Reply(553, (6, 7), "Addresses beyond ASCII need the parameter SMTPUTF8 of MAIL")
EARLY_TALK = Reply(554, (5, 1), "You spoke before the banner")
IMPROPER_PIPELINING = Reply(554, (5, 1), "Improper pipelining: wait for the reply to that command")
NOT_OFFERED = Reply(502, (5, 1), "Command not implemented here")
SECURED = Reply(503, (5, 1), "TLS is active already")
AUTHENTICATED = Reply(503, (5, 1), "You are authenticated already")
AUTH_LINE_TOO_LONG = Reply(500, (5, 6), "The line is too long for an authentication exchange")
NOT_BASE64 = Reply(501, (5, 2), "That is not base64")
BAD_CHUNK = Reply(501, (5, 4), "Syntax: BDAT octets [LAST]; what follows cannot be read")
NOT_SMTP = Reply(554, (5, 1), "This is an SMTP server")
DECLARED_TOO_BIG = Reply(552, (3, 4), "The message is larger than is accepted here")

_CLOSING_CODES = frozenset({221, 421, 521})
_LONG_COMMANDS = {b"MAIL": PATH_COMMAND_LIMIT, b"RCPT": PATH_COMMAND_LIMIT, b"AUTH": AUTH_LIMIT}
# Commands that may hold characters beyond ASCII.
_WIDE = frozenset({b"MAIL", b"RCPT"})
# RFC 2920 section 3.1; bytes behind one of these were sent without knowing what they would mean.
_LAST_IN_GROUP = frozenset({b"HELO", b"EHLO", b"DATA", b"QUIT", b"STARTTLS", b"AUTH", b"XCLIENT"})
# A browser that was steered here speaks these; nothing behind them may be read as SMTP.
_HTTP = frozenset(
    {b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE"}
)
_TLS_HANDSHAKE = b"\x16\x03"
# All that are not merely parsed, so that the rest are looked up once.
_SPECIAL = _HTTP | _LAST_IN_GROUP | OPTIONAL | {b"BDAT"}

# RFC 3030 section 2; at most 20 digits as in SIZE.
_chunk = re.compile(rb" *([0-9]{1,20})(?: +(LAST))? *\Z", re.IGNORECASE).match
_unprintable = re.compile(rb"[^ -~]").search
_encode = lru_cache(maxsize=256)(Reply.encode)


@define
class _Chunk:
    """The chunk that is being read: octets `left`, whether it is the last, the phase it came in.

    One that could not come there has a `refusal`.
    """

    left: int
    last: bool
    behind: Phase
    refusal: Refused | None


class ServerEngine:
    """One session. `max_size` is in octets of content as received, 0 for no limit.

    With `lenient_order` a RCPT before MAIL is no error: it comes as a `Noop`, since nothing is done about it.

    Feed it with `receive`, send the banner with `greet`, then take events with `next_event` until it
    returns None, answering each but `Content` and `Chunk`; write what `greet` and `answer` return, in order.
    `offered` are the commands of `OPTIONAL` that are known; the session may change it at any time. `line`
    is the last command as it came, without its CRLF.
    """

    __slots__ = ("_authenticated", "_bare_newline", "_chunk", "_chunks", "_decoder", "_first",
                 "_lenient_order", "_lines", "_max_size", "_move", "_next", "_phase", "_require_helo",
                 "_secured", "_smtputf8", "_unanswered", "line", "offered")  # fmt: skip

    def __init__(
        self,
        bare_newline: BareNewline = "normalize",
        max_size: int = 0,
        require_helo: bool = False,
        offered: frozenset[bytes] = frozenset(),
        lenient_order: bool = False,
    ) -> None:
        self.offered = offered
        self._bare_newline: BareNewline = bare_newline
        self._max_size = max_size
        self._require_helo = require_helo
        self._lenient_order = lenient_order
        self._lines = LineBuffer(AUTH_LIMIT)
        # Made when content begins, which in many a session it never does.
        self._decoder: ContentDecoder
        self._chunks: ChunkDecoder
        self._chunk: _Chunk
        self._phase = Phase.CONNECTED
        self._first = True
        self._secured = False
        self._smtputf8 = False
        self._authenticated = False
        # The event the session has, what its answer does, and an event that comes before any other.
        self._unanswered: Event | None = None
        self._move: Move | None = None
        self._next: Event | None = None
        self.line = b""

    @property
    def buffered(self) -> int:
        """Octets received and not yet turned into events."""
        return len(self._lines)

    @property
    def closing(self) -> bool:
        """The connection is to be closed once what was returned is written; nothing is read any more."""
        return self._phase is Phase.CLOSED

    @property
    def securing(self) -> bool:
        """STARTTLS was answered 220: what comes next is TLS, until `secured`."""
        return self._phase is Phase.TLS

    def receive(self, data: bytes) -> None:
        """Take bytes from the client, as many as came. No bytes mean nothing (not the end)."""
        if self._phase is Phase.TLS:
            raise RuntimeError("the client speaks TLS now")
        if self._phase is not Phase.CLOSED:
            self._lines.receive(data)

    def greet(self, reply: Reply, stay: bool = False) -> bytes:
        """The banner; any but a positive one closes, unless the client may `stay`.

        A client that spoke before gets none: the next event is a `Refused` that closes.
        """
        if self._phase is not Phase.CONNECTED:
            raise RuntimeError("the banner was sent before")
        self._start()
        if reply.code >= 400 and not stay:
            self._close()
        elif self._lines:
            self._next = self._refuse_and_close("", EARLY_TALK)
            return b""
        return reply.encode()

    def secured(self) -> None:
        """TLS is active: behind a 220 to STARTTLS everything starts over as after the banner (RFC 3207
        section 4.2); before the banner, where the connection began with TLS, there is nothing to forget.
        """
        if self._phase is Phase.TLS:
            self._start()
        elif self._phase is not Phase.CONNECTED:
            raise RuntimeError("nobody asked for TLS")
        self._secured = True

    def next_event(self) -> Event | None:
        """The next thing the client did; None when more bytes (or the banner) are needed, or all is over."""
        if self._unanswered is not None:
            raise RuntimeError(f"the last event is not answered: {type(self._unanswered).__name__}")
        event: Event | None
        phase = self._phase
        if self._next is not None:
            event, self._next = self._next, None
        elif (order := ORDER.get(phase)) is not None:
            event = self._read_command(order)
        elif phase is Phase.CONTENT:
            event = self._read_content()
        elif phase is Phase.CHUNK:
            event = self._read_chunk()
        elif phase is Phase.AUTH:
            event = self._read_response()
        else:
            return None
        if type(event) is not Content and type(event) is not Chunk:
            self._unanswered = event
        return event

    def answer(self, reply: Reply) -> bytes:
        """Answer the last event: the bytes to send.

        A `Data` answered 354 to a client that did not wait for it gives no bytes: the next event is a
        `Refused` that closes. So it is with a `StartTls` answered 220.
        """
        if self._unanswered is None:
            raise RuntimeError("there is no event to answer")
        event, self._unanswered = self._unanswered, None
        move, self._move = self._move, None
        if move is not None:
            code = reply.code
            self._phase = move.refused if code >= 400 else move.accepted if code < 300 else move.more
            if self._phase is Phase.CONTENT:
                if self._lines:
                    self._next = self._refuse_and_close("DATA", IMPROPER_PIPELINING)
                    return b""
                self._decoder = ContentDecoder(self._bare_newline, self._max_size)
            elif self._phase is Phase.TLS:
                if self._lines:
                    self._next = self._refuse_and_close("STARTTLS", IMPROPER_PIPELINING)
                    return b""
            elif self._phase is Phase.CONNECTED:
                self._start()
            elif code == 235 and isinstance(event, Auth | AuthResponse):
                self._authenticated = True
        if self._phase is Phase.CLOSED or reply.code in _CLOSING_CODES:
            self._close()
        return _encode(reply)

    def _start(self) -> None:
        """Begin as behind the banner: nothing of what was said before counts."""
        self._phase = Phase.STRANGER if self._require_helo else Phase.OPEN
        self._authenticated = False

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

    def _read_command(self, order: dict[bytes, Move | Bar]) -> Event | None:
        if self._first and self._lines.starts_with(_TLS_HANDSHAKE):
            return self._refuse_and_close("", NOT_SMTP)
        line = self._lines.next_line()
        if line is None:
            return None
        self._first = False
        self.line = line
        verb, _, argument = line.partition(b" ")
        command = COMMANDS.get(verb)
        if command is None:
            verb = verb.upper()
            command = COMMANDS.get(verb)
        step = order.get(verb)
        bar = None
        if type(step) is Move:
            self._move = step
        elif type(step) is Bar:
            bar = step
        name = verb.decode("ascii") if command else ""
        special = verb in _SPECIAL
        if special and verb in _HTTP:
            return self._refuse_and_close("", NOT_SMTP)
        if special and verb == b"BDAT":
            return self._begin_chunk(argument, bar)
        if len(line) > COMMAND_LIMIT and len(line) > _LONG_COMMANDS.get(verb, COMMAND_LIMIT):
            return Refused(name, LINE_TOO_LONG)
        wide = _unprintable(line) is not None
        if wide and (verb not in _WIDE or not is_legible(line)):
            return Refused(name, UNPRINTABLE)
        if command is None:
            return Other(verb[:20].decode("ascii"))
        if special:
            if verb in _LAST_IN_GROUP and self._lines:
                return self._refuse_and_close(name, IMPROPER_PIPELINING)
            withheld = self._withheld(verb) if verb in OPTIONAL else None
            if withheld is not None:
                return Refused(name, withheld)
        dropped = bar is EARLY_RECIPIENT and self._lenient_order
        if bar is not None and not dropped:
            return Refused(name, bar.reply, bar.error)
        try:
            event = command(argument.strip())
        except Refusal as refusal:
            return Refused(name, refusal.reply)
        if dropped:
            return Noop()
        if type(event) is Mail:
            if event.size and 0 < self._max_size < event.size:
                return Refused(name, DECLARED_TOO_BIG, error=False)
            self._smtputf8 = event.smtputf8
        return Refused(name, NOT_UTF8) if wide and not self._smtputf8 else event

    def _begin_chunk(self, argument: bytes, bar: Bar | None) -> Event | None:
        """BDAT: its octets are read whether or not they may come now."""
        found = _chunk(argument)
        if found is None:
            # Nobody knows where the octets end and commands begin again.
            return self._refuse_and_close("BDAT", BAD_CHUNK)
        refusal = None if bar is None else Refused("BDAT", bar.reply, bar.error)
        self._chunk = _Chunk(int(found[1]), found[2] is not None, self._phase, refusal)
        if refusal is None:
            if self._phase is Phase.READY:
                self._chunks = ChunkDecoder(self._bare_newline, self._max_size)
            self._chunks.begin(self._chunk.left)
        self._phase = Phase.CHUNK
        return Chunk(self._chunk.left, self._chunk.last) if refusal is None else self._read_chunk()

    def _read_chunk(self) -> Event | None:
        chunk = self._chunk
        if chunk.left:
            octets = self._lines.take(chunk.left)
            chunk.left -= len(octets)
            content = self._chunks.feed(octets) if chunk.refusal is None else b""
            if content:
                return Content(content)
            if chunk.left:
                return None
        if chunk.refusal is not None:
            self._phase = chunk.behind
            return chunk.refusal
        if not chunk.last:
            return EndOfChunk(self._chunks.size, self._chunks.defect)
        self._move = END
        content = self._chunks.finish()
        end = EndOfContent(self._chunks.size, self._chunks.defect)
        if not content:
            return end
        self._next = end
        return Content(content)

    def _withheld(self, verb: bytes) -> Reply | None:
        """Why a command that is not for everybody or not for ever is refused now."""
        if verb == b"STARTTLS" and self._secured:
            return SECURED
        if verb not in self.offered:
            return NOT_OFFERED
        return AUTHENTICATED if verb == b"AUTH" and self._authenticated else None

    def _read_response(self) -> Event | None:
        line = self._lines.next_line()
        if line is None:
            return None
        self._move = EXCHANGE
        if self._lines:
            return self._refuse_and_close("AUTH", IMPROPER_PIPELINING)
        if len(line) > AUTH_LIMIT:
            return Refused("AUTH", AUTH_LINE_TOO_LONG)
        if _unprintable(line):
            return Refused("AUTH", NOT_BASE64)
        return AuthResponse(line)

    def _refuse_and_close(self, verb: str, reply: Reply) -> Refused:
        """Refuse, and close with the answer: what else was received is never read."""
        self._move = CLOSE
        self._lines.take()
        return Refused(verb, reply)
