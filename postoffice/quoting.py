"""Quotes and comments in the value of an option, as a configuration file writes them.

Used by the parser of the service (`postoffice.config.parser`) and by what the commands read of the same
file (`postoffice.wire`). Standard library only.
"""

from __future__ import annotations

import re

_PIECES = re.compile(r'"((?:[^"\\]|\\.)*)"|([^"#]+)|(#)|"')
_ESCAPED = re.compile(r'\\(["\\])')


def unquoted(text: str) -> str | None:
    """The value without quotes and comment, or None where a quote is not closed.

    Blanks at either end go unless they are quoted.
    """
    text = text.strip()
    done: list[str] = []
    for piece in _PIECES.finditer(text):
        quoted, plain, comment = piece.groups()
        if comment is not None:
            break
        if plain is not None:
            done.append(plain.rstrip() if text.startswith("#", piece.end()) else plain)
        elif quoted is not None:
            done.append(_ESCAPED.sub(r"\1", quoted))
        else:
            return None
    return "".join(done)
