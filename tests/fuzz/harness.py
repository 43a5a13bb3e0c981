"""What one input of the fuzzer means to the server engine, and what must hold whatever is in it.

One that begins with a word of `sessions.VISITORS` is for a whole session instead.

An input is a line of words, then what a client sends. The words are a state of `STATES`, to which the
session is brought first, and any of `OPTIONS`; others mean nothing. In the rest, RS (octet 30) parts groups:
behind it the client waits for all replies before it goes on. A GS, FS or ESC (29, 28, 27) repeats the octet
behind it 700, 3,000 or 17,000 times, so that short inputs reach the limits of lines.

`check` raises `AssertionError`, or whatever the engine raises, where the input shows a defect:

- the engine raises nothing;
- every event is answered with one reply, made of legal lines; text in events is printable, and an address the
  same when it is written and read again;
- cut into single octets (long runs of one into some more), the input gives the same events and replies as
  whole, up to where a client that did not wait is turned away for that;
- content is what a plain decoder makes of it;
- what the engine holds when it wants more is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import asdict, define, field

from postoffice.mail.address import path
from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    EndOfChunk,
    EndOfContent,
    Event,
    Helo,
    Mail,
    Quit,
    Rcpt,
    Refused,
    StartTls,
    Xclient,
)
from postoffice.smtp.grammar import parse_address
from postoffice.smtp.proxy import MOST_FIELDS, BadHeader, read_header
from postoffice.smtp.sasl import INVALID, Credentials, Exchange
from postoffice.smtp.server import AUTH_LIMIT, EARLY_TALK, IMPROPER_PIPELINING, ServerEngine
from postoffice.smtp.xclient import parse_attributes
from tests.fuzz import sessions
from tests.fuzz.sessions import VISITORS

EHLO = b"EHLO client.test\r\n"
ENVELOPE = EHLO + b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"

STATES: Mapping[bytes, tuple[bytes, ...]] = {
    b"early": (),
    b"proxied": (),
    b"greeting": (),
    b"greeted": (EHLO,),
    b"secured": (EHLO, b"STARTTLS\r\n"),
    b"transaction": (EHLO, b"MAIL FROM:<a@b.test>\r\n"),
    b"recipient": (EHLO, ENVELOPE[len(EHLO) :]),
    b"data": (EHLO, ENVELOPE[len(EHLO) :] + b"DATA\r\n"),
    b"bdat": (EHLO, ENVELOPE[len(EHLO) :] + b"BDAT 40 LAST\r\n"),
    b"chunks": (EHLO, ENVELOPE[len(EHLO) :] + b"BDAT 10\r\n012345\r\n\r"),
    b"auth": (EHLO, b"AUTH LOGIN\r\n"),
}
"""The groups that lead to a state. In the first the client does not wait for the banner, in the second a
proxy comes before it."""

OPTIONS = (b"reject", b"small", b"helo", b"few", b"lenient")
"""Bare newlines refused; content of 100 octets at most; HELO insisted on; no optional command offered; RCPT
may come before MAIL."""

OFFERED = frozenset({b"STARTTLS", b"AUTH", b"ETRN", b"XCLIENT", b"DEBUG"})

LONGEST = 40_000
"""Octets of an input that are sent."""

MOST_HELD = AUTH_LIMIT + 2
_RUNS = {b"\x1d": 700, b"\x1c": 3000, b"\x1b": 17_000}
_LINE = re.compile(rb"([2-5]\d\d)([ -])[ -~]*\Z")

BANNER = Reply(220, None, "mx.example.org ESMTP")
OK = Reply(250, (0, 0), "OK\nand more")
REFUSED = {
    "nobody": Reply(550, (1, 1), "No such user"),
    "full": Reply(452, (2, 2), "Full"),
    "bye": Reply(421, (3, 2), "Too much"),
}
"""Recipients, by their local parts."""


class Host:
    """A session that says yes, but for what the client itself asks to have refused."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None

    def answer(self, event: Event) -> Reply:
        """What the client is told."""
        try:
            return self.decide(event)
        except Refusal as refusal:
            return refusal.reply

    def decide(self, event: Event) -> Reply:
        """The answer to an event. Errors: `Refusal`."""
        match event:
            case Refused(_, reply) | EndOfContent(_, Reply() as reply) | EndOfChunk(_, Reply() as reply):
                return reply
            case EndOfChunk(size=13) | EndOfContent(size=13):
                return Reply(452, (3, 1), "Unlucky")
            case Helo(name="away"):
                return Reply(521, (3, 2), "No mail here")
            case Mail(sender=who) if who is not None and who.local == "nobody":
                return Reply(550, (7, 1), "Not from you")
            case Rcpt(recipient=who) if who.local in REFUSED:
                return REFUSED[who.local]
            case Data():
                return Reply(354, None, "Go ahead")
            case StartTls():
                return Reply(220, (0, 0), "Go ahead")
            case Auth(mechanism=mechanism, initial=initial):
                self.exchange = Exchange(mechanism)
                return self.log_in(self.exchange.begin(initial))
            case AuthResponse(line=line):
                assert self.exchange is not None, "a response to no challenge"
                return self.log_in(self.exchange.respond(line))
            case Xclient(attributes=attributes):
                for value in parse_attributes(attributes).values():
                    check_text(value or "")
                return BANNER
            case Quit():
                return Reply(221, (0, 0), "Bye")
        return OK

    def log_in(self, step: Reply | Credentials) -> Reply:
        """Everybody's password is the same."""
        if isinstance(step, Reply):
            return step
        check_text(step.user)
        return Reply(235, (7, 0), "Welcome") if step.password == b"foo" else INVALID


