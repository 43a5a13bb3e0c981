"""Addresses of clients."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.client import network_of, plain_ip


class Spelling(SynchronousTestCase):
    def test_C1_an_address_has_one(self) -> None:
        self.assertEqual(plain_ip("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(plain_ip("2001:DB8:0:0::1"), "2001:db8::1")
        self.assertEqual(plain_ip("fe80::1%eth0"), "fe80::1")
        self.assertRaises(ValueError, plain_ip, "here")

    def test_a_host_has_a_network_of_its_own_in_IPv6(self) -> None:
        self.assertEqual(network_of("192.0.2.1"), "192.0.2.1")
        self.assertEqual(network_of("2001:db8::1"), network_of("2001:db8::ffff:0:0:2"))
