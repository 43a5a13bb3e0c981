"""Addresses as values."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address, path


class Writing(SynchronousTestCase):
    def test_plain_and_bare(self) -> None:
        self.assertEqual(str(Address("a.b+c", "Example.Org")), "a.b+c@Example.Org")
        self.assertEqual(str(Address("postmaster", "")), "postmaster")

    def test_what_needs_quoting_is_quoted(self) -> None:
        self.assertEqual(str(Address('a b"\\', "x")), '"a b\\"\\\\"@x')
        self.assertEqual(str(Address("a..b", "x")), '"a..b"@x')
        self.assertEqual(str(Address("", "x")), '""@x')

    def test_paths(self) -> None:
        self.assertEqual(path(None), "<>")
        self.assertEqual(path(Address("a", "b")), "<a@b>")

    def test_domains_compare_without_case_and_final_dot(self) -> None:
        self.assertEqual(Address("a", "Example.ORG.").domain_key, "example.org")