@define
class Told:
    """What came of an input: the events, adjacent content merged, and everything sent."""

    engine: ServerEngine
    host: Host = field(factory=Host)
    events: list[Event] = field(factory=list)
    sent: bytes = b""

    def drain(self) -> None:
        """Answer until the engine wants more, and look at everything on the way."""
        while (event := self.engine.next_event()) is not None:
            self.look_at(event)
            if type(event) is Content and self.events and type(self.events[-1]) is Content:
                event = Content(self.events.pop().data + event.data)  # type: ignore[union-attr]
            self.events.append(event)
            if type(event) is Content or type(event) is Chunk:
                continue
            said = self.engine.answer(self.host.answer(event))
            if said:
                check_reply(said)
                if type(event) is StartTls:
                    self.engine.secured()
            else:
                assert type(event) in (Data, StartTls), f"no reply to {event}"
            self.sent += said
        assert self.engine.buffered <= MOST_HELD, f"{self.engine.buffered} octets held"
        assert not (self.engine.closing and self.engine.buffered), "octets held of a session that is over"

    def look_at(self, event: Event) -> None:
        """Text in an event is text, and an address means the same when it is read again."""
        if type(event) is not Content:
            for text in texts(asdict(event)):
                check_text(text)
        who = event.sender if type(event) is Mail else event.recipient if type(event) is Rcpt else None
        if who is not None:
            assert re.fullmatch(r"[A-Za-z0-9._-]*|\[[0-9A-Za-z.:]+\]", who.domain), who
            assert parse_address(path(who)) == who, who

    def settled(self) -> list[Event]:
        """The events, but for what came of content that was refused or is not complete: how much that is
        depends on how it was cut."""
        kept: list[Event] = []
        for event in self.events:
            if isinstance(event, EndOfContent | EndOfChunk) and event.defect and type(kept[-1]) is Content:
                kept.pop()
            kept.append(event)
        if kept and type(kept[-1]) is Content:
            kept.pop()
        return kept


def check_text(text: str) -> None:
    """Nothing in a text could end a line of a header or a log, or change how it is shown."""
    assert text.isprintable(), text


