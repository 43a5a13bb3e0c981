"""The language of the local control socket, and what a command needs to speak it.

Used by the commands (which import nothing else of the project, so that they start in milliseconds),
by `postoffice.server.local`, and by what answers them while no service runs. Standard library only.

A frame is a length of four octets, big-endian, then that many octets: one that says its type and
the rest. Types: `J` a JSON object in UTF-8, `B` content of a letter, `E` the end of it (nothing
more). In Python a frame is a `dict`, `bytes`, or `END`. The client asks, the service answers:

    {"verb": "list", "pattern": P}      a J frame for each letter, oldest first, then {"done": true}
    {"verb": "run", "pattern": P}       {"done": true, "letters": N}: made due now
    {"verb": "explain", "address": A}   J frames of steps, then of copies, then {"done": true, "refusal": R}
    {"verb": "hold" | "release" | "delete", "ids": [ID...]}                      {"done": true}
    {"verb": "show", "id": ID}          B frames, then {"done": true}
    {"verb": "status"}                  {"done": true, "version": V, "pid": N, "administrator": bool}
    {"verb": "greylist", "do": "list"}  a J frame for each record, then {"done": true}
    {"verb": "greylist", "do": "approve" | "forbid", "record": NAME}            {"done": true}
    {"verb": "greylist", "do": "expire", "age": SECONDS, ...}
                                        {"record": NAME} for each that went, then
                                        {"done": true, "records": N, "expired": N}
    {"verb": "submit", "recipients": [ADDRESS...], "sender": ADDRESS}, B frames, E
                                        {"done": true, "id": ID, "refused": [[ADDRESS, REPLY]...]}

    {"verb": "newaliases", "domains": [DOMAIN or null...]}
                                        for each {"file", "aliases", "longest", "total", "twice",
                                        "mistakes", "warnings"} or {"problem": TEXT, "exit": CODE},
                                        then {"done": true}
    {"verb": "virtual", "domain": DOMAIN, "do": "users"}
                                        {"user": NAME, "login": bool} for each, then {"done": true}
    ... "do": "set-password", "user": NAME, "password": TEXT, "new": bool                   {"done": true}
    ... "do": "remove-user", "user": NAME                                                   {"done": true}
    ... "do": "aliases"                 {"alias": NAME, "targets": TEXT} for each, then {"done": true}
    ... "do": "set-alias", "alias": NAME, "targets": [TEXT...]                              {"done": true}
    ... "do": "remove-alias", "alias": NAME                                                 {"done": true}

`pattern` is null or {"field": "id" | "sender" | "recipient" | "any", "text": TEXT}: letters with that
text in it, without regard to case. `sender` is null for `<>`, and absent for the caller's own name.
A letter is {"id", "size", "received", "sender", "held", "held_for", "busy", "recipients": [{"address",
"last"}]}; times are epoch seconds, `held_for` is why a filter had it set aside, `last` the reply of the last
attempt. Letters are held, released and deleted in order, up to one that is not there. The last frame of an
answer about letters has "down": true where no service runs.

A record is {"record": NAME, "accepted": TIME or null (never), "seen": TIME}. "expire" also takes the flags
"forbidden", "null", "unused" and "dry" (remove nothing). The greylist's verbs are for administrators.

A domain's verbs are for its owner in domains.cf and administrators. Among "domains", null is the system's
alias file, for administrators. "twice" are [LINE, NAME] of aliases that do not count, being given before;
"mistakes" and "warnings" are texts about the lists it includes.

What cannot be done is answered with {"error": TEXT, "exit": CODE} (a code of sysexits), at any time,
also before the content was read. Who the caller is, the service learns from the kernel.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator

from postoffice.quoting import unquoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Frame = dict[str, Any] | bytes | None

#: The end of a letter's content.
END = None

#: The most octets of a frame, its type included.
LARGEST = 1 << 20

_PIECE = 1 << 16
_LONGEST_PATH = 107

#: How long a service that does not answer is waited for: a `struct timeval`.
_PATIENCE = struct.pack("@ll", 300, 0)


class WireError(Exception):
    """What came in is not of this language; the connection is of no more use."""


class Refused(Exception):
    """The service will not do it: the text says why, `exit_code` is for the shell."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Decoder:
    """Turns octets into frames, however they are cut. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Errors: `WireError`, after which the decoder is dead.

        Frames that preceded the bad one in the same data are lost, as is the connection.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if not 1 <= length <= LARGEST:
                raise WireError(f"a frame of {length} octets")
            if len(buffer) - start - 4 < length:
                break
            frames.append(_decode(bytes(buffer[start + 4 : start + 4 + length])))
            start += 4 + length
        del buffer[:start]
        return frames


def _decode(frame: bytes) -> Frame:
    kind = frame[:1]
    if kind == b"B":
        return frame[1:]
    if kind == b"E" and len(frame) == 1:
        return END
    if kind != b"J":
        raise WireError(f"a frame of an unknown type {kind!r}")
    try:
        value = json.loads(frame[1:].decode("utf-8"))
    except (ValueError, RecursionError):
        raise WireError("a frame that is not JSON") from None
    if not isinstance(value, dict):
        raise WireError("a frame that is not a JSON object")
    return value


def _frame(kind: bytes, data: bytes) -> bytes:
    if len(data) >= LARGEST:
        raise WireError(f"a frame of {len(data) + 1} octets")
    return (len(data) + 1).to_bytes(4, "big") + kind + data


def encode_json(value: dict[str, Any]) -> bytes:
    """A J frame. Errors: `WireError` when it would be too large."""
    return _frame(b"J", json.dumps(value, separators=(",", ":")).encode("ascii"))


def encode_content(data: bytes) -> bytes:
    """As many B frames as the data needs; none for none."""
    return b"".join(_frame(b"B", data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))


def encode_end() -> bytes:
    """The E frame."""
    return _frame(b"E", b"")


class Folder:
    """An open directory, so that a socket in it can be named in fewer octets than its path has."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def address(self, name: str) -> str:
        """A path to `name` in this directory, valid in this process while the directory is open."""
        return f"/proc/self/fd/{self.descriptor}/{name}"


