"""A host in conversations with the client engine, for tests; each can be held again in other pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from postoffice.mail.address import Address
from postoffice.mail.envelope import Body, Envelope
from postoffice.mail.reply import Reply
from postoffice.smtp.client import ClientEngine
from postoffice.smtp.client_events import Event, Proceed, Ready

WHERE = "mx.test[192.0.2.1]:25"
EHLO = b"250-mx.test hello\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8bitmime\r\n250 ENHANCEDSTATUSCODES\r\n"
SENDER = Address("ann", "here.test")

Step = bytes | Callable[[ClientEngine], bytes]
"""What the host says, or what is asked of the engine."""

_beginning = re.compile(rb"[^\r\n]{0,3}").match


def envelope(recipients: int = 1, sender: Address | None = SENDER, body: Body = "7BIT") -> Envelope:
    return Envelope(sender, tuple(Address(f"r{at}", "far.test") for at in range(recipients)), body)


def each_byte(steps: Sequence[Step]) -> Iterable[Step]:
    for step in steps:
        if isinstance(step, bytes):
            yield from (step[at : at + 1] for at in range(len(step)))
        else:
            yield step


def with_trailing_data(steps: Sequence[Step]) -> Iterable[Step]:
    """With what the host says comes the beginning of what it says next, or of one reply too many."""
    early = 0
    for step, follows in zip(steps, [*steps[1:], b"250 more"], strict=True):
        if isinstance(step, bytes):
            more = _beginning(follows) if isinstance(follows, bytes) else None
            yield step[early:] + (more[0] if more else b"")
            early = len(more[0]) if more else 0
        else:
            yield step


WAYS: Mapping[str, Callable[[Sequence[Step]], Iterable[Step]]] = {
    "byte by byte": each_byte,
    "with trailing data": with_trailing_data,
}


class Talk:
    """An engine, everything it sent, and its events; content is given as soon as it is asked for.

    `steps` is what the conversation was made of, `trace` all that came of it, in order.
    """

    def __init__(self, lmtp: bool = False) -> None:
        self.engine = ClientEngine("me.test", WHERE, lmtp)
        self.sent = b""
        self.events: list[Event] = []
        self.steps: list[Step] = []
        self.trace: list[Event | bytes] = []
        self._lmtp = lmtp

    def again(self, way: Callable[[Sequence[Step]], Iterable[Step]]) -> Talk:
        """The same conversation with another engine, and what the host says in other pieces."""
        talk = Talk(self._lmtp)
        for step in way(self.steps):
            if isinstance(step, bytes):
                talk.hear(step)
            else:
                talk.ask(step)
                talk.look()
        return talk

    def hear(self, data: bytes) -> bytes:
        """Feed bytes of the host; what was sent in return."""
        self.steps.append(data)
        before = len(self.sent)
        self.engine.receive(data)
        self.look()
        return self.sent[before:]

    def ask(self, step: Callable[[ClientEngine], bytes]) -> bytes:
        """Have the engine do something; what it sends."""
        self.steps.append(step)
        return self._send(step(self.engine))

    def look(self) -> None:
        while (event := self.engine.next_event()) is not None or (out := self.engine.outgoing()):
            if event is None:
                self._send(out)
                continue
            self.events.append(event)
            self.trace.append(event)
            if isinstance(event, Proceed):
                self._send(self.engine.content(b"Hi\r\n") + self.engine.end())

    def greet(self, ehlo: bytes = EHLO) -> Talk:
        self.hear(b"220 mx.test ESMTP\r\n")
        self.hear(ehlo)
        assert self.events == [Ready()], self.events
        self.events.clear()
        self.sent = b""
        return self

    def begin(self, what: Envelope | None = None, size: int = 4) -> bytes:
        return self.ask(lambda engine: engine.begin(what or envelope(), size))

    def quit(self) -> bytes:
        return self.ask(ClientEngine.quit)

    def lost(self, reply: Reply) -> None:
        self.ask(lambda engine: engine.lost(reply) or b"")

    def _send(self, out: bytes) -> bytes:
        self.sent += out
        if out:
            self.trace.append(out)
        return out
