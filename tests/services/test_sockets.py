"""The sockets the service listens on, as far as they go without a reactor."""

from __future__ import annotations

import errno
import os
import socket

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.places import Tcp
from postoffice.services.sockets import Sockets


class Taken(SynchronousTestCase):
    def setUp(self) -> None:
        self.other = socket.socket()
        self.addCleanup(self.other.close)
        self.other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.other.bind(("127.0.0.1", 0))
        self.port = self.other.getsockname()[1]
        self.sockets = Sockets((((Tcp("127.0.0.1", self.port),), Factory()),), None)

    def test_when_it_is_taken(self) -> None:
        self.other.listen()
        error = self.assertRaises(OSError, self.sockets.bind)
        self.assertIn(f"127.0.0.1:{self.port}", str(error))

    def test_when_it_is_taken_only_later(self) -> None:
        """Bound by both, since neither listened yet: the error names the address all the same."""
        self.sockets.bind()
        self.other.listen()
        error = self.failureResultOf(Deferred.fromCoroutine(self.sockets.listen()), OSError).value
        self.assertIn(f"127.0.0.1:{self.port}: Address already in use", str(error))
        self.successResultOf(self.sockets.close())


class Inherited(SynchronousTestCase):
    def test_release_1_5_2_no_program_inherits_what_we_listen_on(self) -> None:
        reactor = MemoryReactorClock()
        sockets = Sockets((((Tcp("127.0.0.1", 0),), Factory()),), reactor)
        sockets.bind()
        (bound,) = [one for one, _ in sockets._bound]
        self.assertFalse(bound.get_inheritable())
        self.successResultOf(Deferred.fromCoroutine(sockets.listen()))
        (port,) = reactor.getReaders()
        self.assertFalse(os.get_inheritable(port.fileno()))
        closed = sockets.close()
        reactor.advance(0)
        self.successResultOf(closed)


class Unknown(SynchronousTestCase):
    def test_a_name_that_is_none_of_ours_is_told(self) -> None:
        sockets = Sockets((((Tcp("no such.name.invalid", 25),), Factory()),), None)
        self.assertIn("no such.name.invalid:25: ", str(self.assertRaises(OSError, sockets.bind)))


class WithoutIPv6(SynchronousTestCase):
    def setUp(self) -> None:
        class Old(socket.socket):
            def __init__(self, family: int = socket.AF_INET, *more: int) -> None:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
                super().__init__(family, *more)

        self.patch(socket, "socket", Old)

    def test_every_address_means_those_there_are(self) -> None:
        sockets = Sockets((((Tcp("0.0.0.0", 0), Tcp("::", 0)), Factory()),), None)
        sockets.bind()
        self.successResultOf(sockets.close())

    def test_an_address_that_was_asked_for_is_named(self) -> None:
        sockets = Sockets((((Tcp("::1", 0),), Factory()),), None)
        self.assertIn("::1:0: Address family not supported", str(self.assertRaises(OSError, sockets.bind)))
