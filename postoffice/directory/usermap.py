"""User maps: patterns for personal addresses, such as `*-~:~/.alias,bounce`.

Asked by `postoffice.directory.lookup` where nothing else knows a name. In a pattern `*` stands for any
run, also an empty one, and `~` for the name of one user who exists, of letters and digits. Everything is
compared without case. Where a name can be split in several ways, the first in this order counts: `*`
before a literal takes the last occurrence first, `*` before `~` the leftmost start, `~` the longest run;
whatever leads nowhere is taken back, and the user found on the way is forgotten. No name takes more than
the square of its length.

`parse_map` raises `ValueError`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from attrs import frozen

from postoffice.directory.targets import Include, Target, read_targets, split

U = TypeVar("U")

_RUN = re.compile(r"[a-z0-9]*+")
_TOKENS = re.compile(r"[*]+|~|[^*~]+")
_PERSONAL = re.compile(r"~/([^/\x00-\x1f\x7f][^\x00-\x1f\x7f]*)\Z")


@frozen
class TheUser:
    """The target `~`: whoever the pattern's `~` matched."""


@frozen
class Personal:
    """The target `~/file`: what a file in the home of the user matched says of the whole name."""

    file: str


@frozen
class UserMap:
    """One map: the parts of its pattern, and its targets in the order they are tried."""

    text: str
    tokens: tuple[str, ...]
    targets: tuple[TheUser | Personal | Target, ...]


def parse_map(text: str) -> UserMap:
    """Read `pattern:target{,target}`."""
    pattern, _, words = text.partition(":")
    tokens = tuple("*" if part[0] == "*" else part for part in _TOKENS.findall(pattern.lower()))
    if not tokens:
        raise ValueError("there is no pattern in front of the colon")
    if tokens.count("~") > 1:
        raise ValueError("more than one ~ in the pattern")
    targets = tuple(target for word in split(words) for target in _target(word, "~" in tokens))
    if not targets:
        raise ValueError("the pattern has no target")
    return UserMap(text, tokens, targets)


def _target(word: str, with_user: bool) -> Sequence[TheUser | Personal | Target]:
    if not word.startswith("~"):
        targets = read_targets(word)
        if any(isinstance(target, Include) for target in targets):
            raise ValueError(":include: is for the alias file of the system")
        return targets
    if not with_user:
        raise ValueError(f"{word!r} needs a ~ in the pattern")
    found = _PERSONAL.match(word)
    if word != "~" and (found is None or ".." in word.split("/")):
        raise ValueError(f"{word!r} is not of the form ~ or ~/file")
    return (Personal(found[1]) if found else TheUser(),)


class Match(Generic[U]):
    """One attempt to match a name, given in lower case, with the parts of a pattern.

    `user` finds the user of a name. After `succeeds`, `found` is the user that `~` stands for, if there is
    one.
    """

    def __init__(self, tokens: Sequence[str], name: str, user: Callable[[str], Awaitable[U | None]]) -> None:
        self._tokens = tokens
        self._name = name
        self._user = user
        # Where to begin with what part leads nowhere; who the user was does not matter for that.
        self._failed: set[tuple[int, int]] = set()
        self.found: U | None = None

    async def succeeds(self) -> bool:
        """Whether the whole name fits the whole pattern."""
        return await self._fits(0, 0)

    async def _fits(self, part: int, at: int) -> bool:
        if part == len(self._tokens):
            return at == len(self._name)
        if (part, at) in self._failed:
            return False
        match self._tokens[part]:
            case "*":
                fits = await self._star(part, at)
            case "~":
                fits = await self._tilde(part, at)
            case literal:
                fits = self._name.startswith(literal, at) and await self._fits(part + 1, at + len(literal))
        if not fits:
            self._failed.add((part, at))
        return fits

    async def _star(self, part: int, at: int) -> bool:
        if part + 1 == len(self._tokens):
            return True
        ends = range(at, len(self._name) + 1)
        for end in ends if self._tokens[part + 1] == "~" else reversed(ends):
            if await self._fits(part + 1, end):
                return True
        return False

    async def _tilde(self, part: int, at: int) -> bool:
        run = _RUN.match(self._name, at)
        assert run is not None
        for end in range(run.end(), at, -1):
            user = await self._user(self._name[at:end])
            if user is not None and await self._fits(part + 1, end):
                self.found = user
                return True
        return False
