"""The one strict parser of envelope paths, and of the parameters behind them. RFC 5321 section 4.1.

Used by the server engine for what clients say, and for addresses in the configuration and on the
local socket. It works on octets, never guesses, and takes time linear in the length of its input.
What does not fit the grammar raises `Refusal` with the reply for it; replies never echo the input.

Where it is wider than RFC 5321: the angle brackets may be missing and blanks may follow the colon
(old clients, and the original accepts both); a bare local name needs no domain; a domain may hold
underscores, since hosts and senders with such names exist and the DNS allows them. Source routes are
read and forgotten (section 4.1.1.3, appendix C). Where there is no domain, `host!user` is user at host
(UUCP), and relayed no more than if it were so written; else `%` and `!` have no meaning in a local part.

Printable characters beyond ASCII, in UTF-8, can stand in a local part or domain (RFC 6531 section 3.3); that
the client may use them is for the caller to see to. Such a domain becomes A-labels (IDNA 2008, with the
mappings of UTS 46).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

import idna

from postoffice.mail.address import Address
from postoffice.mail.reply import Refusal, Reply

DOMAIN_LIMIT = 255
PATH_LIMIT = 256
"""Octets of a domain, and of a path with its angle brackets (section 4.5.3.1).

The 64 octets that section allows for a local part are not insisted on: mailing lists and forwarders
write whole addresses into theirs.
"""

BAD_SENDER = Reply(501, (1, 7), "The sender address is not well-formed")
BAD_RECIPIENT = Reply(501, (1, 3), "The recipient address is not well-formed")
UNKNOWN_PARAMETER = Reply(555, (5, 4), "Parameter not recognized")
BAD_PARAMETER = Reply(501, (5, 4), "A parameter is not well-formed")
DUPLICATE_PARAMETER = Reply(501, (5, 4), "A parameter is given twice")
BAD_SIZE = Reply(501, (5, 4), "SIZE takes a number of octets")
BAD_RET = Reply(501, (5, 4), "RET takes FULL or HDRS")
BAD_ENVID = Reply(501, (5, 4), "ENVID takes at most 100 characters as xtext")
BAD_NOTIFY = Reply(501, (5, 4), "NOTIFY takes NEVER, or some of SUCCESS, FAILURE and DELAY")
BAD_ORCPT = Reply(501, (5, 4), "ORCPT takes an address type, a semicolon and an address as xtext")
BAD_AUTH = Reply(501, (5, 4), "AUTH takes <> or an address as xtext")
BAD_BODY = Reply(501, (5, 4), "BODY takes 7BIT or 8BITMIME")

ParameterTable = Mapping[bytes, tuple[str, Callable[[bytes], Any]]]
"""By keyword in upper case: the name the value goes by, and the parser of it (b"" where no value stands)."""

# Groups are atomic and repetitions possessive, so that nothing is ever tried twice.
_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_DOT_STRING = rb"%b(?>\.%b)*+" % (_ATEXT, _ATEXT)
_QUOTED = rb'"(?>[ !#-\[\]-~]|\\[ -~])++"'
_LABEL = rb"(?!-)[A-Za-z0-9_-]{1,63}+(?<!-)"
_DOMAIN = rb"%b(?>\.%b)*+" % (_LABEL, _LABEL)
_WIDE_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]++"
_WIDE_DOT_STRING = rb"%b(?>\.%b)*+" % (_WIDE_ATEXT, _WIDE_ATEXT)
_WIDE_QUOTED = rb'"(?>[ !#-\[\]-~\x80-\xff]|\\[ -~])++"'
_WIDE_LABEL = rb"(?!-)[A-Za-z0-9_\x80-\xff-]{1,252}+(?<!-)"
_WIDE_DOMAIN = rb"%b(?>\.%b)*+" % (_WIDE_LABEL, _WIDE_LABEL)
_LITERAL = rb"\[[0-9A-Za-z.:]++\]"
_MAILBOX = rb"(?P<local>%b|%b)(?:@(?P<domain>%b|%b))?" % (_DOT_STRING, _QUOTED, _DOMAIN, _LITERAL)
_WIDE = (_WIDE_DOT_STRING, _WIDE_QUOTED, _WIDE_DOMAIN, _LITERAL)
_WIDE_MAILBOX = rb"(?P<local>%b|%b)(?:@(?P<domain>%b|%b))?" % _WIDE
_ROUTE = rb"(?:@%b(?>,@%b)*+:)?" % (_DOMAIN, _DOMAIN)
_DOMAIN_ALONE = re.compile(rb"%b\Z" % _DOMAIN).match
_PATH = re.compile(rb"<%b%b>(?= |\Z)" % (_ROUTE, _MAILBOX)).match
_BARE = re.compile(rb"%b(?= |\Z)" % _MAILBOX).match
_WIDE_PATH = re.compile(rb"<%b>(?= |\Z)" % _WIDE_MAILBOX).match
_WIDE_BARE = re.compile(rb"%b(?= |\Z)" % _WIDE_MAILBOX).match
_QUOTED_PAIR = re.compile(r"\\(.)")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*\Z").match
_DIGITS = re.compile(rb"[0-9]{1,20}\Z").match
# What could end a comment or an address in the Received field the name is written to is not let in.
# RFC 3461 section 4; what is encoded is printable ASCII, so that it can stand in a report.
_XTEXT = rb"(?>[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))"
_ENVID = re.compile(rb"%b{1,100}\Z" % _XTEXT).match
_ORCPT = re.compile(rb"[A-Za-z0-9-]{1,40};(?>%b|[\x80-\xff]){1,500}\Z" % _XTEXT).match
_AUTH = re.compile(rb"(?:<>|%b{1,500})\Z" % _XTEXT).match
_HOST = re.compile(rb"[!#-'*+./0-9:=?A-Z\[\]^_`a-z{|}~-]{1,255}\Z").match


def parse_path(data: bytes, bad: Reply = BAD_RECIPIENT) -> tuple[Address, bytes]:
    """Read a path at the beginning of `data`: the address, and what follows (empty or from a blank on).

    Errors: `Refusal` with `bad`, also for the null path.
    """
    found = _PATH(data) or _BARE(data)
    if found is None and not data.isascii() and is_legible(data):
        found = _WIDE_PATH(data) or _WIDE_BARE(data)
    if found is None:
        raise Refusal(bad)
    local, domain = found.group("local", "domain")
    if domain is None:
        if data.startswith(b"<@"):
            raise Refusal(bad)
        host, _, user = local.partition(b"!")
        domain = b""
        if user and is_domain(host):
            local, domain = user, host
    elif len(domain) > DOMAIN_LIMIT or (domain[0] == 0x5B and not _is_literal(domain)):
        raise Refusal(bad)
    elif not domain.isascii():
        domain = _to_ascii(domain, bad)
    if len(local) + len(domain) + 3 > PATH_LIMIT:
        raise Refusal(bad)
    name = local.decode("utf-8")
    if name[0] == '"':
        name = _QUOTED_PAIR.sub(r"\1", name[1:-1])
    return Address(name, domain.decode("ascii")), data[found.end() :]


def parse_reverse_path(data: bytes) -> tuple[Address | None, bytes]:
    """Like `parse_path` for a sender: None is the null path `<>`. Errors: `Refusal` with 501 5.1.7."""
    if data.startswith(b"<>") and data[2:3] in b" ":
        return None, data[2:]
    return parse_path(data, BAD_SENDER)


def parse_address(text: str) -> Address:
    """An address that stands alone, with or without angle brackets. Errors: `Refusal` with 501 5.1.3."""
    if not text.isprintable():
        raise Refusal(BAD_RECIPIENT)
    address, rest = parse_path(text.encode("utf-8"))
    if rest:
        raise Refusal(BAD_RECIPIENT)
    return address


def parse_parameters(data: bytes, table: ParameterTable) -> dict[str, Any]:
    """Read what follows a path: the values of the parameters given, by the names of `table`.

    Errors: `Refusal` with 555 5.5.4 for a parameter that is not in the table, 501 5.5.4 for others.
    """
    values: dict[str, Any] = {}
    for parameter in data.split():
        keyword, equals, value = parameter.partition(b"=")
        known = table.get(keyword.upper())
        if known is None:
            raise Refusal(UNKNOWN_PARAMETER if _KEYWORD(keyword) else BAD_PARAMETER)
        name, parse = known
        if name in values:
            raise Refusal(DUPLICATE_PARAMETER)
        if equals and not value:
            raise Refusal(BAD_PARAMETER)
        values[name] = parse(value)
    return values


def is_legible(line: bytes) -> bool:
    """Whether a line that is not printable ASCII is at least printable UTF-8."""
    try:
        return line.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def parse_nothing(value: bytes) -> bool:
    """The value of a parameter that takes none, as SMTPUTF8 (RFC 6531 section 3.4)."""
    if value:
        raise Refusal(BAD_PARAMETER)
    return True


def parse_size(value: bytes) -> int:
    """The value of SIZE, at most 20 digits (RFC 1870 section 3)."""
    if not _DIGITS(value):
        raise Refusal(BAD_SIZE)
    return int(value)


def parse_body(value: bytes) -> str:
    """The value of BODY (RFC 6152 section 2)."""
    body = value.upper()
    if body not in (b"7BIT", b"8BITMIME"):
        raise Refusal(BAD_BODY)
    return body.decode("ascii")


def parse_ret(value: bytes) -> str:
    """The value of RET (RFC 3461 section 4.3)."""
    ret = value.upper()
    if ret not in (b"FULL", b"HDRS"):
        raise Refusal(BAD_RET)
    return ret.decode("ascii")


def parse_envid(value: bytes) -> str:
    """The value of ENVID (RFC 3461 section 4.4), as it came."""
    if not _ENVID(value):
        raise Refusal(BAD_ENVID)
    return value.decode("ascii")


def parse_notify(value: bytes) -> str:
    """The value of NOTIFY (RFC 3461 section 4.1): upper case, in the order SUCCESS, FAILURE, DELAY."""
    given = value.upper().split(b",")
    if given == [b"NEVER"]:
        return "NEVER"
    known = [word for word in (b"SUCCESS", b"FAILURE", b"DELAY") if word in given]
    if len(known) != len(given):
        raise Refusal(BAD_NOTIFY)
    return b",".join(known).decode("ascii")


def parse_orcpt(value: bytes) -> str:
    """The value of ORCPT (RFC 3461 section 4.2), as it came."""
    if not _ORCPT(value) or not (value.isascii() or is_legible(value)):
        raise Refusal(BAD_ORCPT)
    return value.decode("utf-8")


def check_auth(value: bytes) -> None:
    """Look at the value of AUTH (RFC 4954 section 5). Nobody's word on who wrote a letter is passed on."""
    if not _AUTH(value):
        raise Refusal(BAD_AUTH)


