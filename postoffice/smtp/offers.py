"""What another host offers by its reply to EHLO, and what that makes of a letter for it.

Used by the client engine. SIZE (RFC 1870) is declared where it is offered; a letter larger than the host
takes is refused without being tried, and so is one that needs SMTPUTF8 (RFC 6531 section 3.2) at a host
without. One with 8-bit content goes to a host without 8BITMIME (RFC 6152) as it is: nearly all of them pass
it on unharmed, while a conversion would break signatures and a refusal would lose the letter. Where DSN
(RFC 3461) is offered, what was asked for about reports is passed on. LIMITS is RFC 9422.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from postoffice.mail.envelope import Envelope, ReportRequest
from postoffice.mail.reply import Reply, printable

TOO_LARGE = (3, 4)
NOT_INTERNATIONAL = Reply(
    550, (6, 7), "the host takes no internationalized mail (SMTPUTF8), and this is such"
)

_EXTENSION = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?: +(.*))?\Z")
_LIMIT = re.compile(r"(RCPTMAX|MAILMAX)=([0-9]{1,6})\Z", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"[0-9]{1,20}\Z", re.ASCII)


class Offers:
    """The `extensions` of a host by upper-case keyword, with their parameters as text.

    `most_recipients` of a letter and `most_letters` of a session are its LIMITS; 0 for none.
    """

    __slots__ = ("extensions", "most_letters", "most_recipients")

    def __init__(self, lines: Iterable[str] = ()) -> None:
        """`lines` are those of the reply behind the first; what is malformed is no offer."""
        self.extensions: dict[str, str] = {}
        for line in lines:
            if found := _EXTENSION.match(line):
                self.extensions[found[1].upper()] = printable(found[2] or "")
        limits: dict[str, int] = {}
        for word in self.extensions.get("LIMITS", "").split():
            if limit := _LIMIT.match(word):
                limits[limit[1].upper()] = int(limit[2])
        self.most_recipients = limits.get("RCPTMAX", 0)
        self.most_letters = limits.get("MAILMAX", 0)

    def __contains__(self, keyword: str) -> bool:
        """Whether an extension is offered."""
        return keyword in self.extensions

    def refusal(self, envelope: Envelope, size: int) -> Reply | None:
        """Why a letter of `size` octets cannot go to this host at all."""
        if envelope.smtputf8 and "SMTPUTF8" not in self.extensions:
            return NOT_INTERNATIONAL
        limit = self.extensions.get("SIZE", "")
        if _SIZE.match(limit) and 0 < int(limit) < size:
            return Reply(552, TOO_LARGE, f"the letter has {size} octets, the host takes at most {int(limit)}")
        return None

    def mail_parameters(self, envelope: Envelope, size: int) -> bytes:
        """The parameters of MAIL."""
        parameters = b" SIZE=%d" % size if "SIZE" in self.extensions else b""
        if envelope.body == "8BITMIME" and "8BITMIME" in self.extensions:
            parameters += b" BODY=8BITMIME"
        if envelope.smtputf8:
            parameters += b" SMTPUTF8"
        return parameters + _returning(envelope) if "DSN" in self.extensions else parameters

    def rcpt_parameters(self, envelope: Envelope) -> list[bytes]:
        """The parameters of RCPT for each recipient; empty where none has any."""
        requests = envelope.requests
        if not requests or "DSN" not in self.extensions:
            return []
        return [_notifying(requests.get(recipient), envelope.smtputf8) for recipient in envelope.recipients]


def _returning(envelope: Envelope) -> bytes:
    """What was asked for about reports, as parameters of MAIL."""
    ret = f" RET={envelope.ret}" if envelope.ret else ""
    return (f"{ret} ENVID={envelope.envid}" if envelope.envid else ret).encode("ascii")


def _notifying(request: ReportRequest | None, wide: bool) -> bytes:
    """What was asked for about reports, as parameters of RCPT."""
    if request is None:
        return b""
    notify = f" NOTIFY={request.notify}" if request.notify else ""
    orcpt = f" ORCPT={request.orcpt}" if request.orcpt and (wide or request.orcpt.isascii()) else ""
    return (notify + orcpt).encode("utf-8")