def connect(path: str) -> socket.socket:
    """A socket connected to the service at `path`, of any length; waits are bounded. Errors: `OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, direction, _PATIENCE)
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            connection.connect(path)
        else:
            with Folder(os.path.dirname(path)) as folder:
                connection.connect(folder.address(os.path.basename(path)))
    except BaseException:
        connection.close()
        raise
    return connection


class Connection:
    """A blocking connection to the service. Errors of every method: `OSError`, `WireError`, `Refused`."""

    def __init__(self, path: str) -> None:
        self._socket = connect(path)
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Ask; yield the frames of the answer, the one with `done` last."""
        self._send([encode_json(message)])
        return self._answer()

    def content(self, message: dict[str, Any]) -> Iterator[bytes]:
        """Ask for the content of a letter; yield its pieces."""
        self._send([encode_json(message)])
        while not isinstance(frame := self._next(), dict):
            yield frame

    def submit(self, message: dict[str, Any], content: Iterable[bytes]) -> dict[str, Any]:
        """Ask to submit a letter and send its content; the final answer."""
        self._send(_submission(message, content))
        *_, last = self._answer()
        return last

    def _send(self, frames: Iterable[bytes]) -> None:
        try:
            for frame in frames:
                self._socket.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            # The service said no before it had heard all; its answer is waiting to be read.
            pass

    def _answer(self) -> Iterator[dict[str, Any]]:
        while True:
            frame = self._next()
            if not isinstance(frame, dict):
                raise WireError("an answer that is none")
            yield frame
            if "done" in frame:
                return

    def _next(self) -> dict[str, Any] | bytes:
        while not self._frames:
            data = self._socket.recv(_PIECE)
            if not data:
                raise WireError("the service closed the connection without an answer")
            self._frames = self._decoder.feed(data)[::-1]
        frame = self._frames.pop()
        if frame is END:
            raise WireError("an answer that is none")
        if isinstance(frame, dict) and "error" in frame:
            raise Refused(str(frame["error"]), int(frame.get("exit", os.EX_SOFTWARE)))
        return frame


def _submission(message: dict[str, Any], content: Iterable[bytes]) -> Iterator[bytes]:
    yield encode_json(message)
    for piece in content:
        yield encode_content(piece)
    yield encode_end()


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def read_options(text: str, names: Iterable[str]) -> dict[str, str]:
    """The values a configuration file gives these options, the last of each.

    Quoting and comments are those of `postoffice.config.parser`. Lines it would complain about say
    nothing here: the service complains about them.
    """
    wanted = frozenset(names)
    found: dict[str, str] = {}
    for line in text.removeprefix("\ufeff").split("\n"):
        line = line.rstrip("\r")
        name, equals, rest = line.partition("=")
        if equals and name.strip() in wanted and not _CONTROL.search(line):
            value = unquoted(rest)
            if value is not None:
                found[name.strip()] = value
    return found
