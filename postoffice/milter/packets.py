"""The packets of the milter protocol, both ways, and nothing of what they mean together.

A packet is a length (32 bits, network order), a code of one octet, and data; the length counts the code.
Strings end in NUL, lists are strings to the end of the packet. `Decoder` finds packets in a stream and lets
none be longer than it may be, `answer_of` reads what a filter may send; both raise `Malformed`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from postoffice.milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Edit,
    Hold,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from postoffice.milter.verdicts import (
    CLOSED,
    PUT_OFF,
    REJECTED,
    Accept,
    Continue,
    Discard,
    Refuse,
    Verdict,
    reply_of,
)

# Commands, from us to the filter.
OPTIONS = b"O"
MACROS = b"D"
CONNECT = b"C"
HELO = b"H"
MAIL = b"M"
RCPT = b"R"
DATA = b"T"
HEADER = b"L"
END_OF_HEADER = b"N"
BODY = b"B"
END_OF_MESSAGE = b"E"
ABORT = b"A"
UNKNOWN = b"U"
QUIT = b"Q"

# Answers with a meaning of their own in the engine.
PROGRESS = b"p"
SKIP = b"s"
REPLACE_BODY = b"b"

LONGEST = 1 << 20
"""The longest packet that is taken, apart from bodies."""

_HEAD = struct.Struct(">I")
_INDEX = struct.Struct(">I")


class Malformed(Exception):
    """A filter sent what the protocol does not know; the text says what."""


def packet(code: bytes, data: bytes = b"") -> bytes:
    """A packet as it goes over the wire."""
    return b"%b%b%b" % (_HEAD.pack(len(data) + 1), code, data)


def strings(texts: Iterable[bytes]) -> bytes:
    """Strings one after another, a NUL behind each; what would end one early becomes a blank."""
    return b"".join(b"%b\0" % text.replace(b"\0", b" ") for text in texts)


class Decoder:
    """Finds packets in what comes: `feed` it, then call `next` until it is None."""

    __slots__ = ("_buffer", "_longest_body")

    def __init__(self, longest_body: int) -> None:
        self._buffer = bytearray()
        self._longest_body = longest_body

    def feed(self, data: bytes) -> None:
        """Take octets, as many as came."""
        self._buffer += data

    def next(self) -> tuple[bytes, bytes] | None:
        """Code and data of the next packet; None while it is not complete. Errors: `Malformed`."""
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        (size,) = _HEAD.unpack_from(buffer)
        if not size:
            raise Malformed("a packet without a code")
        code = bytes(buffer[4:5])
        if not code:
            return None
        if size > (self._longest_body if code == REPLACE_BODY else LONGEST):
            raise Malformed(f"a packet of {size} octets ({_shown(code)})")
        if len(buffer) < 4 + size:
            return None
        data = bytes(buffer[5 : 4 + size])
        del buffer[: 4 + size]
        return code, data


def answer_of(code: bytes, data: bytes) -> Verdict | Edit:
    """What an answer means, other than negotiation, progress and skipping. Errors: `Malformed`."""
    plain = _PLAIN.get(code)
    if plain is not None:
        if data:
            raise Malformed(f"data behind {_shown(code)}, which has none")
        return plain
    read = _WITH_DATA.get(code)
    if read is None:
        raise Malformed(f"an unknown answer {_shown(code)}")
    return read(data)


def _shown(code: bytes) -> str:
    return code.decode("latin-1") if code.isalnum() else f"0x{code.hex()}"


def _parts(data: bytes) -> list[bytes]:
    """The strings of a packet; the last may lack its NUL."""
    parts = data.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return parts


def _reply(data: bytes) -> Verdict:
    reply = reply_of(data.partition(b"\0")[0])
    if reply is None:
        raise Malformed("a reply that is none")
    return Refuse(reply)


def _pair(data: bytes) -> tuple[bytes, bytes]:
    """A name and a value, which may be empty."""
    name, found, value = data.partition(b"\0")
    value = value.removesuffix(b"\0")
    if not found or b"\0" in value:
        raise Malformed("not two strings")
    return name, value


def _indexed(data: bytes) -> tuple[int, bytes, bytes]:
    if len(data) < _INDEX.size:
        raise Malformed("a header without an index")
    name, value = _pair(data[_INDEX.size :])
    return _INDEX.unpack_from(data)[0], name, value


def _one(data: bytes) -> bytes:
    text = data.removesuffix(b"\0")
    if b"\0" in text:
        raise Malformed("more than one string")
    return text


def _with_parameters(data: bytes) -> tuple[bytes, bytes]:
    parts = _parts(data) or [b""]
    return parts[0], b" ".join(parts[1:])


_PLAIN: dict[bytes, Verdict] = {
    b"c": Continue(),
    b"a": Accept(),
    b"r": Refuse(REJECTED),
    b"t": Refuse(PUT_OFF),
    b"d": Discard(),
    b"4": Refuse(CLOSED),
    b"f": Refuse(CLOSED),
}

_WITH_DATA: dict[bytes, Callable[[bytes], Verdict | Edit]] = {
    b"y": _reply,
    b"q": lambda data: Hold(_one(data)),
    b"h": lambda data: AddHeader(*_pair(data)),
    b"i": lambda data: InsertHeader(*_indexed(data)),
    b"m": lambda data: ChangeHeader(*_indexed(data)),
    b"b": ReplaceBody,
    b"+": lambda data: AddRecipient(_one(data)),
    b"2": lambda data: AddRecipient(*_with_parameters(data)),
    b"-": lambda data: RemoveRecipient(_one(data)),
    b"e": lambda data: ChangeSender(*_with_parameters(data)),
}
