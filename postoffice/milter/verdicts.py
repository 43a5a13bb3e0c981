"""What a filter says to an event: a closed set, the same for milters, Python filters and the AV program.

`Verdict` is what ends the wait for an answer. Texts of refusals come from strangers' programs, so they are
read strictly here: what reaches an SMTP client is a well-formed reply whatever the filter sent.
"""

from __future__ import annotations

import re

from attrs import frozen

from postoffice.mail.reply import Reply

REJECTED = Reply(550, (7, 1), "Command rejected")
PUT_OFF = Reply(451, (7, 1), "Service unavailable - try again later")
CLOSED = Reply(421, (7, 0), "Closing the connection, try again later")

# RFC 5321 section 4.5.3.1.5: 512 octets with code, enhanced code and CRLF.
_LINE = 490
_LINES = 32
_code = re.compile(r"([45][0-9][0-9])([ -]|\Z)").match
_status = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|\Z)").match
_odd = re.compile(r"[^ -~]")


@frozen
class Continue:
    """Go on; at the end of a letter: take it, with the edits that were asked for."""


@frozen
class Accept:
    """Ask no more: about this letter, or about this client where it has sent none yet."""


@frozen
class Discard:
    """Tell the client that all is well, and deliver to nobody."""


@frozen
class Refuse:
    """Refuse, for good or for now as the class of the reply's code says; 421 closes the connection too."""

    reply: Reply


@frozen
class Failed:
    """There is no verdict to be had, and why. What comes of it is for the administrator to say."""

    why: str


Verdict = Continue | Accept | Discard | Refuse | Failed


def reply_of(data: bytes) -> Reply | None:
    """The reply in a filter's own words (`550 5.7.1 text`, maybe of several lines); None for what is none.

    A text that is not well-formed is replaced by the usual one of its class.
    """
    lines = data.decode("latin-1").replace("\r\n", "\n").rstrip("\n").split("\n")
    usual = {"4": PUT_OFF, "5": REJECTED}.get(lines[0][:1])
    if usual is None:
        return None
    first = _code(lines[0])
    if first is None or len(lines) > _LINES:
        return usual
    code, last = first[1], len(lines) - 1
    texts, status = [], None
    for number, line in enumerate(lines):
        found = _code(line)
        if found is None or found[1] != code or (found[2] == "-") != (number < last):
            return usual
        text = line[4:]
        own = _status(text)
        if own is not None:
            text = text[own.end() :]
            if own[1] == code[0] and number == 0:
                status = int(own[2]), int(own[3])
        texts += _wrapped(_odd.sub("?", text.replace("%%", "%")))
    if not any(texts):
        texts = [usual.text]
    return Reply(int(code), status, "\n".join(texts))


def _wrapped(text: str) -> list[str]:
    """Lines short enough for SMTP, cut at blanks where there are any."""
    lines = []
    while len(text) > _LINE:
        at = text.rfind(" ", 1, _LINE + 1)
        at = at if at > 0 else _LINE
        lines.append(text[:at])
        text = text[at:].lstrip(" ")
    lines.append(text)
    return lines
