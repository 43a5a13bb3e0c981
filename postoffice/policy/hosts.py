"""Lists of clients in the language of hosts_access(5), made for finding a client in them quickly.

Used by `postoffice.policy.access`, which gives them the words of a rule. A list of tens of thousands of
addresses costs a client no more than a short one. Words that mean nothing raise `ValueError` with what is
wrong with them; net groups, files of patterns and user names are not supported.
"""

from __future__ import annotations

import re
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from attrs import frozen

_WORDS = frozenset({"ALL", "LOCAL", "KNOWN", "UNKNOWN", "PARANOID"})
_DEEPEST = 50
_PREFIX = re.compile(r"(?:[0-9]{1,3}\.){1,3}\Z")
_NAME = re.compile(r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?\Z")


@frozen
class Subject:
    """A client as rules see it. `claimed` is a name that is not confirmed, where none is confirmed."""

    ip: str
    name: str | None
    claimed: str | None = None


@frozen
class Hosts:
    """A list of clients, made for finding one of them quickly. `but` are those that are left out."""

    words: frozenset[str]
    exact: frozenset[str]
    suffixes: frozenset[str]
    networks: dict[tuple[int, int], frozenset[int]]
    globs: tuple[re.Pattern[str], ...]
    but: Hosts | None

    def has(self, subject: Subject) -> bool:
        """Whether the list names the client."""
        return self._names(subject) and not (self.but is not None and self.but.has(subject))

    @property
    def by_name(self) -> bool:
        """Whether the answer may depend on the client's name."""
        if self.but is not None and self.but.by_name:
            return True
        names = bool(self.suffixes or self.globs or self.words - {"ALL"})
        return names or any(not _is_address(each) for each in self.exact)

    def _names(self, subject: Subject) -> bool:
        name = (subject.name or "").lower()
        if subject.ip in self.exact or (name and name in self.exact) or self._by_word(subject):
            return True
        if self.networks and self._by_network(subject.ip):
            return True
        if self.suffixes and name:
            labels = name.split(".")
            if any("." + ".".join(labels[at:]) in self.suffixes for at in range(1, len(labels))):
                return True
        return any(glob.match(subject.ip) or (name and glob.match(name)) for glob in self.globs)

    def _by_word(self, subject: Subject) -> bool:
        if not self.words:
            return False
        kind = "KNOWN" if subject.name else "PARANOID" if subject.claimed else "UNKNOWN"
        local = bool(subject.name) and "." not in (subject.name or "")
        return "ALL" in self.words or kind in self.words or (local and "LOCAL" in self.words)

    def _by_network(self, ip: str) -> bool:
        address = ip_address(ip)
        number, bits = int(address), address.max_prefixlen
        return any(
            version == address.version and number >> (bits - length) in found
            for (version, length), found in self.networks.items()
        )


def hosts_of(words: list[str]) -> Hosts:
    """A list from its words. Errors: `ValueError`."""
    named, excepted, rest = split(words)
    patterns = [_pattern(word) for word in named]
    networks: dict[tuple[int, int], set[int]] = {}
    for each in patterns:
        if isinstance(each, IPv4Network | IPv6Network):
            key = each.version, each.prefixlen
            number = int(each.network_address) >> (each.max_prefixlen - each.prefixlen)
            networks.setdefault(key, set()).add(number)
    texts = [each for each in patterns if isinstance(each, str)]
    return Hosts(
        words=frozenset(each for each in texts if each in _WORDS),
        exact=frozenset(each for each in texts if each not in _WORDS and not each.startswith(".")),
        suffixes=frozenset(each for each in texts if each.startswith(".")),
        networks={key: frozenset(numbers) for key, numbers in networks.items()},
        globs=tuple(each for each in patterns if isinstance(each, re.Pattern)),
        but=hosts_of(rest) if excepted else None,
    )


def _pattern(word: str) -> str | IPv4Network | IPv6Network | re.Pattern[str]:
    """What one word of a list of clients means. Errors: `ValueError`."""
    if word in _WORDS:
        return word
    if "@" in word or word.startswith("/"):
        raise ValueError(f"{word[:80]!r}: user names, net groups and files of patterns are not supported")
    if _PREFIX.match(word):
        parts = word.split(".")[:-1]
        return ip_network(f"{'.'.join(parts + ['0'] * (4 - len(parts)))}/{8 * len(parts)}")
    plain = word.replace("[", "").replace("]", "") if word.startswith("[") else word
    if "/" in plain:
        return ip_network(plain)
    if _is_address(plain):
        return str(ip_address(plain))
    if "*" in word or "?" in word:
        return re.compile(translate(word.lower()))
    if not _NAME.match(word) or word.rstrip(".").rpartition(".")[2].isdigit():
        raise ValueError(f"{word[:80]!r} is neither a host nor a network")
    return word.lower().removesuffix(".")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def split(words: list[str]) -> tuple[list[str], bool, list[str]]:
    """A list, whether something is left out of it, and the list of that, which may leave out again."""
    if "EXCEPT" not in words:
        return words, False, []
    if words.count("EXCEPT") > _DEEPEST:
        raise ValueError("EXCEPT stands too often in it")
    at = words.index("EXCEPT")
    if at == 0 or at == len(words) - 1:
        raise ValueError("EXCEPT stands between two lists")
    return words[:at], True, words[at + 1 :]
