"""The assembly: building it touches nothing. That it works is shown by `tests.live`."""

from __future__ import annotations

import os
import socket
import threading

from twisted.application.service import IService
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.settings import Settings
from postoffice.service import Office, host_name, make_office, notify
from postoffice.services.privileges import Account

ME = Account("me", os.getuid(), os.getgid(), "/")


class Building(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)

    def settings(self, *lines: str) -> Settings:
        text = "\n".join(
            [
                "listen=127.0.0.1:0",
                f"spool={self.top}/spool",
                f"control={self.top}/control",
                f"virtual={self.top}",
                "hostname=mx.example.org",
                *lines,
            ]
        )
        return Settings.from_text(text, "test.cf", (), privileged=True)

    def office(self, *lines: str) -> Office:
        return make_office(self.settings(*lines), ME, MemoryReactorClock(), foreground=True)

    def test_only_objects_are_made(self) -> None:
        # What earlier tests left to the garbage collector may go meanwhile; nothing may be added.
        threads = set(threading.enumerate())
        descriptors = set(os.listdir("/proc/self/fd"))
        office = self.office(f"log={self.top}/log", f"log=json:{self.top}/log.json")
        self.assertTrue(IService.providedBy(office))
        self.assertEqual(set(threading.enumerate()) - threads, set())
        self.assertEqual(set(os.listdir("/proc/self/fd")) - descriptors, set())
        self.assertEqual(os.listdir(self.top), [])
        self.assertEqual(office.reactor.getDelayedCalls(), [])
        self.assertEqual(office.reactor.tcpServers, [])

    def test_a_port_that_is_taken_ends_the_start_with_one_line(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            office = self.office(f"listen=127.0.0.1:{port}", f"log={self.top}/log")
            ended = self.assertRaises(SystemExit, office.privilegedStartService)
        self.assertEqual(ended.code, os.EX_OSERR)
        with open(f"{self.top}/log") as log:
            self.assertIn(
                f"cannot start: cannot listen on 127.0.0.1:{port}: Address already in use", log.read()
            )

    def test_names(self) -> None:
        self.assertEqual(host_name(self.settings()), "mx.example.org")
        self.assertEqual(host_name(self.settings("hostname=literal")), socket.gethostname())
        self.assertEqual(host_name(self.settings("hostname=auto")), socket.getfqdn())

    def test_systemd_is_told_where_it_asks(self) -> None:
        name = f"\0postoffice-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(name)
            self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": "@" + name[1:]})
            notify("READY=1")
            self.assertEqual(manager.recv(100), b"READY=1")
