"""A client and a session around the server engine, for tests: groups of bytes in, a transcript out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import field, mutable

from postoffice.mail.reply import Reply
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    EndOfChunk,
    EndOfContent,
    Event,
    Quit,
    Rcpt,
    Refused,
    StartTls,
    Xclient,
)
from postoffice.smtp.server import ServerEngine

BANNER = Reply(220, None, "mx.example.org ESMTP")
OK = Reply(250, (0, 0), "OK")
GO_AHEAD = Reply(354, None, "Go ahead")
BYE = Reply(221, (0, 0), "Goodbye")
READY_FOR_TLS = Reply(220, (0, 0), "Ready to start TLS")
CHALLENGE = Reply(334, None, "")
AUTHENTICATED = Reply(235, (7, 0), "Authenticated")
NOT_AUTHENTICATED = Reply(535, (7, 8), "Not authenticated")
NO_SUCH_USER = Reply(550, (1, 1), "No such user")

UNANSWERED = (Content, Chunk)
"""Events that take no answer."""

Policy = Callable[[Event], Reply]


def obliging(event: Event) -> Reply:
    """Accept all but the recipient `nobody`."""
    match event:
        case Data():
            return GO_AHEAD
        case StartTls():
            return READY_FOR_TLS
        case Xclient():
            return BANNER
        case Auth():
            return AUTHENTICATED
        case Quit():
            return BYE
        case Refused(_, reply) | EndOfContent(_, Reply() as reply) | EndOfChunk(_, Reply() as reply):
            return reply
        case Rcpt(recipient) if recipient.local == "nobody":
            return NO_SUCH_USER
    return OK


def challenging(accepted: bytes = b"", refused: bytes = b"") -> Policy:
    """Challenge without end, until the client responds with the one or the other."""

    def policy(event: Event) -> Reply:
        match event:
            case AuthResponse(line) if line and line == accepted:
                return AUTHENTICATED
            case AuthResponse(line) if line and line == refused:
                return NOT_AUTHENTICATED
            case Auth() | AuthResponse():
                return CHALLENGE
        return obliging(event)

    return policy


@mutable
class Transcript:
    """What came of it: the events with adjacent content merged, and all that was sent."""

    engine: ServerEngine
    events: list[Event] = field(factory=list)
    sent: bytes = b""

    def content(self) -> list[bytes]:
        return [event.data for event in self.events if type(event) is Content]

    def note(self, event: Event) -> None:
        if type(event) is Content and self.events and type(self.events[-1]) is Content:
            event = Content(self.events.pop().data + event.data)
        self.events.append(event)

    def run(self, policy: Policy) -> None:
        """Answer events until the engine has no more."""
        while (event := self.engine.next_event()) is not None:
            self.note(event)
            if not isinstance(event, UNANSWERED):
                self.sent += self.engine.answer(policy(event))


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def each_byte(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def split_at(at: int) -> Callable[[bytes], Iterable[bytes]]:
    return lambda data: [data[:at], data[at:]]


def talk(
    groups: Sequence[bytes],
    cut: Callable[[bytes], Iterable[bytes]] = whole,
    policy: Policy = obliging,
    engine: ServerEngine | None = None,
) -> Transcript:
    """Greet, then send each group, cut up so, when everything before it was answered."""
    transcript = Transcript(engine or ServerEngine())
    transcript.sent += transcript.engine.greet(BANNER)
    for group in groups:
        for segment in cut(group):
            transcript.engine.receive(segment)
            transcript.run(policy)
    return transcript
