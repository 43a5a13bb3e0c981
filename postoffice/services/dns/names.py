"""Names and addresses in the one spelling that the resolver compares, caches and asks by.

Used by every module of this package. Names come from strangers (envelopes, HELO, other people's zones):
what cannot be a DNS name is said not to exist before anything is asked. RFC 1035 section 2.3.4 gives the
lengths, RFC 6761 section 6.3 the meaning of localhost.
"""

from __future__ import annotations

import ipaddress
import re

from postoffice.interfaces import NoSuchDomain

_MOST = 253
_LABEL = re.compile(r"[!-\[\]-~]{1,63}")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def canonical(name: str) -> str:
    """The name in lower case without its final dot.

    Errors: `NoSuchDomain` for what no server could know: empty or long labels, a long name, anything but
    printable ASCII, a backslash.
    """
    plain = name.removesuffix(".")
    if len(plain) > _MOST or not all(map(_LABEL.fullmatch, plain.split("."))):
        raise NoSuchDomain(f"{name[:_MOST]!a} cannot be a domain name")
    return plain.lower()


def is_host(name: str) -> bool:
    """Whether a canonical name is spelled like a host's, so that it may stand in a header or a log."""
    return _HOST.fullmatch(name) is not None


def is_localhost(name: str) -> bool:
    """Whether a canonical name means this machine whatever a server says."""
    return name == "localhost" or name.endswith(".localhost")


def address(text: str) -> str | None:
    """An IPv4 or IPv6 address as it is written canonically, None for any other text.

    IPv4 in IPv6 becomes IPv4: otherwise rules about addresses could be gone round by the longer spelling.
    """
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def pointer(ip: str) -> str:
    """The name whose PTR records belong to an address as `address` writes it."""
    return ipaddress.ip_address(ip.partition("%")[0]).reverse_pointer
