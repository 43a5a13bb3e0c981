"""What filters change in an envelope: the rules one by one, and against a straightforward model."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.filters.envelope import edited_envelope
from postoffice.mail.address import Address
from postoffice.mail.envelope import Envelope
from postoffice.milter.edits import AddRecipient, Edit, RemoveRecipient

HOST = "mx.example.org"


def left(recipients: list[str], *edits: Edit) -> list[str]:
    """The recipients there are after these edits."""
    given = tuple(Address(*(text.rpartition("@")[::2] if "@" in text else (text, ""))) for text in recipients)
    envelope, _ = edited_envelope(Envelope(None, given), edits, HOST)
    return [str(address) for address in envelope.recipients]


class BareNames(SynchronousTestCase):
    """Who is named without a domain is one of this host."""

    def test_they_are_removed_by_either_name(self) -> None:
        for given, named in (
            ("bob", b"<bob@mx.example.org>"),
            ("bob", b"bob@MX.example.org"),
            ("bob@mx.example.org", b"<bob>"),
            ("bob", b"<BOB>"),
        ):
            self.assertEqual(left([given, "bob@example.net"], RemoveRecipient(named)), ["bob@example.net"])
        self.assertEqual(left(["bob"], RemoveRecipient(b"<bob@example.net>")), ["bob"])

    def test_they_are_not_added_again(self) -> None:
        for given, named in (("bob", b"<bob@mx.example.org>"), ("bob@mx.example.org", b"bob")):
            self.assertEqual(left([given], AddRecipient(named)), [given])
