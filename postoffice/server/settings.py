"""What a conversation needs to know of the configuration, and the texts that are made from it.

Made by the assembly, read by the listener and the session.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from postoffice import __version__
from postoffice.config.values import Network
from postoffice.mail.client import Client, Door
from postoffice.smtp.xclient import ATTRIBUTES


@frozen
class SessionSettings:
    """What the conversation needs to know. `size`, `recipients` and `errors` of 0 mean no limit."""

    host: str
    door: Door = "smtp"
    banner: str = ""
    size: int = 0
    recipients: int = 1000
    errors: int = 20
    open_relay: bool = False
    bare_newline: Literal["normalize", "reject"] = "normalize"
    require_helo: bool = False
    require_auth: bool = False
    auth_plaintext: bool = False
    auth_any_sender: bool = False
    lenient_order: bool = False
    # Networks whose PROXY header is required, and those whose XCLIENT is believed.
    proxy: tuple[Network, ...] = ()
    xclient: tuple[Network, ...] = ()
    # What DEBUG tells besides the envelope; without it there is no DEBUG.
    disclosure: tuple[str, ...] = ()

    @property
    def offered(self) -> frozenset[bytes]:
        """The commands of the engine's `OPTIONAL` that a session begins with."""
        return frozenset({b"ETRN", b"DEBUG"}) if self.disclosure else frozenset({b"ETRN"})

    def greeting(self, client: Client) -> str:
        """The text of the 220 banner: our name, the client's as we know it, and the configured lines."""
        first = f"{self.host} ESMTP Postoffice greets {client.name or f'[{client.ip}]'}"
        return f"{first}\n{self.banner}" if self.banner else first

    def extensions(self, offered: frozenset[bytes]) -> str:
        """The text of the answer to EHLO; `offered` are the commands that not everybody may use."""
        limits = f"\nLIMITS RCPTMAX={self.recipients}" if self.recipients else ""
        lines = (
            f"{self.host}\nPIPELINING\nSIZE {self.size}\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES"
            f"\nCHUNKING\nDSN{limits}\nETRN\nHELP"
        )
        if b"XCLIENT" in offered:
            lines += f"\nXCLIENT {ATTRIBUTES}"
        return f"{lines}\nSTARTTLS" if b"STARTTLS" in offered else lines

    def disclosed(self, envelope: tuple[str, ...]) -> tuple[str, ...]:
        """The lines of the answer to DEBUG; `envelope` are those of the transaction so far."""
        return (*envelope, f"Version: Postoffice {__version__}", f"Host: {self.host}", *self.disclosure)
