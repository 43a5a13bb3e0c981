"""What one MAIL began: its sender, the recipients accepted so far, and what was asked for about them.

Held by the session, and dropped by whatever ends a transaction (RFC 5321 section 4.1.1.5). Reports that were
asked for: RFC 3461.
"""

from __future__ import annotations

from postoffice.mail.address import Address
from postoffice.mail.envelope import NO_REQUESTS, Envelope, ReportRequest
from postoffice.mail.reply import Refusal
from postoffice.smtp.events import Mail, Rcpt


class Transaction:
    """`put_off` is an answer to DATA found before it; `over` counts recipients that were too many."""

    __slots__ = ("_mail", "_requests", "over", "put_off", "recipients", "sender")

    def __init__(self, mail: Mail, put_off: Refusal | None) -> None:
        self._mail = mail
        self.sender: Address | None = mail.sender
        self.put_off = put_off
        self.over = 0
        self.recipients: dict[tuple[str, str], Address] = {}
        self._requests: dict[Address, ReportRequest] | None = None

    def add(self, event: Rcpt, known: bool) -> None:
        """A recipient was accepted; one that is named twice gets one copy.

        That a letter arrived is reported for people we know only: strangers could have us write to others.
        """
        address = self.recipients.setdefault(
            (event.recipient.local, event.recipient.domain_key), event.recipient
        )
        if (event.notify or event.orcpt) and address is event.recipient:
            self._requests = {} if self._requests is None else self._requests
            notify = event.notify if known else without_success(event.notify)
            self._requests[address] = ReportRequest(notify, event.orcpt)

    def envelope(self) -> Envelope:
        """What the client has asked for."""
        mail = self._mail
        return Envelope(
            self.sender,
            tuple(self.recipients.values()),
            mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            requests=NO_REQUESTS if self._requests is None else self._requests,
        )


def without_success(notify: str) -> str:
    """A value of NOTIFY without SUCCESS; who asked for nothing else wants to hear of nothing else."""
    left = [word for word in notify.split(",") if word != "SUCCESS"]
    return ",".join(left) if left or not notify else "NEVER"
