from __future__ import annotations

import ipaddress
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.addresses import MachineAddresses, interface_addresses


class InterfaceTests(SynchronousTestCase):
    def test_addresses_of_this_machine(self) -> None:
        found = interface_addresses()
        self.assertIn("127.0.0.1", found)
        for text in found:
            self.assertEqual(str(ipaddress.ip_address(text)), text)

    def test_every_address_can_be_bound(self) -> None:
        for text in interface_addresses():
            address = ipaddress.ip_address(text)
            if not address.is_link_local:
                family = socket.AF_INET if address.version == 4 else socket.AF_INET6
                with socket.socket(family) as bound:
                    bound.bind((text, 0))


class MachineAddressesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reads = 0
        self.fails = False
        self.addresses = MachineAddresses(self.clock.seconds, self.read)

    def read(self) -> frozenset[str]:
        self.reads += 1
        if self.fails:
            raise OSError(12, "no memory")
        return frozenset({f"192.0.2.{self.reads}"})

    def test_read_at_most_once_a_minute(self) -> None:
        self.assertEqual(self.addresses(), {"192.0.2.1", "127.0.0.1", "::1"})
        self.clock.advance(59)
        self.assertIn("192.0.2.1", self.addresses())
        self.clock.advance(1)
        self.assertIn("192.0.2.2", self.addresses())
        self.assertEqual(self.reads, 2)

    def test_clock_set_back(self) -> None:
        self.clock.advance(1e6)
        self.addresses()
        self.clock.advance(-1e5)
        self.assertIn("192.0.2.2", self.addresses())

    def test_a_failure_keeps_what_was_known(self) -> None:
        self.addresses()
        self.fails = True
        self.clock.advance(60)
        self.assertIn("192.0.2.1", self.addresses())

    def test_loopback_is_always_known(self) -> None:
        self.fails = True
        self.assertEqual(self.addresses(), {"127.0.0.1", "::1"})
