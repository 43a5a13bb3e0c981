"""The report that tells a sender what could not be delivered. Pure: values in, bytes out.

A multipart/report of three parts: text for people, one block for each recipient for programs, and
the header of the original. It goes out from `<>` and is never made for a letter that itself came
from `<>`. RFC 3464, RFC 3462, RFC 6522; Auto-Submitted: RFC 3834 section 5. Addresses of any script stand in
it in ASCII, as RFC 6533 section 3 has them, so that every sender can be told; but for his own, in `To`.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from postoffice.mail.address import Address
from postoffice.mail.envelope import Letter
from postoffice.mail.header import date
from postoffice.mail.outcome import Failed
from postoffice.mail.reply import legible, printable


@frozen
class Report:
    """What a bounce is made of.

    `header` is the original header block (CRLF lines), `id` the bounce's own queue id, `sender` who is told.
    """

    letter: Letter
    sender: Address
    failures: Sequence[tuple[Address, Failed]]
    header: bytes
    host: str
    id: str
    now: float

    def encode(self) -> bytes:
        """The report as a letter, CRLF line ends throughout."""
        boundary = f"report-{self.id}-{self.letter.id}"
        eight_bit = "" if self.header.isascii() else "Content-Transfer-Encoding: 8bit\r\n"
        lines = [
            *self._headers(boundary, eight_bit),
            "This is a report in MIME format (RFC 3464).",
            f"\r\n--{boundary}",
            "Content-Type: text/plain; charset=us-ascii\r\nContent-Description: Notification\r\n",
            *self._text(),
            f"\r\n--{boundary}",
            "Content-Type: message/delivery-status\r\nContent-Description: Delivery report\r\n",
            *self._status(),
            f"\r\n--{boundary}",
            "Content-Type: text/rfc822-headers",
            f"Content-Description: Header of your message\r\n{eight_bit}",
        ]
        front = "\r\n".join(lines).encode("utf-8", "replace")
        return b"".join((front, b"\r\n", self.header, f"\r\n--{boundary}--\r\n".encode()))

    @property
    def eight_bit(self) -> bool:
        """Whether the report carries octets above 127, from the original header or in its own."""
        return self.sender.international or not self.header.isascii()

    def _headers(self, boundary: str, eight_bit: str) -> list[str]:
        return [
            f"Date: {date(int(self.now))}",
            f"From: Mail Delivery System <MAILER-DAEMON@{self.host}>",
            f"To: {legible(str(self.sender))}",
            "Subject: Undelivered mail returned to sender",
            f"Message-ID: <{self.id}.{int(self.now)}@{self.host}>",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
            eight_bit,
        ]

    def _text(self) -> list[str]:
        lines = [
            f"This is the mail system at {self.host}.",
            "",
            "Your message could not be delivered to the following recipients.",
            "Its header is attached. You need not send it again to the others.",
        ]
        for address, failure in self.failures:
            said = f"{failure.where} said: " if failure.where else ""
            lines += ["", f"<{_escaped(str(address))}>:", f"    {printable(said + str(failure.reply), 900)}"]
        return lines

    def _status(self) -> list[str]:
        lines = [
            f"Reporting-MTA: dns; {self.host}",
            f"X-Postoffice-Queue-ID: {self.letter.id}",
            f"Arrival-Date: {date(int(self.letter.received))}",
        ]
        for address, failure in self.failures:
            reply = failure.reply
            lines += [
                "",
                f"Final-Recipient: {_typed(address)}",
                "Action: failed",
                f"Status: {reply.status if reply.enhanced else '5.0.0'}",
            ]
            if failure.where:
                lines.append(f"Remote-MTA: dns; {printable(failure.where, 255)}")
            lines.append(f"Diagnostic-Code: smtp; {printable(str(reply), 900)}")
        return lines


def _typed(address: Address) -> str:
    """An address with its type, as the fields of a report have it."""
    return f"{'utf-8' if address.international else 'rfc822'}; {_escaped(str(address))}"


def _escaped(text: str) -> str:
    """Text in printable ASCII, with characters beyond it as `\\x{...}`."""
    if not text.isascii():
        signs = (sign if sign.isascii() and sign != "\\" else f"\\x{{{ord(sign):X}}}" for sign in text)
        text = "".join(signs)
    return printable(text)
