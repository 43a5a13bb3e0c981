"""The text of a configuration file, as assignments that remember where they stand.

A line is `name` or `name=value`. `#` starts a comment anywhere, blank lines are skipped, blanks
around name and value are trimmed, a bare name means 1. Double quotes protect `#` and blanks; inside
them `\\"` and `\\\\` stand for `"` and `\\`. The commands read two options by the same rules with
`postoffice.wire.read_options`; a test holds the two together.
"""

from __future__ import annotations

import re

from attrs import frozen

from postoffice.quoting import unquoted

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PLAIN = re.compile(r'[^\s#"](?:[^#"]*[^\s#"])?\Z')


@frozen
class Origin:
    """Where an option was set: a line of a file (counted from 1), or `-o` where `line` is 0."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@frozen
class Assignment:
    """One `name=value`; `bare` when only the name was given."""

    name: str
    value: str
    origin: Origin
    bare: bool = False


@frozen
class Problem:
    """One thing wrong with a configuration; `option` is empty when no option could be made out."""

    origin: Origin
    option: str
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.origin), self.option, self.what) if part)


@frozen
class Parsed:
    """What a text holds: its assignments in order, and the lines that are none."""

    assignments: tuple[Assignment, ...]
    problems: tuple[Problem, ...]


def parse(text: str, filename: str) -> Parsed:
    """Split a file into assignments. Never raises: what is wrong with a line is a problem of that line."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        origin = Origin(filename, number)
        try:
            plain = _unquote(line.rstrip("\r"))
        except ValueError as error:
            problems.append(Problem(origin, "", str(error)))
            continue
        if plain:
            _take(plain, origin, assignments, problems)
    return Parsed(tuple(assignments), tuple(problems))


def parse_override(text: str) -> Parsed:
    """Read the argument of one `-o`. The shell has undone the quoting, so quotes and `#` are ordinary."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    origin = Origin("-o")
    if _CONTROL.search(text):
        problems.append(Problem(origin, "", "a control character is not allowed"))
    else:
        name, equals, value = text.partition("=")
        _take((name.strip(), bool(equals), value.strip()), origin, assignments, problems)
    return Parsed(tuple(assignments), tuple(problems))


def _take(
    plain: tuple[str, bool, str], origin: Origin, assignments: list[Assignment], problems: list[Problem]
) -> None:
    name, has_value, value = plain
    if not name:
        problems.append(Problem(origin, "", "no option is named; write name or name=value"))
    else:
        assignments.append(Assignment(name, value if has_value else "1", origin, bare=not has_value))


def _unquote(line: str) -> tuple[str, bool, str] | None:
    """Name, whether there is a value, and the value; None for a line that says nothing."""
    if _CONTROL.search(line):
        raise ValueError("a control character is not allowed")
    name, equals, rest = line.partition("=")
    if "#" in name:
        name, equals, rest = name.partition("#")[0], "", ""
    if '"' in name:
        raise ValueError("quotes are allowed in values only")
    name = name.strip()
    if not name and not equals:
        return None
    return name, bool(equals), _value(rest)


def _value(text: str) -> str:
    value = unquoted(text)
    if value is None:
        raise ValueError('a quote is not closed; end the value with "')
    return value


def quote(value: str) -> str:
    """Write a value so that `parse` reads the same one back."""
    if _PLAIN.match(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
