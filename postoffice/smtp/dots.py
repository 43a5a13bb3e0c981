"""Lines that begin with a dot: RFC 5321 section 4.5.2. Used to encode and decode content."""

from __future__ import annotations

import re

# Several times faster than bytes.find, which has no memchr for needles of more than one byte.
_SEARCH = re.compile(rb"\r\n\.").search


def find_dot_line(text: bytes, end: int) -> int:
    """Where the first CRLF in front of a dot is, that ends before `end`; -1 if there is none.

    Single bytes are sought twenty times faster than the three, so only what lies between the first and the
    last dot is looked through: the header alone, in a letter whose body is base64.
    """
    first = text.find(b".", 0, end)
    if first < 0:
        return -1
    found = _SEARCH(text, max(first - 2, 0), text.rfind(b".", first, end) + 1)
    return found.start() if found else -1
