"""The engine of one connection to a milter, our side of it: commands in, bytes out; bytes in, verdicts out.

Used by the driver (`postoffice.filters.milter`), which writes what the commands return and, while `waiting`,
feeds what comes back to `receive` until there is a verdict. No I/O, no clock. What a filter sends never
raises: what is not the protocol becomes `Failed`, and nothing is to be sent any more. An event that cannot
come where it is given is a bug of ours and a `RuntimeError`, since libmilter drops such a one without a word
and would be waited for until the time is over.

The states of a letter are those of libmilter; a command that the filter asked not to be sent moves them too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum, auto

from attrs import frozen

from postoffice.milter import packets
from postoffice.milter.edits import Edit, Field, Hold, ReplaceBody
from postoffice.milter.negotiation import (
    CHANGE_BODY,
    LEADING_BLANK,
    REFUSED_RECIPIENTS,
    Agreement,
    Offer,
    action_of,
    agreement_of,
)
from postoffice.milter.packets import (
    BODY,
    CONNECT,
    DATA,
    END_OF_HEADER,
    END_OF_MESSAGE,
    HEADER,
    HELO,
    MACROS,
    MAIL,
    OPTIONS,
    PROGRESS,
    RCPT,
    SKIP,
    UNKNOWN,
    Decoder,
    Malformed,
    answer_of,
    packet,
    strings,
)
from postoffice.milter.verdicts import PUT_OFF, Accept, Continue, Failed, Refuse, Verdict

MOST_EDITS = 10_000
"""Changes of one letter by one filter."""

Lookup = Callable[[str], str | None]
"""The value of a macro by its name without braces; None where it has none."""


class State(Enum):
    """Where a connection is. `CONTENT` is behind DATA and in the header, `TEXT` behind the end of it."""

    CLOSED = auto()
    OFFERED = auto()
    OPEN = auto()
    IDLE = auto()
    SENDER = auto()
    ADDRESSED = auto()
    CONTENT = auto()
    TEXT = auto()


_IN_LETTER = frozenset({State.SENDER, State.ADDRESSED, State.CONTENT, State.TEXT})


@frozen
class _Step:
    """Where a command may come, and where it leads: to its own state where `then` is None.

    `without` and `silent` are the flags by which a filter asks not to be sent it, and says that it will not
    answer it; `since` is the version that brought it.
    """

    states: frozenset[State]
    then: State | None
    without: int = 0
    silent: int = 0
    since: int = 2


_BEFORE_TEXT = frozenset({State.ADDRESSED, State.CONTENT})

STEPS = {
    CONNECT: _Step(frozenset({State.OPEN}), State.IDLE, 0x01, 0x1000),
    HELO: _Step(frozenset({State.IDLE}), State.IDLE, 0x02, 0x2000),
    MAIL: _Step(frozenset({State.IDLE}), State.SENDER, 0x04, 0x4000),
    RCPT: _Step(frozenset({State.SENDER, State.ADDRESSED}), State.ADDRESSED, 0x08, 0x8000),
    DATA: _Step(frozenset({State.ADDRESSED}), State.CONTENT, 0x200, 0x10000, 4),
    HEADER: _Step(_BEFORE_TEXT, State.CONTENT, 0x20, 0x80),
    END_OF_HEADER: _Step(_BEFORE_TEXT, State.TEXT, 0x40, 0x40000),
    BODY: _Step(frozenset({State.TEXT}), State.TEXT, 0x10, 0x80000),
    END_OF_MESSAGE: _Step(frozenset({State.TEXT}), State.IDLE),
    UNKNOWN: _Step(frozenset({State.IDLE, State.SENDER, State.ADDRESSED}), None, 0x100, 0x20000, 3),
}
"""The whole order of the protocol."""

_OF_SESSION = frozenset({CONNECT, HELO})
_ONE_OF_MANY = frozenset({RCPT, UNKNOWN})
_SKIPPABLE = frozenset({HEADER, RCPT, UNKNOWN, BODY})


class MilterEngine:
    """One connection. `longest_body` bounds, in octets, a body that the filter gives the letter."""

    def __init__(self, offer: Offer, longest_body: int) -> None:
        self.agreed = Agreement()
        self.state = State.CLOSED
        self.edits: list[Edit] = []
        self.failure: str | None = None
        # How many things came that are no verdict: whoever waits may wait on.
        self.heard = 0
        # Changes that the administrator denies the filter, of any letter.
        self.dropped = 0
        # Whether it makes any that it did not say it might.
        self.unannounced = False
        # That every letter of the client be put on hold, which it may ask for before there is one.
        self._holds: list[Edit] = []
        self._offer = offer
        self._longest_body = longest_body
        self._decoder = Decoder(longest_body)
        self._awaited: bytes | None = None
        # An answer to a command that was to get none is let pass.
        self._tolerant = False
        self._body = 0
        self._skipped: set[bytes] = set()
        self._done_with_session = False
        self._done_with_letter = False

    @property
    def waiting(self) -> bool:
        """Whether an answer is due; nothing may be said before it came."""
        return self._awaited is not None

    @property
    def in_letter(self) -> bool:
        """Whether the filter has heard of a letter and neither it nor we have come to an end with it."""
        return self.state in _IN_LETTER and not self._done_with_letter

    @property
    def listens(self) -> bool:
        """Whether the filter wants to hear more of this letter, or of the next where there is none."""
        return not self.done and self.failure is None

    @property
    def done(self) -> bool:
        """Whether the filter has said its last word, on this letter or on the whole session."""
        return self._done_with_session or self._done_with_letter

    @property
    def with_blank(self) -> bool:
        """Whether values of header fields have their leading blank, both ways."""
        return bool(self.agreed.flags & LEADING_BLANK)

    @property
    def hears_refused(self) -> bool:
        """Whether the filter wants to be told of recipients that we have refused."""
        return bool(self.agreed.flags & REFUSED_RECIPIENTS)

    def wants(self, command: bytes) -> bool:
        """Whether this command would be sent."""
        step, agreed = STEPS[command], self.agreed
        return (
            self.listens
            and not agreed.flags & step.without
            and command not in self._skipped
            and agreed.version >= step.since
        )

    def takes(self, field: Field) -> bool:
        """Whether a field fits into a packet; nobody can be told a part of one."""
        return len(field.name) + len(field.shown(self.with_blank)) + 2 <= self.agreed.room

    # Commands: the bytes to send, maybe none.

    def negotiate(self) -> bytes:
        """Begin."""
        self.state, self._awaited = State.OFFERED, OPTIONS
        return bytes(self._offer)

    def connect(self, name: str, family: str, port: int, address: str, macros: Lookup) -> bytes:
        """A client has come. `family` is 4, 6, L or U (which has no port and address)."""
        data = strings([_octets(name)]) + family.encode("ascii")
        if family != "U":
            data += struct.pack(">H", port) + strings([_octets(address)])
        return self._command(CONNECT, data, macros)

    def helo(self, name: str, macros: Lookup) -> bytes:
        """It greets, maybe once more."""
        return self._command(HELO, strings([_octets(name)]), macros)

    def mail(self, arguments: list[bytes], macros: Lookup) -> bytes:
        """A letter begins: the sender's path, then its parameters."""
        self._forget_letter()
        return self._command(MAIL, strings(arguments), macros)

    def rcpt(self, arguments: list[bytes], macros: Lookup) -> bytes:
        """A recipient: path, then parameters."""
        return self._command(RCPT, strings(arguments), macros)

    def data(self, macros: Lookup) -> bytes:
        """The content comes next; there is a recipient."""
        return self._command(DATA, b"", macros)

    def header(self, field: Field) -> bytes:
        """A field of the header, which `takes` has found to fit."""
        return self._command(HEADER, strings([field.name, field.shown(self.with_blank)]))

    def end_of_header(self, macros: Lookup) -> bytes:
        """That was the header."""
        return self._command(END_OF_HEADER, b"", macros)

    def body(self, data: bytes) -> bytes:
        """A piece of the body, of at most `agreed.room` octets."""
        return self._command(BODY, data)

    def end_of_message(self, macros: Lookup) -> bytes:
        """That was the letter: what is to become of it?"""
        return self._command(END_OF_MESSAGE, b"", macros)

    def unknown(self, line: bytes) -> bytes:
        """The client said something that we do not know."""
        return self._command(UNKNOWN, strings([line[: self.agreed.room - 1]]))

    def abort(self) -> bytes:
        """The letter comes to nothing. There is no answer to this."""
        told = self.in_letter and self._awaited is None and self.failure is None
        if self.state in _IN_LETTER:
            self.state = State.IDLE
        self._forget_letter()
        return packet(packets.ABORT) if told else b""

    def quit(self) -> bytes:
        """The client has gone. There is no answer to this; close."""
        told = self.state not in (State.CLOSED, State.OFFERED) and self.failure is None
        # An answer that is still to come will not be read; that to the end of a letter ends nothing now.
        judging, self._awaited = self._awaited == END_OF_MESSAGE, None
        ended = self.abort() or (packet(packets.ABORT) if judging else b"")
        self.state = State.CLOSED
        return ended + packet(packets.QUIT) if told else b""

    def _command(self, code: bytes, data: bytes, macros: Lookup | None = None) -> bytes:
        if self._awaited is not None:
            raise RuntimeError(f"{code!r} before the answer to {self._awaited!r}")
        if not self.listens:
            return b""
        step, agreed = STEPS[code], self.agreed
        if self.state not in step.states:
            raise RuntimeError(f"{code!r} in state {self.state.name}")
        self.state = step.then or self.state
        if agreed.version < step.since:
            return b""
        said = b"" if macros is None else self._macros(code, macros)
        if agreed.flags & step.without or code in self._skipped:
            return said
        if agreed.flags & step.silent:
            self._tolerant = True
        else:
            self._awaited, self._tolerant = code, False
        return said + packet(code, data)

    def _macros(self, code: bytes, value_of: Lookup) -> bytes:
        """The macros of a command in a packet of their own; none where there is nothing to tell."""
        found = []
        for name in self.agreed.macros[code]:
            value = value_of(name.strip("{}"))
            if value is not None:
                found.append(strings([_octets(name), _octets(value)]))
        while sum(map(len, found)) >= self.agreed.room:
            found.remove(max(found, key=len))
        return packet(MACROS, code + b"".join(found)) if found else b""

    # What comes back.

    def receive(self, data: bytes) -> Verdict | None:
        """Take bytes from the filter: the verdict that was waited for, or a failure, if they bring one."""
        if self.failure is not None:
            return None
        self._decoder.feed(data)
        verdict: Verdict | None = None
        try:
            while (found := self._decoder.next()) is not None:
                verdict = self._packet(*found) or verdict
        except Malformed as error:
            # What was said in time counts; nothing after it does.
            failed = self.fail(str(error))
            return failed if verdict is None else verdict
        return verdict

    def fail(self, why: str) -> Failed:
        """The connection is of no use any more: it broke, or the time was over.

        What a filter wanted that has not said its last word is forgotten; one that has said it may go.
        """
        if self._awaited is not None or self.in_letter:
            self.edits = []
        self.failure, self._awaited = self.failure or why, None
        return Failed(self.failure)

    def _packet(self, code: bytes, data: bytes) -> Verdict | None:
        awaited = self._awaited
        if awaited is None:
            if self._tolerant and code == b"c":
                return None
            raise Malformed(f"{code!r} where nothing was asked")
        if awaited == OPTIONS:
            return self._agree(code, data)
        if code == PROGRESS:
            self.heard += 1
            return None
        if code == SKIP:
            if awaited in _SKIPPABLE:
                self._skipped.add(awaited)
            self._awaited = None
            return self._conclude(awaited, Continue())
        answer = answer_of(code, data)
        if isinstance(answer, Verdict):
            self._awaited = None
            return self._conclude(awaited, answer)
        self._take(awaited, answer)
        return None

    def _agree(self, code: bytes, data: bytes) -> Verdict:
        if code != OPTIONS:
            raise Malformed(f"negotiation: {code!r} for an answer")
        self.agreed = agreement_of(self._offer, data)
        self.state, self._awaited = State.OPEN, None
        return Continue()

    def _take(self, awaited: bytes, edit: Edit) -> None:
        """An edit, which is kept until the last word."""
        if awaited != END_OF_MESSAGE and type(edit) is not Hold:
            raise Malformed(f"{type(edit).__name__} in answer to {awaited!r}")
        if type(edit) is ReplaceBody:
            self._body += len(edit.data)
            if self._body > self._longest_body:
                raise Malformed("the body it puts in the place of the letter's is too long")
        elif len(self.edits) + len(self._holds) >= MOST_EDITS:
            raise Malformed("too many changes")
        self.heard += 1
        if not self._offer.allows(edit):
            self.dropped += 1
            return
        self.unannounced = self.unannounced or not self.agreed.actions & action_of(edit)
        if awaited in _OF_SESSION:
            self._holds.append(edit)
            self.edits = [*self._holds]
        else:
            self.edits.append(edit)

    def _conclude(self, code: bytes, verdict: Verdict) -> Verdict:
        """What a verdict means for the state."""
        if code in _OF_SESSION:
            self._done_with_session = type(verdict) is Accept
            return verdict
        if code == UNKNOWN and type(verdict) is not Refuse:
            return Continue()
        if type(verdict) is Continue:
            return self._checked(verdict) if code == END_OF_MESSAGE else verdict
        if type(verdict) is Refuse and code in _ONE_OF_MANY:
            return verdict
        self.state = State.IDLE
        self._done_with_letter = code != END_OF_MESSAGE
        if type(verdict) is Accept:
            return self._checked(verdict)
        self.edits = []
        return verdict

    def _checked(self, verdict: Verdict) -> Verdict:
        """Who changes the body without having said that he might has the letter put off, as sendmail does."""
        if not self._unasked_body():
            return verdict
        self.edits = []
        return Refuse(PUT_OFF)

    def _unasked_body(self) -> bool:
        """Whether it changes the body without having said that it might (sendmail puts such a letter off)."""
        return not self.agreed.actions & CHANGE_BODY and any(type(edit) is ReplaceBody for edit in self.edits)

    def _forget_letter(self) -> None:
        self.edits = [*self._holds]
        self._body = 0
        self._skipped.clear()
        self._done_with_letter = False


def _octets(text: str) -> bytes:
    """Text without anything that would end a line or a string."""
    return text.replace("\r\n", " ").replace("\r", " ").replace("\n", " ").encode("utf-8", "replace")
