"""Bounces, read back with Python's own parser."""

from __future__ import annotations

import email
from email.message import Message

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.envelope import Letter
from postoffice.mail.outcome import Failed
from postoffice.mail.reply import Reply, printable
from postoffice.queue.bounce import Report

SENDER = Address("sender", "example.org")
LETTER = Letter("OLD1", SENDER, "7BIT", 100, 86400.0, "host [192.0.2.1]")


def report(
    failures: list[tuple[Address, Failed]], header: bytes = b"Subject: s\r\nX: y\r\n"
) -> tuple[bytes, Message]:
    content = Report(LETTER, SENDER, failures, header, "mx.example.org", "NEW1", 90000.0).encode()
    return content, email.message_from_bytes(content)


def parts(message: Message) -> list[Message]:
    payload = message.get_payload()
    assert isinstance(payload, list)
    return [part for part in payload if isinstance(part, Message)]


class Bounces(SynchronousTestCase):
    gone = Failed(Reply(550, (1, 1), "No such user"), "mx.example.net [192.0.2.7]")

    def test_three_parts(self) -> None:
        _, message = report([(Address("a", "example.net"), self.gone)])
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertEqual(message["To"], "sender@example.org")
        kinds = [part.get_content_type() for part in parts(message)]
        self.assertEqual(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"])
        self.assertEqual(message.defects, [])

    def test_each_recipient_has_its_block(self) -> None:
        second = Failed(Reply(554, (4, 7), "too late"))
        _, message = report([(Address("a", "example.net"), self.gone), (Address("b", "x"), second)])
        about, first, other = parts(parts(message)[1])
        self.assertEqual(about["Reporting-MTA"], "dns; mx.example.org")
        self.assertEqual(first["Final-Recipient"], "rfc822; a@example.net")
        self.assertEqual((first["Action"], first["Status"]), ("failed", "5.1.1"))
        self.assertEqual(first["Remote-MTA"], "dns; mx.example.net [192.0.2.7]")
        self.assertEqual(first["Diagnostic-Code"], "smtp; 550 5.1.1 No such user")
        self.assertEqual((other["Final-Recipient"], other["Status"]), ("rfc822; b@x", "5.4.7"))
        self.assertIsNone(other["Remote-MTA"])

    def test_addresses_of_any_script_are_told_in_ascii(self) -> None:
        content, message = report([(Address("böb\\", "b"), self.gone)])
        self.assertTrue(content.isascii())
        _, block = parts(parts(message)[1])
        self.assertEqual(block["Final-Recipient"], 'utf-8; "b\\x{F6}b\\x{5C}\\x{5C}"@b')
        sender = Address("änn", "example.org")
        told = Report(
            LETTER, sender, [(Address("a", "b"), self.gone)], b"", "mx.example.org", "NEW1", 90000.0
        )
        self.assertIn("\r\nTo: änn@example.org\r\n".encode(), told.encode())
        self.assertTrue(told.eight_bit)

    def test_the_original_header_comes_back_as_it_was(self) -> None:
        header = b"Subject: caf\xc3\xa9\r\n\tfolded\r\nX-Long: " + b"x" * 900 + b"\r\n"
        content, message = report([(Address("a", "b"), self.gone)], header)
        self.assertIn(header, content)
        last = parts(message)[2]
        self.assertEqual(last.get_payload(decode=True), header + b"")
        self.assertEqual(last["Content-Transfer-Encoding"], "8bit")

    @given(st.text(), st.text(), st.text(max_size=64))
    def test_A6_remote_text_cannot_forge_lines(self, said: str, where: str, local: str) -> None:
        failure = Failed(Reply(550, (1, 1), printable(said)), where)
        content, message = report([(Address(local, "x"), failure)])
        self.assertNotIn(b"\n", content.replace(b"\r\n", b""))
        self.assertNotIn(b"\r", content.replace(b"\r\n", b""))
        self.assertEqual(len(parts(message)), 3)
        _, block = parts(parts(message)[1])
        self.assertEqual(block["Action"], "failed")
        self.assertEqual(len(block.get_all("Final-Recipient", [])), 1)
