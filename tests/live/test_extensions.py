"""Extensions of SMTP with a running service: chunks in raw bytes, reports, other scripts, proxies."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTPUTF8

from tests.live.office import DOMAIN, OfficeCase, stored
from tests.live.raw import Wire, codes
from tests.live.test_tls import TlsCase, context
from tests.peers import HOST, Postoffice

PROXY = "127.0.0.2"
ALICE = f"alice@{DOMAIN}".encode()
ENVELOPE = b"MAIL FROM:<s@far.test>\r\nRCPT TO:<" + ALICE + b">\r\n"
INNER = (
    b"\r\n.\r\nMAIL FROM:<ceo@far.test>\r\nRCPT TO:<" + ALICE + b">\r\nDATA\r\nx\r\n.\r\nQUIT\r\nSTARTTLS\r\n"
)


def chunk(octets: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(octets), b" LAST" if last else b"", octets)


class Chunks(OfficeCase):
    """A4: octets are counted, whatever they are and however they come."""

    def letters(self, office: Postoffice, count: int) -> list[bytes]:
        self.eventually(f"{count} letters", lambda: len(stored(office)) >= count, office)
        return stored(office)

    def test_A4_chunks_cut_anywhere(self) -> None:
        office = self.office()
        stream = ENVELOPE + chunk(b"Subject: x\r\n\r\nbody") + chunk(INNER, last=True) + b"NOOP\r\n"
        for step in (1, 7, len(stream)):
            with Wire(office.port) as wire:
                wire.reply()
                wire.ask(b"EHLO x")
                wire.segments(stream[at : at + step] for at in range(0, len(stream), step))
                self.assertEqual(wire.replies(5), [250] * 5)
        letters = self.letters(office, 3)
        self.assertEqual(len(letters), 3)
        for letter in letters:
            self.assertIn(b"body\n.\nMAIL FROM:<ceo@far.test>\n", letter)
            self.assertIn(b"Return-Path: <s@far.test>", letter)

    def test_A4_out_of_order_too_large_and_without_a_size(self) -> None:
        office = self.office("size=1000", "errors=0")
        with Wire(office.port) as wire:
            wire.reply()
            wire.send(chunk(b"QUIT\r\n") + chunk(b"", last=True) + b"NOOP\r\n")
            self.assertEqual(wire.replies(3), [503, 503, 250])
            wire.send(
                ENVELOPE + chunk(b"x" * 600) + chunk(b"x" * 600) + chunk(INNER, last=True) + b"NOOP\r\n"
            )
            self.assertEqual(wire.replies(6), [250, 250, 250, 552, 503, 250])
            wire.send(ENVELOPE + b"BDAT 99999999999999999999\r\n" + INNER)
            self.assertEqual(wire.replies(2), [250, 250])
        for size in (b"-1", b"+5", b"0x5", b"5 LASTLY", b"", b"100000000000000000000"):
            with Wire(office.port) as wire:
                wire.reply()
                wire.send(ENVELOPE + b"BDAT " + size + b"\r\n" + INNER)
                self.assertEqual(codes(wire.rest()), [250, 250, 501], size)
        self.assertEqual(stored(office), [])

    def test_a_large_letter_in_many_chunks(self) -> None:
        office = self.office()
        line = b"x" * 98 + b"\r\n"
        with Wire(office.port) as wire:
            wire.reply()
            wire.send(ENVELOPE + chunk(b"Subject: x\r\n\r\n"))
            for _ in range(100):
                wire.send(chunk(line * 655))
            wire.send(chunk(b"", last=True))
            self.assertEqual(set(wire.replies(104)), {250})
        (letter,) = self.letters(office, 1)
        self.assertTrue(letter.endswith(line.replace(b"\r", b"") * 65_500))


class Reports(OfficeCase):
    def test_success_is_reported_to_who_asked(self) -> None:
        office = self.office()
        with smtplib.SMTP(HOST, office.port) as client:
            client.ehlo()
            self.assertTrue(client.has_extn("dsn"))
            client.sendmail(
                f"bob@{DOMAIN}",
                [ALICE.decode()],
                b"Subject: x\r\n\r\nbody\r\n",
                ["ENVID=abc", "RET=HDRS"],
                ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;old@here.test"],
            )
        self.eventually("a report", lambda: bool(stored(office, "bob")), office)
        (report,) = stored(office, "bob")
        for line in (
            b"Original-Envelope-Id: abc",
            b"Action: delivered",
            b"Original-Recipient: rfc822; old@here.test",
        ):
            self.assertIn(b"\n" + line + b"\n", report)


class Scripts(OfficeCase):
    def test_any_script(self) -> None:
        office = self.office()
        message = EmailMessage(SMTPUTF8)
        message["From"], message["To"], message["Subject"] = "jürgen@bücher.test", ALICE.decode(), "Grüße"
        message.set_content("body")
        with smtplib.SMTP(HOST, office.port) as client:
            self.assertEqual(client.send_message(message), {})
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                client.sendmail("s@far.test", "nöbody@here.test", "x", ["SMTPUTF8"])
            self.assertEqual(next(iter(caught.exception.recipients.values()))[0], 550)
        self.eventually("the letter", lambda: bool(stored(office)), office)
        (letter,) = stored(office)
        self.assertIn("Return-Path: <jürgen@xn--bcher-kva.test>\n".encode(), letter)
        self.assertIn("\nSubject: Grüße\n".encode(), letter)
        self.assertIn(b" with UTF8SMTP id ", letter)


class Proxies(TlsCase):
    def test_C1_through_a_proxy(self) -> None:
        office = self.secured("proxy=127.0.0.2", "relay-host=[127.0.0.1]:9")
        for header in (
            b"PROXY TCP4 127.0.0.1 127.0.0.1 4321 25\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\x10\xe1\0\x19",
            b"PROXY UNKNOWN\r\n",
        ):
            with Wire(office.port, PROXY) as wire:
                wire.segments(header[at : at + 9] for at in range(0, len(header), 9))
                self.assertEqual(wire.reply()[:4], b"220 ")
                wire.ask(b"MAIL FROM:<s@far.test>")
                self.assertEqual(wire.ask(b"RCPT TO:<x@elsewhere.test>")[:4], b"550 ")
                self.assertEqual(wire.ask(b"RCPT TO:<" + ALICE + b">")[:4], b"250 ")
        for start in (b"EHLO x\r\n", b"\x16\x03\x01\x02\x00"):
            with Wire(office.port, PROXY) as wire:
                wire.send(start)
                self.assertEqual(wire.reply(), b"")

    def test_tls_behind_the_header(self) -> None:
        """The header comes in one segment with the client's first words in TLS."""
        self.secured("proxy=127.0.0.2")
        hello = ssl.MemoryBIO()
        answers = ssl.MemoryBIO()
        session = context().wrap_bio(answers, hello, server_hostname="mail.here.test")
        with Wire(self.smtps, PROXY) as wire:
            header = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 465\r\n"
            banner = b""
            while not banner:
                try:
                    banner = session.read(100)
                except ssl.SSLWantReadError:
                    wire.send(header + hello.read())
                    header = b""
                    answers.write(wire.socket.recv(65536))
        self.assertEqual(banner[:4], b"220 ")

    def test_xclient(self) -> None:
        office = self.secured("xclient=127.0.0.0/8", "relay-host=[127.0.0.1]:9", "greylist=0")
        with Wire(office.port) as wire:
            wire.reply()
            self.assertIn(b"XCLIENT", wire.ask(b"EHLO proxy.test"))
            self.assertEqual(wire.ask(b"XCLIENT NAME=client.test ADDR=192.0.2.9 HELO=me.test")[:4], b"220 ")
            wire.ask(b"MAIL FROM:<s@far.test>")
            self.assertEqual(wire.ask(b"RCPT TO:<x@elsewhere.test>")[:4], b"550 ")
            wire.ask(b"RCPT TO:<" + ALICE + b">")
            wire.ask(b"DATA")
            self.assertEqual(wire.ask(b"Subject: x\r\n\r\n.")[:4], b"250 ")
        self.eventually("the letter", lambda: bool(stored(office)), office)
        self.assertIn(b"from me.test (client.test [192.0.2.9])", stored(office)[0])
