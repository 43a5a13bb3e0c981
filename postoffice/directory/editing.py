"""Changes to the text of passwd and alias files of virtual domains: what they do not concern stays as it is.

Pure; `postoffice.directory.virtual_files` calls it in a thread. What is returned is the whole new text, and
the parsers that mail is delivered by read it as it was meant.

Errors: `Mistake` where the file as it is cannot be understood, `Declined` where there is nothing to change,
or what is asked for cannot stand in such a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO

from attrs import frozen

from postoffice.directory.accounts import is_fit, parse_passwd
from postoffice.directory.aliases import VIRTUAL, joined, parse_aliases, read_entry
from postoffice.directory.targets import Target, read_targets, split, without_comment
from postoffice.interfaces import Declined
from postoffice.mail.reply import Refusal, printable
from postoffice.smtp.grammar import parse_address
from postoffice.watched import Mistake

CATCH_ALL = "*"
_WIDTH = 100


def set_user(data: bytes, name: str, stored: str, new: bool) -> bytes:
    """Put a hash behind a user's name; with `new`, add the user."""
    if not is_fit(name):
        raise Declined(f"{printable(name, 80)!r} cannot be the name of a user", os.EX_DATAERR)
    user = parse_passwd(data).get(name.lower())
    if new and user is not None:
        raise Declined(f"there is a user {user.name} already", os.EX_DATAERR)
    if new:
        changed = _ended(data) + f"{name}:{stored}\n".encode()
    elif user is None:
        raise _no_user(name)
    else:
        lines = data.split(b"\n")
        lines[_line_of(user.name, lines)] = f"{user.name}:{stored}".encode()
        changed = b"\n".join(lines)
    assert parse_passwd(changed)[name.lower()].stored == stored
    return changed


def remove_user(data: bytes, name: str) -> bytes:
    """Take a user out."""
    user = parse_passwd(data).get(name.lower())
    if user is None:
        raise _no_user(name)
    lines = data.split(b"\n")
    del lines[_line_of(user.name, lines)]
    return b"\n".join(lines)


def list_aliases(data: bytes) -> list[tuple[str, str]]:
    """Names and targets in the order of the file."""
    parse_aliases(data, VIRTUAL)
    return [(entry.name, ", ".join(split(entry.text))) for entry in _entries(list(BytesIO(data)))]


def set_alias(data: bytes, name: str, texts: Sequence[str]) -> bytes:
    """Have a name stand for these targets and nothing else; its line stays where it is.

    A comment at the end of its first line stays, too.
    """
    _check_name(name)
    targets = _read(texts)
    parse_aliases(data, VIRTUAL)
    lines = list(BytesIO(data))
    entry = next((entry for entry in _entries(lines) if entry.name.lower() == name.lower()), None)
    if entry is None:
        new = _ended(data) + _written(name, targets)
    else:
        first, *others = entry.lines
        lines[first] = _written(entry.name, targets, _comment(lines[first].decode().strip()))
        new = _without(lines, others)
    try:
        if parse_aliases(new, VIRTUAL).find(name) == targets:
            return new
    except Mistake:
        pass
    raise Declined("the alias would not be read as it is written", os.EX_DATAERR)


def remove_alias(data: bytes, name: str) -> bytes:
    """Take an alias out, however often it is there."""
    parse_aliases(data, VIRTUAL)
    lines = list(BytesIO(data))
    gone = [at for entry in _entries(lines) if entry.name.lower() == name.lower() for at in entry.lines]
    if not gone:
        raise Declined(f"there is no alias {printable(name, 80)}", os.EX_NOUSER)
    return _without(lines, gone)


@frozen
class _Entry:
    """An alias of a file: its name and targets as text, and the indices of its lines."""

    name: str
    text: str
    lines: tuple[int, ...]


def _entries(lines: list[bytes]) -> list[_Entry]:
    """The aliases of a file that was understood, in their order."""
    groups: list[list[int]] = []
    for at, line in enumerate(lines):
        if line[:1] in b"#\r\n" or not (stripped := line.strip()) or stripped[:1] == b"#":
            continue
        if line[:1] in b" \t":
            groups[-1].append(at)
        else:
            groups.append([at])
    found: list[_Entry] = []
    for group in groups:
        whole = joined(group[0], [lines[at] for at in group]) if len(group) > 1 else lines[group[0]]
        found.append(_Entry(*read_entry(whole.decode()), tuple(group)))
    return found


def _check_name(name: str) -> None:
    """Whether it can be an alias: what stands before the @ of an address as it is, or the catch-all."""
    try:
        known = name == CATCH_ALL or parse_address(f"{name}@local.invalid").local == name
        if known and read_entry(f"{name}: x") == (name, "x"):
            return
    except (Refusal, ValueError):
        pass
    raise Declined(f"{printable(name, 80)!r} cannot be the name of an alias", os.EX_DATAERR)


def _read(texts: Sequence[str]) -> tuple[Target, ...]:
    try:
        targets = tuple(target for text in texts for target in read_targets(text))
        VIRTUAL.check(targets)
    except ValueError as error:
        raise Declined(str(error), os.EX_DATAERR) from None
    if not targets:
        raise Declined("the alias needs a target", os.EX_DATAERR)
    return targets


def _written(name: str, targets: Sequence[Target], comment: str = "") -> bytes:
    """The lines of an alias."""
    lines = [f"{name}: {targets[0]}"]
    for target in targets[1:]:
        text = str(target)
        if len(lines[-1]) + len(text) + 2 > _WIDTH:
            lines[-1] += ","
            lines.append(f"\t{text}")
        else:
            lines[-1] += f", {text}"
    if comment:
        lines[0] += f"  {comment}"
    return "".join(f"{line}\n" for line in lines).encode()


def _comment(line: str) -> str:
    return line[len(without_comment(line)) :].strip()


def _without(lines: list[bytes], gone: Sequence[int]) -> bytes:
    left_out = frozenset(gone)
    return b"".join(line for at, line in enumerate(lines) if at not in left_out)


def _line_of(name: str, lines: list[bytes]) -> int:
    start = f"{name}:".encode()
    return next(at for at, line in enumerate(lines) if line.startswith(start))


def _ended(data: bytes) -> bytes:
    return data if data.endswith(b"\n") or not data else data + b"\n"


def _no_user(name: str) -> Declined:
    return Declined(f"there is no user {printable(name, 80)}", os.EX_NOUSER)
