"""Values that name a place: sockets to listen on, hosts to send to, mailboxes, logs.

Same rules as `postoffice.config.values`: text in, a frozen value out, `ValueError` that says what
would be right.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from attrs import frozen

from postoffice.config.values import Kind, domain, path, port
from postoffice.mail.destination import Remote

_ENDPOINTS = ("tcp", "tcp6", "unix", "systemd", "fd")
_PERCENT = re.compile(r"%(.?)")


@frozen
class Tcp:
    """A TCP socket of our own: `host` is an address or a name of this machine; port 0 takes a free one."""

    host: str
    port: int


@frozen
class Endpoint:
    """A Twisted server endpoint description such as `unix:/run/x` or `systemd:domain=INET:index=0`."""

    description: str


Listen = Tcp | Endpoint


@frozen
class NameServer:
    """A DNS server to ask: an address as text, and its port."""

    ip: str
    port: int = 53


@frozen
class MailboxRule:
    """Where mailboxes lie. `template` may hold `%u` (user), `%d` (domain) and `%%`.

    An `mbox` template is the directory that holds a file for each user; a `maildir` template is the
    Maildir itself, and may begin with `~/` for the user's home. That of `lmtp` is the path of a socket, or
    `host:port`.
    """

    kind: Literal["mbox", "maildir", "lmtp"]
    template: str


@frozen
class LogTarget:
    """Where the log goes. `path` is set for `file` only; `json` asks for structured records."""

    kind: Literal["syslog", "stderr", "journal", "file"]
    path: str = ""
    json: bool = False


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def socket_host(text: str) -> str:
    """A host name or address of a socket; brackets only around an IPv6 address."""
    if text.startswith("[") and text.endswith("]"):
        found = _address(text[1:-1])
        if not isinstance(found, IPv6Address):
            raise ValueError(f"{text!r} is not an IPv6 address in brackets")
        return str(found)
    return str(_address(text) or domain(text))


def _listen(text: str) -> tuple[Listen, ...]:
    if text.isdigit():
        number = port(text)
        return Tcp("0.0.0.0", number), Tcp("::", number)
    word, colon, rest = text.partition(":")
    if colon and rest and word in _ENDPOINTS:
        return (Endpoint(text),)
    host, colon, number_text = text.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise ValueError(
            f"{text!r} is not a place to listen; use a port, host:port, [v6]:port, *:port"
            f" or an endpoint of type {', '.join(_ENDPOINTS)}"
        )
    number = port(number_text, 0)
    if host == "*":
        return Tcp("0.0.0.0", number), Tcp("::", number)
    return (Tcp(socket_host(host), number),)


def _listen_or(standard: int | None) -> Kind:
    def parse(text: str) -> tuple[Listen, ...]:
        if text == "0":
            return ()
        if text == "1":
            if standard is None:
                raise ValueError("needs a port or a place to listen")
            return _listen(str(standard))
        return _listen(text)

    form = "port, or a value as for listen"
    return Kind(f"1 for {standard}, {form}" if standard else form, parse, bare=standard is not None)


def _name_server(text: str) -> NameServer:
    found = _address(text.strip("[]"))
    if found:
        return NameServer(str(found))
    host, colon, number = text.rpartition(":")
    found = _address(host.strip("[]")) if colon else None
    if not found:
        raise ValueError(f"{text!r} is not an address; use ip, ip:port or [v6]:port")
    return NameServer(str(found), port(number))


def _literal(text: str) -> str | None:
    """An address as the literal an envelope would name it by, None if it is no address."""
    found = _address(text.removeprefix("IPv6:"))
    if found is None:
        return None
    return f"[IPv6:{found}]" if isinstance(found, IPv6Address) else f"[{found}]"


def _relay_host(text: str) -> Remote:
    host, number = text, 0
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not a host; use name, name:port, [name] or [ip]:port")
        return Remote(_literal(inner) or domain(inner), port(rest[1:]) if rest else 0, direct=True)
    literal = _literal(text)
    if literal:
        return Remote(literal, direct=True)
    if ":" in text:
        host, _, digits = text.rpartition(":")
        number = port(digits)
    return Remote(_literal(host) or domain(host), number, direct=bool(number))


def _trusted(text: str) -> str:
    """A host name, or an address without its brackets."""
    if text.startswith("[") and text.endswith("]"):
        found = _address(text[1:-1].removeprefix("IPv6:"))
        if not found:
            raise ValueError(f"{text!r} is not an address in brackets")
        return str(found)
    return str(_address(text) or domain(text))


def _mailbox(text: str, virtual: bool) -> MailboxRule:
    kind, colon, template = text.partition(":")
    if kind == "lmtp" and colon:
        return MailboxRule("lmtp", _lmtp(template))
    if kind not in ("mbox", "maildir") or not template:
        raise ValueError(
            f"{text!r} is not a kind of mailbox; use mbox:DIR, maildir:PATH, lmtp:/socket or lmtp:host:port"
        )
    for sign in _PERCENT.findall(template):
        if sign not in ("u", "d", "%"):
            raise ValueError(f"%{sign} means nothing; use %u for the user and %d for the domain")
    homely = template == "~" or template.startswith("~/")
    if homely and virtual:
        raise ValueError("virtual users have no home; begin the path with /")
    if homely and kind == "mbox":
        raise ValueError("an mbox directory cannot begin with ~; begin it with /")
    if homely and template.rstrip("/") == "~":
        raise ValueError("the home itself cannot be a Maildir; use for example ~/Maildir")
    if kind == "maildir" and not homely and "%u" not in template.replace("%%", ""):
        raise ValueError(f"all users would share {template!r}; put %u into it")
    place = template.rstrip("/") if homely else path(template)
    return MailboxRule("mbox" if kind == "mbox" else "maildir", place)


def _lmtp(text: str) -> str:
    if text.startswith("/"):
        return path(text)
    host, colon, number = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is not a place that takes LMTP; use lmtp:/socket or lmtp:host:port")
    return f"{socket_host(host)}:{port(number)}"


def _system_mailbox(text: str) -> MailboxRule:
    return _mailbox(text, virtual=False)


def _virtual_mailbox(text: str) -> MailboxRule:
    return _mailbox(text, virtual=True)


def _log(text: str) -> LogTarget:
    json = text.startswith("json:")
    where = text.removeprefix("json:")
    match where:
        case "syslog" | "stderr" | "journal":
            return LogTarget(where, json=json)
    if not where.startswith("/"):
        raise ValueError(f"{text!r} is not a log; use syslog, stderr, journal or a file beginning with /")
    return LogTarget("file", path(where), json)


def _route(text: str) -> str:
    parts = text.removeprefix("from:").split(":", 1)
    if len(parts) < 2:
        raise ValueError(f"{text!r} is not a route; use domain:host[:port] or from:domain:host[:port]")
    domain(parts[0])
    _relay_host(parts[1])
    return text


LISTEN = Kind("port, host:port, [v6]:port, *:port or an endpoint", _listen, spreads=True)
SUBMISSION = _listen_or(587)
IMPLICIT_TLS = _listen_or(465)
SERVE = _listen_or(None)
NAME_SERVER = Kind("ip[:port]", _name_server)
RELAY_HOST = Kind("host, host:port, [host], [ip]:port", _relay_host)
TRUSTED = Kind("host or [ip]", _trusted)
_KINDS = "mbox:DIR, maildir:PATH, lmtp:/socket or lmtp:host:port"
MAILBOX = Kind(_KINDS, _system_mailbox)
VIRTUAL_MAILBOX = Kind(_KINDS, _virtual_mailbox)
LOG = Kind("[json:]syslog, stderr, journal or /file", _log, place="log")
ROUTE = Kind("[from:]domain:host[:port]", _route)
