"""The kinds of values options have, and how each is read from text.

A `Kind` is what the option table (`postoffice.config.options`) names in its type column. Every
parser takes the text behind the `=` and returns a value, or raises `ValueError` whose message says
what is wrong and what would be right; file, line and option are added by whoever reads the file.
Addresses, sockets and mailboxes are in `postoffice.config.places`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

from attrs import frozen

Network = IPv4Network | IPv6Network
Place = Literal["", "file", "directory", "made", "socket", "log"]

_NUMBER = re.compile(r"([0-9]{1,15})([A-Za-z]?)\Z")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?\Z")
_ATOM = r"[A-Za-z0-9_!#$%&'*+/=?^`{|}~-]+"
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_MAP_TARGET = re.compile(
    r"(?:~(?:/[^/\x00-\x1f\x7f\"\\][^\x00-\x1f\x7f\"\\]*)?"
    r"|[/|][^\x00-\x1f\x7f\"\\]*[^\x00-\x20\x7f\"\\]"
    rf"|(?![~|/]){_ATOM}(?:\.{_ATOM})*(?:@{_LABEL}(?:\.{_LABEL})*)?)\Z"
)
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?\Z")
_WORD = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*\Z")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_DECIMAL = {"k": 1000, "m": 1000**2, "g": 1000**3}
_BINARY = {"": 1024, "k": 1024, "m": 1024**2, "g": 1024**3}
_LISTINGS = IPv4Network("127.0.0.0/8")
_FLAGS = {"1": True, "yes": True, "on": True, "0": False, "no": False, "off": False}


@frozen
class Kind:
    """How the values of an option are written: `form` for people, `parse` for us.

    With `bare`, the name alone is allowed and means 1. With `spreads`, one text may stand for
    several values: `parse` returns a tuple. `place` says what a path that was set must lead to: a `file` or a
    `directory` that is read, a directory that is `made` at the start, a `socket` in such a one, a `log`.
    """

    form: str
    parse: Callable[[str], Any]
    bare: bool = False
    spreads: bool = False
    place: Place = ""


@frozen
class Disposition:
    """What happens to unwanted mail. `text` is the reason for `bounce` and the path for `folder`."""

    mode: Literal["bounce", "accept", "folder"]
    text: str = ""


@frozen
class Rate:
    """At most `count` letters in `period` seconds; `scope` is `net`, `user`, a domain, or empty."""

    scope: str
    count: int
    period: int


def flag(text: str) -> bool:
    """Yes or no."""
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not a flag; use 1 or 0") from None


def _counted(text: str, units: dict[str, int], hint: str) -> int:
    found = _NUMBER.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a number; {hint}")
    unit = found[2].lower()
    if unit and unit not in units:
        raise ValueError(f"{text!r} has an unknown unit {found[2]!r}; {hint}")
    return int(found[1]) * units.get(unit, 1)


def count(text: str) -> int:
    """A whole number without a unit."""
    return _counted(text, {}, "use digits only")


def duration(text: str) -> int:
    """Seconds, or a number of minutes, hours, days or weeks."""
    return _counted(text, _SECONDS, "use seconds, or a number with m, h, d or w")


def _size(text: str) -> int:
    return _counted(text, _DECIMAL, "use bytes, or a number with k, m or g")


def _space(text: str) -> int:
    return _counted(text, _BINARY, "use KiB, or a number with m or g")


def _positive(text: str) -> int:
    value = count(text)
    if not value:
        raise ValueError("must be at least 1")
    return value


def port(text: str, least: int = 1) -> int:
    """A TCP or UDP port."""
    value = count(text)
    if not least <= value <= 65535:
        raise ValueError(f"{text!r} is not a port; use a number from {least} to 65535")
    return value


def path(text: str) -> str:
    """An absolute path without a final slash: the service's working directory is nobody's business."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path; begin it with /")
    return text.rstrip("/") or "/"


def domain(text: str) -> str:
    """A domain name in ASCII, lower case, without a final dot."""
    if not text.isascii():
        raise ValueError(f"{text!r} is not a domain name; write an international name in its xn-- form")
    if len(text) > 254 or not _DOMAIN.match(text):
        raise ValueError(f"{text!r} is not a domain name")
    return text.lower().rstrip(".")


def _account(text: str) -> str:
    if not _ACCOUNT.match(text):
        raise ValueError(f"{text!r} is not the name of an account or group")
    return text


