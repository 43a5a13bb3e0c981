"""Intake by itself: what it takes to find the header block."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from tests.server.support import Door
from tests.support import counted


class SmallPieces(SynchronousTestCase):
    def test_A7_a_header_in_small_pieces(self) -> None:
        """A header of 250 KB in small pieces is looked through a few times, not for each piece."""
        envelope = Envelope(None, (Address("a", "example.org"),))
        incoming = Door().intake.begin(Client("192.0.2.1"), envelope)
        self.addCleanup(incoming.abort)
        block = b"X-Field: value\r\n" * 16_000

        def write() -> None:
            for at in range(0, len(block), 100):
                self.assertIsNone(incoming.write(block[at : at + 100]))

        _, times = counted(write, "read_headers")
        self.assertGreater(times, 0)
        self.assertLess(times, 30)