def decode_xtext(text: str) -> str:
    """What xtext stands for: printable ASCII if it was read by one of the parsers above."""
    return _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), text)


def is_domain(name: bytes) -> bool:
    """Whether this is a domain, and no literal."""
    return len(name) <= DOMAIN_LIMIT and _DOMAIN_ALONE(name) is not None


def is_host(name: bytes) -> bool:
    """Whether a HELO or EHLO name can be taken: one to 255 printable octets without blanks, quotes,
    parentheses or other characters that have a meaning in a header field.

    Names that are no domain are common and prove nothing either way; judging them is policy.
    """
    return _HOST(name) is not None


@lru_cache(maxsize=1024)
def _to_ascii(domain: bytes, bad: Reply) -> bytes:
    try:
        name = idna.encode(domain.decode("utf-8"), uts46=True)
    except UnicodeError:
        raise Refusal(bad) from None
    if not is_domain(name):
        raise Refusal(bad)
    return name


def _is_literal(domain: bytes) -> bool:
    """Whether an address literal holds an address (section 4.1.3)."""
    text = domain[1:-1].decode("ascii")
    try:
        if text[:5].upper() == "IPV6:":
            IPv6Address(text[5:])
        else:
            IPv4Address(text)
    except AddressValueError:
        return False
    return True
