"""Alias files: lines of `name: target, target`, and lines that go on with a blank in front.

`parse_aliases` is called by whoever keeps such a file, in a thread where it is long: it takes a million
aliases. Everything is checked then, and kept as text; the targets of a name are read when it is asked for.
Names are compared without case. A name given twice: the first wins, and `twice` tells the others.

Errors: `Mistake` with the line. `aliases(5)` of other servers has the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from time import sleep

from attrs import frozen

from postoffice.directory.targets import (
    Include,
    Target,
    ToCommand,
    ToFile,
    read_targets,
    without_comment,
)
from postoffice.mail.address import Address
from postoffice.watched import SMALL, Mistake

#: Octets of one alias with its continuation lines; longer lists belong into a file of their own (:include:).
LONGEST = 1 << 20
# A table holds the names of about so many octets, so that a large file is let go of a piece at a time.
_PIECE = 1 << 16
_MOST_TOLD = 20
#: The most lists of one file that anybody is told of.
MOST_LISTS = 1000

# A part of what the grammar of addresses allows.
_ATOM = r"[A-Za-z0-9_+=-]++"
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}+(?<!-)"
_ADDRESS = rf"{_ATOM}(?>\.{_ATOM})*+(?:@{_LABEL}(?>\.{_LABEL})*+)?"
# What most lines look like, so that the others alone need a closer look.
_PLAIN = re.compile(rb"([A-Za-z0-9_][A-Za-z0-9_.+=-]*+)[ \t]*+:[ \t]*+([!-~][ -~]*+)\r?\n?\Z")
_ADDRESSES = re.compile(rf"{_ADDRESS}(?>\s*,\s*{_ADDRESS})*+\s*\Z")
# No address can be longer than it may be in so many characters.
_SHORT = 250
# Aliases after which a thread that reads a large file lets others have the interpreter, and for how long.
_AT_ONCE = 1000
_REST = 0.001
_NAME = re.compile(r'(?>[^\s:"#\\,]|\\.|"(?>[^"\\]|\\.)*")++')
_BLANKS = b" \t"


class Aliases:
    """The aliases of one file of `size` octets: what stands behind each name.

    `twice` holds line and name of repeated names, `included` line and path of lists; neither holds many.
    """

    def __init__(self, size: int = 0) -> None:
        # Addresses alone, without blanks, as text; everything else as octets.
        self._pieces: list[dict[str, str | bytes]] = [{} for _ in range(1 + size // _PIECE)]
        self.count = 0
        #: Octets of the longest list of targets, and of all with their names, as they are kept.
        self.longest = 0
        self.total = 0
        self.twice: list[tuple[int, str]] = []
        self.included: list[tuple[int, str]] = []

    def find(self, name: str) -> tuple[Target, ...] | None:
        """The targets of a name, None where it is no alias."""
        key = name.lower()
        text = self._pieces[hash(key) % len(self._pieces)].get(key)
        if isinstance(text, str):
            return tuple(_address(piece) for piece in text.split(","))
        return None if text is None else read_targets(text.decode())

    def add(self, number: int, name: str, text: str | bytes) -> None:
        """Take an alias that was checked, as it is kept."""
        key = name.lower()
        piece = self._pieces[hash(key) % len(self._pieces)]
        if key in piece:
            if len(self.twice) < _MOST_TOLD:
                self.twice.append((number, name))
            return
        piece[key] = text
        self.count += 1
        # What is kept as text is ASCII.
        self.total += len(text) + len(key.encode())
        self.longest = max(self.longest, len(text))

    def clear(self) -> None:
        """Let go of everything, a little at a time: in a thread, so that nobody waits for it."""
        while self._pieces:
            self._pieces.pop()


@frozen
class Rules:
    """What may not stand in a kind of alias file, and why."""

    refused: tuple[type, ...] = ()
    why: str = ""

    def check(self, targets: tuple[Target, ...]) -> None:
        """Errors: `ValueError`."""
        if any(isinstance(target, self.refused) for target in targets):
            raise ValueError(self.why)


SYSTEM = Rules()
VIRTUAL = Rules(
    (ToFile, ToCommand, Include), "only addresses can stand in the alias file of a virtual domain"
)
PERSONAL = Rules((Include,), ":include: is for the alias file of the system")


def parse_aliases(data: bytes, rules: Rules) -> Aliases:
    """Read an alias file."""
    aliases = Aliases(len(data))
    for count, (number, line) in enumerate(_lines(data), 1):
        if count % _AT_ONCE == 0 and len(data) > SMALL:
            sleep(_REST)
        plain = _PLAIN.match(line)
        if plain is not None:
            name, text = plain[1].decode("ascii"), plain[2].decode("ascii")
            if _ADDRESSES.match(text):
                text = "".join(text.split())
                if len(text) < _SHORT or max(map(len, text.split(","))) < _SHORT:
                    aliases.add(number, name, text)
                    continue
        try:
            name, text = read_entry(line.decode())
            targets = _checked(text, rules)
        except UnicodeDecodeError:
            raise Mistake(number, "not UTF-8") from None
        except ValueError as error:
            raise Mistake(number, str(error)) from None
        aliases.add(number, name, text.encode())
        if len(aliases.included) < MOST_LISTS:
            aliases.included += [(number, target.path) for target in targets if isinstance(target, Include)]
    return aliases


def _address(text: str) -> Address:
    local, _, domain = text.partition("@")
    return Address(local, domain)


def parse_list(data: bytes, rules: Rules) -> tuple[Target, ...]:
    """Read a file of targets alone, in lines or between commas, such as `.forward` or an included one."""
    return tuple(target for _, targets in list_lines(data, rules) for target in targets)


def list_lines(data: bytes, rules: Rules) -> Iterator[tuple[int, tuple[Target, ...]]]:
    """The lines of such a file: their numbers and targets."""
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            targets = read_targets(without_comment(line.decode().strip()))
            rules.check(targets)
        except UnicodeDecodeError:
            raise Mistake(number, "not UTF-8") from None
        except ValueError as error:
            raise Mistake(number, str(error)) from None
        yield number, targets


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each alias as one line, continuation lines and comments taken out, with the number of its first."""
    pieces: list[bytes] = []
    start = size = 0
    for number, line in enumerate(BytesIO(data), 1):
        first = line[:1]
        if first in b"#\r\n" or not (stripped := line.strip()) or stripped[:1] == b"#":
            # A comment, or an empty line; neither ends what goes on behind it.
            continue
        if first in _BLANKS:
            if not pieces:
                raise Mistake(number, "the line goes on with an alias, and there is none before it")
        elif pieces:
            yield start, pieces[0] if len(pieces) == 1 else joined(start, pieces)
            pieces.clear()
            size = 0
        if not pieces:
            start = number
        size += len(line)
        if size > LONGEST:
            raise Mistake(start, f"longer than {LONGEST} octets; put the list into a file, with :include:")
        pieces.append(line)
    if pieces:
        yield start, pieces[0] if len(pieces) == 1 else joined(start, pieces)


def joined(start: int, lines: list[bytes]) -> bytes:
    """Lines as one. Each may end with a comment of its own."""
    try:
        return " ".join(without_comment(line.decode().strip()) for line in lines).encode()
    except UnicodeDecodeError:
        raise Mistake(start, "not UTF-8") from None
    except ValueError as error:
        raise Mistake(start, str(error)) from None


def read_entry(line: str) -> tuple[str, str]:
    """Name and targets of one alias. Errors: `ValueError`."""
    line = without_comment(line.strip())
    found = _NAME.match(line)
    rest = line[found.end() :].lstrip() if found else ""
    if found is None or not rest.startswith(":"):
        raise ValueError("not of the form name: target, target")
    name = found[0]
    if name[0] == '"' == name[-1] and len(name) > 2:
        name = name[1:-1]
    if "@" in name:
        raise ValueError(f"the name {name[:80]!r} has a domain; write the part before the @ alone")
    return name, rest[1:].strip()


def _checked(text: str, rules: Rules) -> tuple[Target, ...]:
    targets = read_targets(text)
    if not targets:
        raise ValueError("the alias has no target")
    rules.check(targets)
    return targets
