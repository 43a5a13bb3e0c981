"""The report that tells a sender what could not be delivered, or that it was. Pure: values in, bytes out.

A multipart/report of three parts: text for people, one block for each recipient for programs, and the header
of the original or, where that was asked for, all of it. It goes out from `<>` and is never made for a letter
that itself came from `<>`. RFC 3464, RFC 3462, RFC 6522; Auto-Submitted: RFC 3834 section 5. Addresses of any
script stand in it in ASCII, as RFC 6533 section 3 has them, so that every sender can be told; but for his
own, in `To`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from attrs import frozen

from postoffice.mail.address import Address
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.header import date
from postoffice.mail.outcome import Delivered, Failed, Outcome
from postoffice.mail.reply import legible, printable
from postoffice.smtp.grammar import decode_xtext

UNDELIVERED = "Undelivered mail returned to sender"
SERVED = "Your mail was delivered"


@frozen
class Told:
    """A recipient with what became of it; `relayed` where it was another host's to deliver to."""

    recipient: Recipient
    outcome: Failed | Delivered
    relayed: bool = False

    @property
    def action(self) -> str:
        """In the words of RFC 3464 section 2.3.3."""
        if type(self.outcome) is Failed:
            return "failed"
        return "relayed" if self.relayed else "delivered"


def is_told(outcome: Outcome, notify: str) -> TypeGuard[Failed | Delivered]:
    """Whether the sender is to hear of an outcome (RFC 3461 section 4.1), and from us."""
    if type(outcome) is Failed:
        return not notify or "FAILURE" in notify
    return type(outcome) is Delivered and "SUCCESS" in notify and not outcome.answers


@frozen
class Report:
    """What a report is made of.

    `original` is the header block of the letter (CRLF lines), or with `whole` all of it; `id` is the
    report's own queue id, `sender` who is told.
    """

    letter: Letter
    sender: Address
    told: Sequence[Told]
    original: bytes
    host: str
    id: str
    now: float
    whole: bool = False

    def encode(self) -> bytes:
        """The report as a letter, CRLF line ends throughout."""
        boundary = f"report-{self.id}-{self.letter.id}"
        eight_bit = "" if self.original.isascii() else "Content-Transfer-Encoding: 8bit\r\n"
        what = "Your message" if self.whole else "Header of your message"
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
            f"Content-Type: {'message/rfc822' if self.whole else 'text/rfc822-headers'}",
            f"Content-Description: {what}\r\n{eight_bit}",
        ]
        front = "\r\n".join(lines).encode("utf-8", "replace")
        return b"".join((front, b"\r\n", self.original, f"\r\n--{boundary}--\r\n".encode()))

    @property
    def eight_bit(self) -> bool:
        """Whether the report carries octets above 127, from the original letter or in its own header."""
        return self.sender.international or not self.original.isascii()

    @property
    def _failed(self) -> bool:
        return any(one.action == "failed" for one in self.told)

    def _headers(self, boundary: str, eight_bit: str) -> list[str]:
        return [
            f"Date: {date(int(self.now))}",
            f"From: Mail Delivery System <MAILER-DAEMON@{self.host}>",
            f"To: {legible(str(self.sender))}",
            f"Subject: {UNDELIVERED if self._failed else SERVED}",
            f"Message-ID: <{self.id}.{int(self.now)}@{self.host}>",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
            eight_bit,
        ]

    def _text(self) -> list[str]:
        lines = [f"This is the mail system at {self.host}."]
        failed = [one for one in self.told if one.action == "failed"]
        what = "It" if self.whole else "Its header"
        if failed:
            lines += [
                "",
                "Your message could not be delivered to the following recipients.",
                f"{what} is attached. You need not send it again to the others.",
            ]
            for one in failed:
                said = f"{one.outcome.where} said: " if one.outcome.where else ""
                lines += [
                    "",
                    f"<{_escaped(str(one.recipient.address))}>{_origin(one.recipient)}:",
                    f"    {printable(said + str(one.outcome.reply), 900)}",
                ]
        for action, how in _SERVED.items():
            served = [
                f"<{_escaped(str(one.recipient.address))}>{_origin(one.recipient)}"
                for one in self.told
                if one.action == action
            ]
            if served:
                lines += ["", f"Your message was {how}:", "", *served]
        return lines

    def _status(self) -> list[str]:
        lines = [
            f"Reporting-MTA: dns; {self.host}",
            f"X-Postoffice-Queue-ID: {self.letter.id}",
            f"Arrival-Date: {date(int(self.letter.received))}",
        ]
        if self.letter.envid:
            lines.insert(0, f"Original-Envelope-Id: {printable(decode_xtext(self.letter.envid))}")
        for one in self.told:
            outcome = one.outcome
            reply = outcome.reply
            lines.append("")
            if one.recipient.orcpt:
                kind, _, original = one.recipient.orcpt.partition(";")
                lines.append(f"Original-Recipient: {kind}; {_escaped(decode_xtext(original))}")
            elif one.recipient.path:
                lines.append(f"Original-Recipient: {_typed(one.recipient.path[0])}")
            lines += [
                f"Final-Recipient: {_typed(one.recipient.address)}",
                f"Action: {one.action}",
                f"Status: {reply.status if reply.enhanced else f'{reply.code // 100}.0.0'}",
            ]
            if outcome.where and one.action != "delivered":
                lines.append(f"Remote-MTA: dns; {printable(outcome.where, 255)}")
            lines.append(f"Diagnostic-Code: smtp; {printable(str(reply), 900)}")
        return lines


_SERVED = {
    "delivered": "delivered to the mailboxes of these recipients",
    "relayed": "passed on to the mail systems of these recipients, which tell you no more",
}


def _origin(recipient: Recipient) -> str:
    """Whom the sender wrote to, where that stood for others."""
    return f" (for {_escaped(str(recipient.path[0]))})" if recipient.path else ""


def _typed(address: Address) -> str:
    """An address with its type, as the fields of a report have it."""
    return f"{'utf-8' if address.international else 'rfc822'}; {_escaped(str(address))}"


def _escaped(text: str) -> str:
    """Text in printable ASCII, with characters beyond it as `\\x{...}`."""
    if not text.isascii():
        signs = (sign if sign.isascii() and sign != "\\" else f"\\x{{{ord(sign):X}}}" for sign in text)
        text = "".join(signs)
    return printable(text)
