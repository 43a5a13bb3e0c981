"""The header that a proxy puts in front of a connection: the PROXY protocol, versions 1 and 2.

Used by the listener for connections out of the networks of the option `proxy`, where it is required. It says
whom the proxy speaks for. Strict and bounded: what does not fit is `BadHeader`, and the connection is of no
use. Addresses of the far end of the proxy and the extra fields of version 2 are skipped.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from attrs import frozen

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_LINE = 107
"""Octets of a header of version 1, CRLF included."""
MOST_FIELDS = 4096
"""Octets of a header of version 2 behind its first 16; the protocol allows more, nobody sends as many."""

_PORT = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:(TCP[46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) %b %b|UNKNOWN(?: [ -~]*)?)" % (_PORT, _PORT)
)
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
# What a proxy may serve that has no address we could judge: nothing it knows, and a local socket.
_UNSPECIFIED, _UNIX = 0x00, 0x31


class BadHeader(Exception):
    """That is no header of the PROXY protocol; the message says what is wrong with it."""


@frozen
class Announced:
    """Whom a proxy speaks for; `ip` is empty where it does not say (UNKNOWN, LOCAL)."""

    ip: str = ""
    port: int = 0


def read_header(data: bytes) -> tuple[Announced, bytes] | None:
    """The header at the beginning of `data` and what follows it; None while it may still be completed.

    Errors: `BadHeader`, at the first octet that does not fit.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _read_binary(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _read_line(data)
    raise BadHeader("no PROXY header")


def _read_line(data: bytes) -> tuple[Announced, bytes] | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise BadHeader("a PROXY line without end")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None:
        raise BadHeader("a malformed PROXY line")
    family, source, target, port, target_port = found.groups()
    rest = data[end + 2 :]
    if family is None:
        return Announced(), rest
    make = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        ip = make(source.decode("ascii"))
        make(target.decode("ascii"))
    except AddressValueError:
        raise BadHeader("a PROXY line with a malformed address") from None
    if int(port) > 65535 or int(target_port) > 65535:
        raise BadHeader("a PROXY line with a malformed port")
    return Announced(str(ip), int(port)), rest


def _read_binary(data: bytes) -> tuple[Announced, bytes] | None:
    if len(data) < 16:
        return None
    command, family, size = data[12], data[13], int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise BadHeader("a PROXY header of an unknown version or command")
    if size > MOST_FIELDS:
        raise BadHeader("a PROXY header that is too long")
    if len(data) < 16 + size:
        return None
    fields, rest = data[16 : 16 + size], data[16 + size :]
    if command == _LOCAL or family in (_UNSPECIFIED, _UNIX):
        return Announced(), rest
    if family == _TCP4 and size >= 12:
        return Announced(str(IPv4Address(fields[:4])), int.from_bytes(fields[8:10], "big")), rest
    if family == _TCP6 and size >= 36:
        return Announced(str(IPv6Address(fields[:16])), int.from_bytes(fields[32:34], "big")), rest
    raise BadHeader("a PROXY header without the addresses of a TCP connection")
