"""The attributes of XCLIENT: what a proxy that is believed says of the client it speaks for.

Used by the session. XCLIENT is an extension of Postfix: `NAME=value` pairs, values in xtext (RFC 3461 section
4), `[UNAVAILABLE]` and `[TEMPUNAVAIL]` for what the proxy does not know. Every value is checked here, since
they go into logs and trace fields; what does not fit raises `Refusal` with 501.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from postoffice.mail.client import plain_ip
from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.grammar import decode_xtext, is_host

ATTRIBUTES = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
"""Those that are known, as EHLO announces them."""

BAD_ATTRIBUTES = Reply(501, (5, 4), "An attribute of XCLIENT is unknown or its value malformed")

_UNKNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_PAIR = re.compile(r"([A-Za-z]{1,10})=((?:[!-*,-<>-~]|\+[2-7][0-9A-F]){1,255})\Z").match
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\Z").match
_LOGIN = re.compile(r"[!-~]+\Z").match
_PORT = re.compile(r"[0-9]{1,5}\Z").match


def parse_attributes(text: str) -> dict[str, str | None]:
    """Attributes by name in upper case; None is what the proxy does not know. Errors: `Refusal`."""
    found: dict[str, str | None] = {}
    for word in text.split():
        pair = _PAIR(word)
        name = pair[1].upper() if pair else ""
        if pair is None or name not in _CHECKS or name in found:
            raise Refusal(BAD_ATTRIBUTES)
        value = decode_xtext(pair[2])
        found[name] = None if value.upper() in _UNKNOWN else _CHECKS[name](value)
    return found


def _address(value: str) -> str:
    try:
        if value[:5].upper() == "IPV6:":
            # Rules about addresses could be gone round by the longer spelling of IPv4.
            return plain_ip(str(IPv6Address(value[5:])))
        return str(IPv4Address(value))
    except AddressValueError:
        raise Refusal(BAD_ATTRIBUTES) from None


def _port(value: str) -> str:
    if not _PORT(value) or int(value) > 65535:
        raise Refusal(BAD_ATTRIBUTES)
    return value


def _protocol(value: str) -> str:
    if value.upper() not in ("SMTP", "ESMTP"):
        raise Refusal(BAD_ATTRIBUTES)
    return value.upper()


def _fits(check: Callable[[str], object]) -> Callable[[str], str]:
    def known(value: str) -> str:
        if not check(value):
            raise Refusal(BAD_ATTRIBUTES)
        return value

    return known


_CHECKS: dict[str, Callable[[str], str]] = {
    "NAME": _fits(_NAME),
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _protocol,
    "HELO": _fits(lambda value: is_host(value.encode("ascii"))),
    "LOGIN": _fits(_LOGIN),
    "DESTADDR": _address,
    "DESTPORT": _port,
}
