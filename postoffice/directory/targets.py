"""What an alias, a `.forward` file or a user map can name: addresses, files, commands and lists.

Pure. Used by the parser of alias files, which checks every target when a file is read, and by expansion,
which reads the targets of one name again when it needs them. Quotes protect blanks and commas, and a
backslash whatever follows it inside of them; a `#` behind a blank begins a comment.

Errors: `ValueError` that says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from postoffice.mail.address import Address
from postoffice.mail.reply import Refusal
from postoffice.smtp.grammar import parse_address

_INCLUDE = ":include:"
# One target up to a comma or the end: quoted strings, and runs of anything else.
_PIECE = re.compile(r'(?>[^",\\]|\\.|"(?>[^"\\]|\\.)*")*+')
_COMMENT = re.compile(r'(?>[^"#\\\s]|\\.|"(?>[^"\\]|\\.)*"|(?<!\s)#|\s(?!#))*+')
_QUOTED = re.compile(r'"((?>[^"\\]|\\.)*+)"\Z')
_PAIR = re.compile(r"\\(.)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@frozen
class ToFile:
    """Append to a file: `/path`."""

    path: str


@frozen
class ToCommand:
    """Run a command: `|text`, for the shell."""

    text: str


@frozen
class Include:
    """The targets in another file: `:include:/path`."""

    path: str


Target = Address | ToFile | ToCommand | Include


def without_comment(text: str) -> str:
    """A line up to its comment. Errors: `ValueError` for quotes that do not end."""
    if "#" not in text and '"' not in text:
        return text
    if text[0] == "#":
        return ""
    found = _COMMENT.match(text)
    assert found is not None
    rest = text[found.end() :].lstrip()
    if rest[:1] in ('"', "\\"):
        raise ValueError("a quote has no end")
    return text[: found.end()]


def read_targets(text: str) -> tuple[Target, ...]:
    """The targets of one name, in order. The text is one line without a comment."""
    return tuple(_read(piece) for piece in split(text))


def split(text: str) -> Iterator[str]:
    """The texts between commas; empty ones are left out. Errors: `ValueError` for quotes that do not end."""
    at = 0
    while at <= len(text):
        found = _PIECE.match(text, at)
        assert found is not None
        at = found.end()
        if at < len(text) and text[at] != ",":
            raise ValueError("a quote has no end")
        piece = found[0].strip()
        if piece:
            yield piece
        at += 1


def _read(piece: str) -> Target:
    whole = _unquoted(piece)
    if _CONTROL.search(whole):
        raise ValueError("a target holds a control character")
    match whole[:1]:
        case "|":
            command = _unquoted(whole[1:].strip()).strip()
            if not command:
                raise ValueError("there is no command behind |")
            return ToCommand(command)
        case "/":
            return ToFile(whole)
        case ":":
            path = whole[len(_INCLUDE) :].strip()
            if whole[: len(_INCLUDE)].lower() != _INCLUDE or not path.startswith("/"):
                raise ValueError(f"{whole[:80]!r} is not of the form :include:/path")
            return Include(path)
    return _address(piece)


def _unquoted(text: str) -> str:
    """What is in the quotes, where they are around all of it."""
    found = _QUOTED.match(text)
    return _PAIR.sub(r"\1", found[1]) if found else text


def _address(piece: str) -> Address:
    # A backslash in front keeps a name from being an alias elsewhere; here only its own name does.
    text = piece[1:] if piece[0] == "\\" else piece
    try:
        address = parse_address(text)
    except Refusal:
        address = None
    if address is None or text.startswith("~/"):
        raise ValueError(f"{piece[:80]!r} is not an address, a /file or a |command")
    return address
