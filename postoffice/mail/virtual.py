"""What is told of virtual domains and alias files to those who look after them."""

from __future__ import annotations

from attrs import frozen


@frozen
class VirtualDomain:
    """A line of domains.cf: the name as it is spelled there, and the account whose domain it is."""

    name: str
    owner: str
    active: bool


@frozen
class AliasSummary:
    """What an alias file holds: how many, and octets of the longest (its targets) and of all, names included.

    `twice` are lines and names of those that do not count, since the name is given before. `mistakes` and
    `warnings` are about the lists it includes, each with file and line.
    """

    file: str
    count: int
    longest: int
    total: int
    twice: tuple[tuple[int, str], ...] = ()
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
