"""Filters as the configuration names them: a milter's socket or a Python class, and settings behind it.

Same rules as `postoffice.config.values`: text in, a frozen value out, `ValueError` that says what
would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import field, frozen

from postoffice.config.places import socket_host
from postoffice.config.values import Kind, Network, choice, flag, network, path, port, wait


@frozen
class FilterRule:
    """A filter: a milter at the unix socket `path`, or at `host` and `port`, or the class `python`.

    Times are seconds, None for the filter's usual ones; `max_data` is in octets, `deny` some of `CHANGES`.
    `daemon_name` has names by the port of a listener, that for all others at 0. Clients of the networks in
    `skip` are not for the filter, nor with `login` among them those that have logged in.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    python: str = ""
    timeout: int | None = None
    connect_timeout: int | None = None
    on_error: Literal["tempfail", "accept", "reject", "shutdown", "quarantine"] = "tempfail"
    version: int = 6
    when: Literal["smtp", "submit", "all"] = "all"
    max_data: int = 65535
    ignore_denied_actions: bool = False
    oversize_header: Literal["fail", "skip"] = "fail"
    lazy: bool = False
    deny: frozenset[str] = frozenset()
    daemon_name: Mapping[int, str] = field(factory=dict)
    skip: tuple[Network | Literal["login"], ...] = ()


CHANGES = (
    *("add-headers", "change-headers", "change-body", "add-recipients", "remove-recipients"),
    *("change-sender", "quarantine"),
)
"""What a milter may be denied to do to a letter."""


def _changes(text: str) -> frozenset[str]:
    denied = frozenset(map(choice(*CHANGES), text.split("+")))
    if denied >= {*CHANGES} - {"change-sender"}:
        # A milter that is offered nothing takes that for the oldest protocol, and assumes some. Another
        # sender is nothing that each version knows.
        raise ValueError("something has to be left that the filter may do")
    return denied


def _daemon_names(text: str) -> Mapping[int, str]:
    names: dict[int, str] = {}
    for word in text.split("+"):
        number, colon, name = word.partition(":")
        if not colon:
            number, name = "", word
        if not re.fullmatch(r"[!-~]+", name):
            raise ValueError(f"{word!r} is no word; use NAME or PORT:NAME, with + between them")
        names[port(number) if number else 0] = name
    return names


def _skip(text: str) -> tuple[Network | Literal["login"], ...]:
    return tuple("login" if word == "login" else network(word) for word in text.split("+"))


_FILTER_OPTIONS: dict[str, Callable[[str], Any]] = {
    "timeout": wait,
    "connect-timeout": wait,
    "on-error": choice("tempfail", "accept", "reject", "shutdown", "quarantine"),
    "version": lambda text: int(choice("2", "3", "4", "6")(text)),
    "when": choice("smtp", "submit", "all"),
    "max-data": lambda text: {"64K": 65535, "256K": 262143, "1M": 1048575}[
        choice("64K", "256K", "1M")(text.upper())
    ],
    "ignore-denied-actions": flag,
    "oversize-header": choice("fail", "skip"),
    "lazy": flag,
    "deny": _changes,
    "daemon-name": _daemon_names,
    "skip": _skip,
}
_FOR_ALL = frozenset({"timeout", "on-error", "when", "lazy", "skip"})
_PYTHON_CLASS = re.compile(r"python:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)\Z").match
_FILTER_OPTION = re.compile(r",(?=[a-z-]+=)")


def _filter(text: str) -> FilterRule:
    place, *rest = _FILTER_OPTION.split(text, maxsplit=1)
    given: dict[str, Any] = {}
    for word in rest[0].split(",") if rest else ():
        name, equals, value = word.partition("=")
        read = _FILTER_OPTIONS.get(name)
        if read is None:
            raise ValueError(f"{name!r} is no setting of a filter; use {', '.join(_FILTER_OPTIONS)}")
        try:
            given[name] = read(value if equals else "1")
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    python = _PYTHON_CLASS(place)
    idle = given.keys() - _FOR_ALL if python else ()
    if idle:
        raise ValueError(f"{', '.join(sorted(idle))}: for milters only; no use to a Python filter")
    values = {name.replace("-", "_"): value for name, value in given.items()}
    if python:
        return FilterRule(python=python[1], **values)
    if place.startswith("/"):
        return FilterRule(path=path(place), **values)
    host, colon, number = place.rpartition(":")
    if place.startswith("python:") or not colon or not host or (":" in host and not host.startswith("[")):
        raise ValueError(f"{place!r} is not a filter; use /path, host:port or python:package.module:Class")
    return FilterRule(host=socket_host(host), port=port(number), **values)


FILTER = Kind("ADDRESS[,name=value...]", _filter)
