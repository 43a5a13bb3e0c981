"""Handshakes, a few in each turn of the reactor.

A handshake takes as long as a hundred commands, and a crowd may begin at the same instant. So only some of
them go on at once; the others wait for later turns of the reactor, and everybody else is served in between.

`Encrypted` is the TLS layer that the link puts over a connection; it asks the `Turnstile` that all share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from postoffice.interfaces import IEncryption

AT_ONCE = 16
"""Handshakes that go on in one turn."""

BURST = 0.05
"""Seconds within which handshakes count as coming in the same turn, which nobody tells us the end of."""


class Turnstile:
    """Lets work through, or has it wait."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since = 0.0
        self._passed = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._next: IDelayedCall | None = None

    def open(self) -> bool:
        """Whether somebody may pass, which counts."""
        if self._next is not None:
            return False
        now = self._clock.seconds()
        if not self._since <= now < self._since + BURST:
            self._since, self._passed = now, 0
        self._passed += 1
        return self._passed <= AT_ONCE

    def wait(self, work: Callable[[], None]) -> None:
        """Do the work in a later turn."""
        self._waiting.append(work)
        if self._next is None:
            self._next = self._clock.callLater(0, self._let_in)

    def _let_in(self) -> None:
        turn = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        self._passed = 0
        self._next = self._clock.callLater(0, self._let_in) if self._waiting else None
        # The next turn comes whatever goes wrong in this one.
        for work in turn:
            work()


class Encrypted(TLSMemoryBIOProtocol):
    """TLS over one connection, whose handshake waits for its turn."""

    def dataReceived(self, data: bytes) -> None:
        turnstile = cast(EncryptedFactory, self.factory).turnstile
        if not cast(Any, self.wrappedProtocol).agreeing or turnstile.open():
            super().dataReceived(data)
        else:
            # A client that has more to say meanwhile is not read.
            cast(Any, self.transport).pauseProducing()
            turnstile.wait(partial(self._go_on, data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # All that came was read. Asking once more, Twisted would only learn that no goodbye was said, by an
        # error that it keeps in a circle with this connection.
        self._lostTLSConnection = True
        super().connectionLost(reason)

    def _go_on(self, data: bytes) -> None:
        if self.connected:
            cast(Any, self.transport).resumeProducing()
            super().dataReceived(data)


class EncryptedFactory(TLSMemoryBIOFactory):
    """What the TLS layers of all connections are made with."""

    protocol = Encrypted

    def __init__(self, encryption: IEncryption, turnstile: Turnstile, clock: IReactorTime) -> None:
        super().__init__(encryption, False, cast(Any, None), clock)
        self.turnstile = turnstile
        self._encryption = encryption

    @property
    def usable(self) -> bool:
        """Whether there is still a certificate: other settings may have been taken over."""
        return self._encryption.offered
