"""The listening socket of the local commands, with real sockets and a reactor that is none."""

from __future__ import annotations

import os
import resource
import socket
import stat

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice import wire
from postoffice.server.local_port import CannotListen, LocalPort, caller_behind


class Reactor(Clock):
    """Remembers readers, and takes connections over as the real one does: by their descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()
        self.adopted: list[tuple[int, int, Factory]] = []

    def addReader(self, reader: object) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.discard(reader)

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Factory) -> None:
        self.adopted.append((family, os.get_blocking(descriptor), factory))


class Ports(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.path = os.path.join(self.folder, "control")
        self.reactor, self.factory = Reactor(), Factory()

    def tearDown(self) -> None:
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))

    def listen(self, path: str | None = None) -> LocalPort:
        port = LocalPort(path or self.path, self.factory, self.reactor)
        port.listen()
        self.addCleanup(port.stop)
        return port

    def connect(self, path: str | None = None) -> socket.socket:
        connection = wire.connect(path or self.path)
        self.addCleanup(connection.close)
        return connection

    def stop(self, port: LocalPort) -> None:
        port.stop()
        self.assertEqual(os.listdir(self.folder), [])

    def test_accepts(self) -> None:
        port = self.listen()
        self.assertEqual(self.reactor.readers, {port})
        self.connect()
        self.connect()
        port.doRead()
        self.assertEqual(self.reactor.adopted, [(socket.AF_UNIX, False, self.factory)] * 2)
        self.stop(port)

    def test_everybody_may_connect(self) -> None:
        umask = os.umask(0o077)
        self.addCleanup(os.umask, umask)
        port = self.listen()
        mode = os.stat(self.path).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o666)
        self.stop(port)

    def test_long_path(self) -> None:
        deep = os.path.join(self.folder, *["d" * 60] * 4)
        os.makedirs(deep)
        path = os.path.join(deep, "control")
        port = self.listen(path)
        self.connect(path)
        port.doRead()
        self.assertEqual(len(self.reactor.adopted), 1)
        port.stop()
        self.assertEqual(os.listdir(deep), [])

    def test_makes_its_directory(self) -> None:
        path = os.path.join(self.folder, "run", "control")
        port = self.listen(path)
        self.connect(path)
        port.stop()
        with self.assertRaisesRegex(CannotListen, "No such file"):
            LocalPort(os.path.join(self.folder, "a", "b", "control"), self.factory, self.reactor).listen()

    def test_stale_socket_is_replaced(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
            with wire.Folder(self.folder) as folder:
                stale.bind(folder.address("control"))
        port = self.listen()
        self.connect()
        self.stop(port)

    def test_another_service_is_left_alone(self) -> None:
        first = self.listen()
        with self.assertRaisesRegex(CannotListen, "another service"):
            LocalPort(self.path, self.factory, self.reactor).listen()
        self.connect()
        self.stop(first)

    def test_what_is_no_socket_is_left_alone(self) -> None:
        with open(self.path, "w"):
            pass
        with self.assertRaisesRegex(CannotListen, "not a socket"):
            LocalPort(self.path, self.factory, self.reactor).listen()
        os.unlink(self.path)
        os.symlink("/nowhere", self.path)
        with self.assertRaisesRegex(CannotListen, "not a socket"):
            LocalPort(self.path, self.factory, self.reactor).listen()

    def test_stop_leaves_what_is_not_its_own(self) -> None:
        port = self.listen()
        os.unlink(self.path)
        with open(self.path, "w"):
            pass
        port.stop()
        self.assertTrue(os.path.exists(self.path))
        port.stop()

    def test_without_descriptors_it_rests(self) -> None:
        port = self.listen()
        self.connect()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            port.doRead()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual((self.reactor.readers, self.reactor.adopted), (set(), []))
        self.reactor.advance(1)
        self.assertEqual(self.reactor.readers, {port})
        port.doRead()
        self.assertEqual(len(self.reactor.adopted), 1)
        port.stop()

    def test_stops_while_it_rests(self) -> None:
        port = self.listen()
        self.connect()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            port.doRead()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        port.stop()

    def test_identity_is_the_kernels(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        caller = caller_behind(here)
        self.assertEqual((caller.uid, caller.pid), (os.geteuid(), os.getpid()))
        self.assertEqual(caller.groups, frozenset({os.getegid(), *os.getgroups()}))