def choice(*words: str) -> Callable[[str], str]:
    """What reads one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not known; use one of {', '.join(words)}")
        return text

    return parse


def _listed(item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(item(word.strip()) for word in text.split(","))

    return parse


def wait(text: str) -> int:
    """A duration that is none of 0."""
    seconds = duration(text)
    if not seconds:
        raise ValueError("a wait must be longer than 0")
    return seconds


def network(text: str) -> Network:
    """A network, or the one address that it is."""
    try:
        return ip_network(text.strip("[]"))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network ({error}); use for example 192.0.2.0/24") from None


def disposition(text: str) -> Disposition:
    """`bounce[:why]`, `accept` or `folder:path`."""
    mode, colon, rest = text.partition(":")
    match mode:
        case "bounce":
            return Disposition("bounce", rest.strip())
        case "accept" if not colon:
            return Disposition("accept")
        case "folder":
            return Disposition("folder", _folder(rest.strip()))
    raise ValueError(f"{text!r} is not known; use bounce, bounce:REASON, accept or folder:PATH")


def _folder(text: str) -> str:
    name = text[2:] if text.startswith("~/") else ""
    below_home = bool(name) and not {"", ".", ".."} & set(name.removesuffix("/").split("/"))
    if not below_home and not _WORD.match(text):
        raise ValueError(f"malformed folder path {text!r}; use ~/name or a word without a slash")
    return text


def _per_period(text: str, scope: str) -> Rate:
    number, slash, period = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} has no period; use N/period, for example 100/1h")
    return Rate(scope, _positive(number), wait(period))


def _rate(text: str) -> Rate:
    scope, colon, rest = text.partition(":")
    if not colon:
        return _per_period(text, "")
    return _per_period(rest, choice("net", "user")(scope))


def _pace(text: str) -> Rate:
    scope, colon, rest = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} names no domain; use domain:N/period")
    return _per_period(rest, scope if scope == "*" else domain(scope))


def _tls(text: str) -> tuple[str, str]:
    name, colon, level = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} names no domain; use domain:LEVEL, or *:LEVEL for all")
    return name if name == "*" else domain(name), choice("none", "may", "encrypt", "verify")(level)


def _prefixes(text: str) -> tuple[int, int]:
    first, slash, second = text.partition("/")
    if not slash or count(first) > 32 or count(second) > 128:
        raise ValueError(f"{text!r} is not a pair of prefix lengths; use for example 32/128")
    return count(first), count(second)


def _command(text: str) -> str:
    if not text.startswith("|") or not text[1:].strip():
        raise ValueError(f"{text!r} is not a command; begin it with |")
    return text[1:].strip()


def _dns_list(text: str) -> tuple[str, str]:
    """A zone, and the address that a record of it must have to count (empty: any)."""
    zone, equals, code = text.partition("=")
    if not equals:
        return domain(zone), ""
    address = f"127.0.0.{code}" if code.isdigit() else code
    try:
        known = IPv4Address(address) in _LISTINGS
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{code!r} is no answer of a list; use an address that begins with 127, or its end")
    return domain(zone), address


def _usermap(text: str) -> str:
    pattern, _, targets = text.partition(":")
    if not pattern or not targets.strip(", "):
        raise ValueError(f"{text!r} is not a user map; use pattern:target")
    if pattern.count("~") > 1:
        raise ValueError(f"{text!r} has more than one ~ in its pattern")
    for word in filter(None, map(str.strip, targets.split(","))):
        if not _MAP_TARGET.match(word) or ".." in word.split("/"):
            raise ValueError(f"{word!r} is no target; use ~, ~/file, an address, /file or |command")
        if word.startswith("~") and "~" not in pattern:
            raise ValueError(f"the target {word} needs a ~ in the pattern")
    return text


def _hostname(text: str) -> str:
    return text if text in {"auto", "literal"} else domain(text)


def _two_paths(text: str) -> tuple[str, str]:
    allow, comma, deny = text.partition(",")
    if not comma:
        raise ValueError(f"{text!r} is not a pair of files; use ALLOW,DENY")
    return path(allow.strip()), path(deny.strip())


def _separators(text: str) -> str:
    if any(sign.isalnum() or sign in '@"\\ ' or not sign.isascii() for sign in text):
        raise ValueError(f"{text!r} cannot separate parts of a name; use signs such as + or -")
    return text


FLAG = Kind("1 or 0", flag, bare=True)
COUNT = Kind("N", count, bare=True)
POSITIVE = Kind("N", _positive, bare=True)
DURATION = Kind("N seconds, m h d w", duration, bare=True)
SIZE = Kind("N bytes, k m g (decimal)", _size, bare=True)
SPACE = Kind("N KiB, m g", _space, bare=True)
PORT = Kind("port", port, bare=True)
PATH = Kind("/path", path)
READ_FILE = Kind("/path", path, place="file")
READ_DIRECTORY = Kind("/path", path, place="directory")
TWO_FILES = Kind("/path,/path", _two_paths, place="file")
MADE_DIRECTORY = Kind("/path", path, place="made")
MADE_SOCKET = Kind("/path", path, place="socket")
DOMAIN = Kind("domain", domain)
HOSTNAME = Kind("auto, literal or a name", _hostname)
ACCOUNT = Kind("name", _account)
DISPOSITION = Kind("bounce[:why], accept or folder:path", disposition)
BARE_NEWLINE = Kind("normalize or reject", choice("normalize", "reject"))
AUTH_SOURCES = Kind("list of virtual, passwd, pam", _listed(choice("virtual", "passwd", "pam")))
WAITS = Kind("list of times", _listed(wait))
NETWORKS = Kind("list of networks", _listed(network), spreads=True)
RATE = Kind("[net:|user:]N/period", _rate)
PACE = Kind("domain:N/period", _pace)
TLS = Kind("domain:none|may|encrypt|verify", _tls)
PREFIXES = Kind("v4/v6", _prefixes)
COMMAND = Kind("|command", _command)
DNS_LIST = Kind("zone[=code]", _dns_list)
USERMAP = Kind("pattern:target{,target}", _usermap)
SEPARATORS = Kind("characters", _separators)
