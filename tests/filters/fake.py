"""A milter of our own, in this process: answers from a script, and hangs where libmilter would.

`Network` is a reactor on which it listens; what either side writes arrives at once, unless `held` keeps what
comes from the filter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from postoffice.milter.packets import packet

PATH = "/run/filter"
OPTIONS = struct.pack(">III", 6, 0x1FF, 0)

# Where libmilter would drop a command without a word: the commands that may come before it.
BEFORE = {
    b"H": b"CHMRTLNBEUA",
    b"M": b"CHEAU",
    b"R": b"MR",
    b"T": b"R",
    b"L": b"RTL",
    b"N": b"RTL",
    b"B": b"NB",
    b"E": b"NB",
}


class FakeMilter:
    """One connection to it. `answers` by command: octets, or what makes them of the data; None hangs."""

    def __init__(self, answers: dict[bytes, bytes | Callable[[bytes], bytes] | None]) -> None:
        self.answers = answers
        self.heard: list[tuple[bytes, bytes]] = []
        self.macros: dict[bytes, dict[str, str]] = {}
        self.ended = ""
        self.held: list[bytes] | None = None
        self.peer: Any = None
        self._buffer = b""
        self._state = b"C"

    @property
    def commands(self) -> str:
        """The commands that came, without macros."""
        return b"".join(code for code, _ in self.heard if code != b"D").decode()

    def data(self, code: bytes) -> list[bytes]:
        """What came with this command, each time."""
        return [data for one, data in self.heard if one == code]

    def received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 5:
            (size,) = struct.unpack_from(">I", self._buffer)
            if len(self._buffer) < 4 + size:
                break
            code, data = self._buffer[4:5], self._buffer[5 : 4 + size]
            self._buffer = self._buffer[4 + size :]
            self.heard.append((code, data))
            self._answer(code, data)

    def _answer(self, code: bytes, data: bytes) -> None:
        if code == b"D":
            words = data[1:].decode().split("\0")[:-1]
            self.macros[data[:1]] = dict(zip(words[::2], words[1::2], strict=True))
            return
        assert len(data) <= 65535
        if code in BEFORE and self._state not in BEFORE[code]:
            return
        if code in b"CHMRTLNBEA":
            self._state = code
        answer = self.answers.get(code, packet(b"O", OPTIONS) if code == b"O" else packet(b"c"))
        if code in b"AQ":
            return
        if callable(answer):
            answer = answer(data)
        if answer is not None:
            if answer.endswith(packet(b"a")) and code not in b"CH":
                # It is through with this letter.
                self._state = b"A"
            self.send(answer)

    def send(self, data: bytes) -> None:
        """Say something."""
        if self.held is not None:
            self.held.append(data)
        elif self.peer is not None:
            self.peer.dataReceived(data)

    def release(self) -> None:
        """Let arrive what was held."""
        held, self.held = self.held or [], None
        for data in held:
            self.send(data)

    def hang_up(self, reset: bool = False) -> None:
        """Close the connection."""
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.connectionLost(Failure(ConnectionLost() if reset else ConnectionDone()))


class Wire:
    """Our side's transport."""

    def __init__(self, milter: FakeMilter) -> None:
        self.milter = milter
        self.producer: Any = None
        self.writes: list[bytes] = []
        # The filter reads nothing more, and what was written stays here.
        self.stuck = False

    def write(self, data: bytes) -> None:
        if not self.milter.ended and not self.stuck:
            self.writes.append(data)
            self.milter.received(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        if not self.stuck:
            self._end("closed")

    def abortConnection(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        self.milter.ended = self.milter.ended or how
        self.milter.hang_up()


class Network(Clock):
    """A reactor with a filter at `PATH`; `connections` are those it got."""

    def __init__(self) -> None:
        super().__init__()
        self.advance(1_000_000)
        self.answers: dict[bytes, bytes | Callable[[bytes], bytes] | None] = {}
        self.connections: list[FakeMilter] = []
        self.wires: list[Wire] = []
        self.down = False
        self.silent = False

    def connectUNIX(self, address: str, factory: Any, timeout: float = 30, checkPID: int = 0) -> Any:
        if self.down:
            factory.clientConnectionFailed(None, Failure(ConnectError()))
            return None
        if self.silent:
            return _Connecting()
        milter = FakeMilter(self.answers)
        protocol = factory.buildProtocol(UNIXAddress(address))
        milter.peer = protocol
        self.connections.append(milter)
        wire = Wire(milter)
        self.wires.append(wire)
        protocol.makeConnection(wire)
        return None

    @property
    def last(self) -> FakeMilter:
        return self.connections[-1]


class _Connecting:
    """A connector whose connection never comes."""

    def stopConnecting(self) -> None:
        """Nothing is under way."""
