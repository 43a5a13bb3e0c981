"""Bounces, read back with Python's own parser."""

from __future__ import annotations

import email
from email.message import Message

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Postponed
from postoffice.mail.reply import Reply, printable
from postoffice.queue.bounce import Report, Told, is_told

SENDER = Address("sender", "example.org")
LETTER = Letter("OLD1", SENDER, "7BIT", 100, 86400.0, "host [192.0.2.1]")


def report(
    failures: list[tuple[Address, Failed]], header: bytes = b"Subject: s\r\nX: y\r\n"
) -> tuple[bytes, Message]:
    return tell([Told(Recipient(0, address, 0.0), failure) for address, failure in failures], header)


def tell(
    told: list[Told], original: bytes, letter: Letter = LETTER, whole: bool = False
) -> tuple[bytes, Message]:
    content = Report(letter, SENDER, told, original, "mx.example.org", "NEW1", 90000.0, whole).encode()
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
        who = Told(Recipient(0, Address("a", "b"), 0.0), self.gone)
        told = Report(LETTER, sender, [who], b"", "mx.example.org", "NEW1", 90000.0)
        self.assertIn("\r\nTo: änn@example.org\r\n".encode(), told.encode())
        self.assertTrue(told.eight_bit)

    def test_the_original_recipient(self) -> None:
        """As the sender's system named it, else the address of the envelope where that stood for others."""
        path = (Address("list", "example.org"), Address("inner", "example.org"))
        for orcpt, way, said in (
            ("", (), None),
            ("", path, "rfc822; list@example.org"),
            ("rfc822;a+2Bb@example.com", path, "rfc822; a+b@example.com"),
        ):
            who = Told(Recipient(1, Address("a", "b"), 0.0, orcpt=orcpt, path=way), self.gone)
            _, message = tell([who], b"")
            text, status, _ = parts(message)
            self.assertEqual(parts(status)[1]["Original-Recipient"], said)
            self.assertEqual(parts(status)[1]["Final-Recipient"], "rfc822; a@b")
            self.assertEqual("<a@b> (for list@example.org):" in str(text.get_payload()), bool(way))

    def test_what_was_asked_for(self) -> None:
        """RFC 3461 sections 5.2.8 and 6."""
        letter = Letter("OLD1", SENDER, "7BIT", 100, 86400.0, "host", ret="FULL", envid="QQ+2B314+20a")
        there = Delivered(Reply(250, (0, 0), "taken"), "/var/mail/a")
        passed = Delivered(Reply(250, None, "ok"), "mx.example.net [192.0.2.7]")
        told = [
            Told(Recipient(1, Address("a", "x"), 0.0, notify="SUCCESS", orcpt="rfc822;old+40x"), there),
            Told(Recipient(2, Address("b", "y"), 0.0, notify="SUCCESS"), passed, relayed=True),
        ]
        _, message = tell(told, b"Subject: s\r\n", letter)
        self.assertEqual(message["Subject"], "Your mail was delivered")
        about, first, second = parts(parts(message)[1])
        self.assertEqual(about["Original-Envelope-Id"], "QQ+314 a")
        self.assertEqual(first["Original-Recipient"], "rfc822; old@x")
        self.assertEqual(
            (first["Action"], first["Status"], first["Remote-MTA"]), ("delivered", "2.0.0", None)
        )
        self.assertEqual((second["Action"], second["Status"]), ("relayed", "2.0.0"))
        self.assertEqual(second["Remote-MTA"], "dns; mx.example.net [192.0.2.7]")
        self.assertIsNone(second["Original-Recipient"])
        text = str(parts(message)[0].get_payload())
        self.assertIn("delivered to the mailboxes of these recipients:\r\n\r\n<a@x>", text)
        self.assertIn("which tell you no more:\r\n\r\n<b@y>", text)

    def test_some_failed_and_some_were_served(self) -> None:
        there = Delivered(Reply(250, (0, 0), "taken"))
        told = [
            Told(Recipient(1, Address("a", "x"), 0.0), self.gone),
            Told(Recipient(2, Address("b", "x"), 0.0, notify="SUCCESS"), there),
        ]
        _, message = tell(told, b"")
        self.assertEqual(message["Subject"], "Undelivered mail returned to sender")
        _, first, second = parts(parts(message)[1])
        self.assertEqual((first["Action"], second["Action"]), ("failed", "delivered"))

    def test_the_whole_letter_comes_back(self) -> None:
        original = b"Subject: s\r\n\r\nb\xf6dy\r\n"
        content, message = tell([Told(Recipient(1, Address("a", "x"), 0.0), self.gone)], original, whole=True)
        self.assertIn(original, content)
        last = parts(message)[2]
        self.assertEqual(last.get_content_type(), "message/rfc822")
        self.assertEqual(parts(last)[0]["Subject"], "s")
        self.assertIn("It is attached.", str(parts(message)[0].get_payload()))

    def test_C3_who_is_told(self) -> None:
        failed, there = self.gone, Delivered(Reply(250, (0, 0), "ok"))
        for notify, of_failure, of_success in [
            *(("", True, False), ("NEVER", False, False), ("FAILURE", True, False), ("SUCCESS", False, True)),
            *(
                ("SUCCESS,FAILURE", True, True),
                ("DELAY", False, False),
                ("SUCCESS,FAILURE,DELAY", True, True),
            ),
        ]:
            self.assertEqual(is_told(failed, notify), of_failure, notify)
            self.assertEqual(is_told(there, notify), of_success, notify)
            self.assertFalse(is_told(Delivered(there.reply, answers=True), notify))
            self.assertFalse(is_told(Postponed(Reply(450, None, "later")), notify))

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