def texts(value: object) -> Iterable[str]:
    """All strings in a value made of dicts and lists, but those of replies, which may have several lines."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            if key not in ("reply", "defect"):
                yield from texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts(part)


def check_reply(said: bytes) -> None:
    """One reply: lines of one code, all but the last with a hyphen (RFC 5321 section 4.2.1)."""
    assert said.endswith(b"\r\n"), said
    lines = said[:-2].split(b"\r\n")
    codes = set()
    for line in lines:
        found = _LINE.match(line)
        assert found and len(line) <= 510, said
        codes.add(found[1])
        assert (found[2] == b" ") == (line is lines[-1]), said
    assert len(codes) == 1, said


def talk(
    engine: ServerEngine, state: bytes, groups: list[bytes], cut: Callable[[bytes], Iterable[bytes]]
) -> Told:
    """The whole session."""
    told = Told(engine)
    if state == b"early":
        first, *groups = groups
        engine.receive(first)
    pieces = (piece for group in groups for piece in cut(group))
    if state == b"proxied" and not announced(engine, pieces):
        return told
    told.sent += engine.greet(BANNER)
    for group in STATES[state]:
        engine.receive(group)
        told.drain()
    told.drain()
    for piece in pieces:
        engine.receive(piece)
        told.drain()
    return told


def announced(engine: ServerEngine, pieces: Iterator[bytes]) -> bool:
    """Whether pieces begin with a header of the PROXY protocol; the engine gets what came behind it."""
    header = b""
    for piece in pieces:
        header += piece
        try:
            found = read_header(header)
        except BadHeader:
            return False
        if found is not None:
            who, rest = found
            check_text(who.ip)
            engine.receive(rest)
            return True
        assert len(header) <= 16 + MOST_FIELDS, "a header without end is held"
    return False


def read(data: bytes) -> tuple[bytes, set[bytes], list[bytes]]:
    """The state, the options and the groups of an input."""
    line, _, rest = data.partition(b"\n")
    words = line.split()
    state = words[0] if words and (words[0] in STATES or words[0] in VISITORS) else b"greeting"
    sent = re.sub(rb"(?s)([\x1b-\x1d])(.)", lambda run: run[2] * _RUNS[run[1]], rest)[:LONGEST]
    return state, set(words) & set(OPTIONS), sent.split(b"\x1e")


def octets(group: bytes) -> Iterable[bytes]:
    """A group in single octets, but for the long runs that would take as long as all the rest."""
    for run in re.finditer(rb"(?s)(.)\1{99,}|.", group):
        step = 97 if run[1] else 1
        for at in range(run.start(), run.end(), step):
            yield group[at : min(at + step, run.end())]


def decoded(data: bytes) -> bytes | None:
    """The content in what follows a 354, decoded the plain way; None when its end is not there."""
    text, end, _ = (b"\r\n" + data).partition(b"\r\n.\r\n")
    if not end:
        return None
    lines = [line[1:] if line.startswith(b".") else line for line in text.split(b"\r\n")[1:]]
    return normal(b"".join(line + b"\r\n" for line in lines))


def normal(text: bytes) -> bytes:
    """A text in CRLF lines, and no other CR or LF."""
    text = text.replace(b"\r", b"").replace(b"\n", b"\r\n")
    return text if text.endswith(b"\n") or not text else text + b"\r\n"


def check(data: bytes, engine: type[ServerEngine] = ServerEngine) -> None:
    """One input; raises where it shows a defect."""
    state, options, groups = read(data)
    if state in VISITORS:
        sessions.check(state, groups, octets)
        return

    def make() -> ServerEngine:
        return engine(
            "reject" if b"reject" in options else "normalize",
            100 if b"small" in options else 0,
            b"helo" in options,
            frozenset() if b"few" in options else OFFERED,
            b"lenient" in options,
        )

    one = talk(make(), state, groups, lambda group: [group])
    many = talk(make(), state, groups, octets)
    last = one.events[-1] if one.events else None
    if isinstance(last, Refused) and last.reply in (EARLY_TALK, IMPROPER_PIPELINING):
        before = one.settled()[:-1]
        assert many.settled()[: len(before)] == before, "cut up, it is something else before"
    else:
        assert one.settled() == many.settled(), "cut up, it is something else"
        assert one.sent == many.sent, "cut up, it is answered differently"
        assert one.engine.closing == many.engine.closing, "cut up, it ends differently"
    if state == b"data":
        check_content(one, Data, decoded(b"".join(groups)))
    elif state == b"bdat":
        chunk = b"".join(groups)[:40]
        check_content(one, Chunk, normal(chunk) if len(chunk) == 40 else None)


def check_content(told: Told, begin: type[Event], expected: bytes | None) -> None:
    """The first letter of a session is what was expected of it."""
    begun = next((at for at, event in enumerate(told.events) if type(event) is begin), None)
    if begun is None:
        return
    after = told.events[begun + 1 :]
    found = next((event for event in after if isinstance(event, EndOfContent)), None)
    if expected is None:
        assert found is None, "the content ended without its end"
        return
    assert found is not None, "the content did not end"
    if found.defect is None:
        content = after[0].data if type(after[0]) is Content else b""
        assert content == expected, "the content is not what was sent"
