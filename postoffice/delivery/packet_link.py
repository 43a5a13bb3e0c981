"""A socket for packets in the reactor: sends and receives without waiting.

Used towards the helper and its children (`postoffice.delivery.helper`). Packets that the system does not take
now are sent later, in order. `lost` is called once when the other side has ended or sends nonsense, and not
after `close`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.delivery.helper import packets
from postoffice.wire import WireError

_AT_ONCE = 64


@implementer(IReadWriteDescriptor)
class PacketLink:
    """`received` hears of each packet and of the file beside it (-1 for none), which is then its own."""

    def __init__(
        self,
        reactor: Any,
        connection: socket.socket,
        received: Callable[[dict[str, Any], int], None],
        lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._socket = connection
        self._received = received
        self._lost = lost
        self._waiting: deque[tuple[dict[str, Any], int, bool]] = deque()
        self._closed = False
        connection.setblocking(False)
        reactor.addReader(self)

    def send(self, message: dict[str, Any], file: int = -1, give: bool = False) -> None:
        """Send a packet, now or later, and the file beside it, which is closed then if it is given away.

        One that is not has to stay open until there is an answer. Whether the other side is there is told by
        `lost`.
        """
        self._waiting.append((message, file, give))
        if len(self._waiting) == 1:
            self.doWrite()

    def close(self) -> None:
        """Let go of the other side."""
        if not self._closed:
            self._closed = True
            self._forget()
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "helper"

    def doRead(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = packets.receive(self._socket)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # Told once, and before what the other side said last, where it had not heard all of us.
                continue
            except (OSError, WireError):
                packet = None
            if packet is None:
                self._end()
                return
            self._received(*packet)
            if self._closed:
                return

    def doWrite(self) -> None:
        while self._waiting:
            message, file, given = self._waiting[0]
            try:
                packets.send(self._socket, message, [file] if file >= 0 else [])
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except ConnectionError:
                # The end of the other side is heard of by reading, behind what it said last.
                self._forget()
                break
            except (OSError, WireError):
                # A packet that cannot be sent is its end, too.
                self._reactor.callLater(0, self._end)
                return
            self._waiting.popleft()
            if given:
                packets.close([file])
        self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        self._end()

    def _forget(self) -> None:
        """Nothing that waits will be sent."""
        packets.close([file for _, file, given in self._waiting if given])
        self._waiting.clear()

    def _end(self) -> None:
        if not self._closed:
            self.close()
            self._lost()
