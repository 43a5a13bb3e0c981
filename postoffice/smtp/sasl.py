"""The exchanges of AUTH: PLAIN (RFC 4616) and LOGIN, from what the client sends to a name and a password.

Used by the session, one `Exchange` for each AUTH command; it has no I/O and knows no accounts. LOGIN was
never a standard: its challenges are exactly `Username:` and `Password:`, because clients compare them.

What is not well-formed raises `Refusal` with 501, and so does `*`, by which a client gives up; what can be
no log-in of anybody (no name, no password, an identity other than the one that logs in) raises 535, as a
wrong password is answered. Nothing raised or shown holds what the client sent. RFC 4954 section 4.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Generator

from attrs import field, frozen

from postoffice.mail.reply import Refusal, Reply

LIMIT = 255
"""The most octets of a name and of a password (RFC 4616 section 2)."""

UNKNOWN_MECHANISM = Reply(504, (5, 4), "Authentication mechanism not known, use PLAIN or LOGIN")
CANCELLED = Reply(501, (7, 0), "Authentication cancelled")
NOT_BASE64 = Reply(501, (5, 2), "That is not base64")
MALFORMED = Reply(501, (5, 2), "That is not what the mechanism asks for")
INVALID = Reply(535, (7, 8), "Authentication credentials invalid")


@frozen
class Credentials:
    """A name, printable and never empty, and the password that is to prove it, without NULs."""

    user: str
    password: bytes = field(repr=False)


_Steps = Generator[bytes, bytes, Credentials]


class Exchange:
    """One exchange: `begin` once, then `respond` for each line, until either returns `Credentials`.

    A `Reply` that is returned goes on with the exchange; `Refusal` ends it. Errors: `Refusal` with 504 for
    a mechanism that is not known.
    """

    def __init__(self, mechanism: str) -> None:
        steps = _MECHANISMS.get(mechanism.upper())
        if steps is None:
            raise Refusal(UNKNOWN_MECHANISM)
        self._steps = steps()

    def begin(self, initial: str | None) -> Reply | Credentials:
        """Take what stands behind the mechanism: None if nothing does, `=` for an empty response."""
        challenge = next(self._steps)
        if initial is None:
            return _challenge(challenge)
        return self._answer(b"" if initial == "=" else _decoded(initial.encode("ascii")))

    def respond(self, line: bytes) -> Reply | Credentials:
        """Take a line of the client's."""
        if line == b"*":
            raise Refusal(CANCELLED)
        return self._answer(_decoded(line))

    def _answer(self, response: bytes) -> Reply | Credentials:
        try:
            return _challenge(self._steps.send(response))
        except StopIteration as end:
            credentials: Credentials = end.value
            return credentials


def _challenge(text: bytes) -> Reply:
    return Reply(334, None, b64encode(text).decode("ascii"))


def _decoded(line: bytes) -> bytes:
    try:
        return b64decode(line, validate=True)
    except NotBase64:
        # What was sent may be a password.
        raise Refusal(NOT_BASE64) from None


def _plain() -> _Steps:
    fields = (yield b"").split(b"\0")
    if len(fields) != 3:
        raise Refusal(MALFORMED)
    identity, user, password = fields
    if identity not in (b"", user):
        raise Refusal(INVALID, "asked to act as somebody else")
    return _credentials(user, password)


def _login() -> _Steps:
    user = yield b"Username:"
    password = yield b"Password:"
    return _credentials(user, password)


def _credentials(user: bytes, password: bytes) -> Credentials:
    if len(user) > LIMIT or len(password) > LIMIT or b"\0" in user or b"\0" in password:
        raise Refusal(MALFORMED)
    try:
        name = user.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(MALFORMED) from None
    if not name.isprintable():
        raise Refusal(MALFORMED)
    if not name or not password:
        raise Refusal(INVALID, "without a name or without a password")
    return Credentials(name, password)


_MECHANISMS: dict[str, Callable[[], _Steps]] = {"LOGIN": _login, "PLAIN": _plain}

MECHANISMS = " ".join(_MECHANISMS)
"""The mechanisms as EHLO lists them."""
