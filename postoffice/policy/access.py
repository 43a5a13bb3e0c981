"""The access files: who may connect, in the language of hosts_access(5) and hosts_options(5).

Asked by `postoffice.policy.client` at every connection. Of both files the rules for the daemon `smtp` (or
`ALL`) count: the first one in the allowing file that names the client, else the first one in the denying
file, else everybody may come in. `setenv DENY text` gives the reason of a refusal that is final, `setenv WHY
text` that of one that the client may ask to be lifted; `allow` and `deny` at the end of a rule decide
whichever file it stands in. Commands (`spawn`, `twist`, the shell command of the old form) are never run: a
warning says so, and a `twist` denies.

When things fail: see `postoffice.watched`. A mistake in a rule for another daemon is none of our business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from attrs import frozen

from postoffice.policy.hosts import Hosts, Subject, hosts_of, split
from postoffice.watched import Mistake, Watch, Watched

DAEMON = "smtp"
_EXPANSION = re.compile(r"%(.?)")
_LIST = re.compile(r"(?>(?:[^:\[]++|\[[^\]]*+\]?)*)")
_COLON = re.compile(r"(?<!\\):")
# Of no use to us, and harmless.
_IGNORED = frozenset(
    {"severity", "keepalive", "linger", "rfc931", "banners", "nice", "umask", "user", "group"}
)


@frozen
class Denied:
    """A client is denied: why, in the operator's words (maybe none), and whether that is `final`."""

    reason: str
    final: bool


@frozen
class Rule:
    """Who is meant, and what becomes of them; the reason of a refusal still has its `%` expansions."""

    hosts: Hosts
    allowed: bool
    reason: str
    final: bool

    def verdict(self, subject: Subject) -> Denied | None:
        """What the rule says of a client it names."""
        if self.allowed:
            return None
        return Denied(_EXPANSION.sub(partial(_expand, subject), self.reason), self.final)


class AccessFiles:
    """The files that allow and deny, read again when they change."""

    def __init__(self, allow: str, deny: str, watch: Watch) -> None:
        self._watch = watch
        self._paths: tuple[str, ...] = ()
        self._files: tuple[Watched[tuple[Rule, ...]], ...] = ()
        self.adapt(allow, deny)

    def adapt(self, allow: str, deny: str) -> None:
        """Use these files from now on; where they are the same, the last good version stays in use."""
        if (allow, deny) != self._paths:
            self._paths = allow, deny
            self._files = self._watched(allow, True), self._watched(deny, False)

    def _watched(self, path: str, allows: bool) -> Watched[tuple[Rule, ...]]:
        none: tuple[Rule, ...] = ()
        warn = self._watch.warn
        return Watched(path, lambda data: parse(data, path, allows, warn), none, self._watch)

    def decide(self, subject: Subject) -> Denied | None:
        """None for a client that may come in. Errors: `Unreadable`."""
        for file in self._files:
            for rule in file.get():
                if rule.hosts.has(subject):
                    return rule.verdict(subject)
        return None

    def by_name(self) -> bool:
        """Whether a decision may depend on the client's name. Errors: `Unreadable`."""
        return any(rule.hosts.by_name for file in self._files for rule in file.get())


def parse(data: bytes, path: str, allows: bool, warn: Callable[[str], None]) -> tuple[Rule, ...]:
    """The rules of a file that are for us. Errors: `Mistake`."""
    return tuple(_rules(data.decode("utf-8", "replace"), allows, lambda text: warn(f"{path}:{text}")))


def _rules(text: str, allows: bool, warn: Callable[[str], None]) -> Iterator[Rule]:
    for number, line in _lines(text):
        daemons, clients, *options = _fields(line)
        try:
            if not clients.strip():
                raise ValueError("not of the form daemons : clients")
            if _is_ours(_words(daemons)):
                hosts = hosts_of(_words(clients))
                yield _rule(hosts, allows, options, lambda text, at=number: warn(f"{at}: {text}"))  # type: ignore[misc]
        except ValueError as error:
            raise Mistake(number, str(error)) from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, continued ones as one, with the number of the first."""
    begun, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        first = first if begun else number
        begun += line.rstrip("\r")
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
            continue
        if begun.strip() and not begun.lstrip().startswith("#"):
            yield first, begun
        begun = ""
    if begun.strip():
        raise Mistake(first, "the line is continued, but there is nothing more")


def _fields(line: str) -> list[str]:
    """The parts between colons, at least two; in front brackets protect colons, behind that backslashes."""
    fields: list[str] = []
    at = 0
    while at <= len(line) and len(fields) < 2:
        found = _LIST.match(line, at)
        assert found is not None, "the pattern matches nothing, too"
        fields.append(found[0])
        at = found.end() + 1
    if at <= len(line):
        fields += [option.replace("\\:", ":") for option in _COLON.split(line[at:])]
    return fields if len(fields) > 1 else [*fields, ""]


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _is_ours(daemons: list[str]) -> bool:
    """Whether a list of daemons has ours in it. Errors: `ValueError`."""
    named, excepted, rest = split(daemons)
    found = False
    for word in named:
        name, at, _ = word.partition("@")
        if name.lower() == DAEMON and at:
            raise ValueError("rules for one address of the daemon are not supported")
        found = found or word == "ALL" or name.lower() == DAEMON
    return found and not (excepted and _is_ours(rest))


def _rule(hosts: Hosts, allows: bool, options: Iterable[str], warn: Callable[[str], None]) -> Rule:
    """A rule with its options applied. Errors: `ValueError`."""
    reason, final, allowed = "", False, allows
    for option in filter(None, map(str.strip, options)):
        keyword, _, value = option.partition(" ")
        keyword, _, other = keyword.partition("=")
        value = value.strip() or other
        match keyword.lower():
            case "allow":
                allowed = True
            case "deny":
                allowed = False
            case "setenv":
                name, _, text = value.partition(" ")
                if name in ("DENY", "WHY"):
                    reason, final = text.strip(), name == "DENY"
            case "twist":
                allowed = False
                warn("twist is not supported: clients are refused, the command is not run")
            case "spawn":
                warn("spawn is not supported: the command is not run")
            case word if word in _IGNORED:
                warn(f"{word} is not supported: it has no effect")
            case _:
                warn("shell commands are not supported: the command is not run")
    return Rule(hosts, allowed, reason, final)


def _expand(subject: Subject, sign: re.Match[str]) -> str:
    """What a `%` and the letter behind it stand for."""
    match sign[1]:
        case "a":
            return subject.ip
        case "c" | "h":
            return subject.name or subject.ip
        case "d":
            return DAEMON
        case "n":
            return subject.name or ("paranoid" if subject.claimed else "unknown")
        case "%":
            return "%"
    return ""
