"""An envelope address, as a value.

Made by the one strict path parser (`postoffice.smtp.grammar`) and by the directory; never by a
lenient header parser. A null reverse-path (`<>`) is `None` wherever a sender is expected, so that
no code can mistake it for an address. RFC 5321 sections 2.3.5, 2.3.11 and 4.1.2.
"""

from __future__ import annotations

import re

from attrs import frozen

_DOT_STRING = re.compile(r"[^\x00-\x20\x7f\"(),:;<>@\[\\\].]+(?:\.[^\x00-\x20\x7f\"(),:;<>@\[\\\].]+)*\Z")


@frozen
class Address:
    """`local` is the local part with its quoting undone, `domain` is as it was written.

    `domain` is empty for a bare local name (`postmaster`), and keeps its brackets when it is an
    address literal (`[192.0.2.1]`, `[IPv6:2001:db8::1]`). It is ASCII always: one that was written in another
    script is here in the form that the DNS knows (A-labels). The local part may be of any script (RFC 6531).
    """

    local: str
    domain: str

    @property
    def domain_key(self) -> str:
        """The domain in the form it is compared in: lower case, without a final dot."""
        return self.domain.lower().rstrip(".")

    @property
    def international(self) -> bool:
        """Whether only hosts with SMTPUTF8 can be told of it."""
        return not self.local.isascii()

    def __str__(self) -> str:
        """Quote the local part again where RFC 5321 section 4.1.2 needs it; no angle brackets."""
        local = self.local
        if not _DOT_STRING.match(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local


def path(address: Address | None) -> str:
    """Write an address as a path: `<local@domain>`, or `<>` for the null sender."""
    return "<>" if address is None else f"<{address}>"
