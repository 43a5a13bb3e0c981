"""The audit records of one session: what the client said, and with which code it was answered.

Made by the session, which asks whether records are wanted before it calls. Passwords never get into a
record: of AUTH only the mechanism is told, and what is no command is not told where it may be the rest
of a log-in that failed.
"""

from __future__ import annotations

import re

from twisted.internet.interfaces import IReactorTime

from postoffice.interfaces import IJournal
from postoffice.mail.client import Client
from postoffice.mail.reply import Reply

# Replies in the middle of a command; the record is made of the last one.
_GOES_ON = frozenset({334, 354})
_MECHANISM = re.compile(r"(?i:LOGIN|PLAIN)\Z|[A-Z0-9_-]{3,20}\Z").match


class Audit:
    """Makes records for the session that began now."""

    __slots__ = ("_began", "_clock", "_ended", "_journal", "_log_in_failed")

    def __init__(self, journal: IJournal, clock: IReactorTime) -> None:
        self._journal = journal
        self._clock = clock
        self._began = clock.seconds()
        self._log_in_failed = False
        self._ended = False

    def connected(self, client: Client, code: int, why: str) -> None:
        """The client was greeted, or turned away for a reason."""
        self._ended = code >= 400
        self._record(client, "CONN", code, why)

    def answered(self, client: Client, line: bytes, known: bool, reply: Reply) -> None:
        """A command was answered: `line` as it came, which is `known` or not."""
        if reply.code in _GOES_ON:
            return
        verb, _, argument = line.partition(b" ")
        command = verb.upper().decode("latin-1")
        text = line.decode("latin-1")
        if command == "AUTH":
            mechanism = argument.lstrip().partition(b" ")[0].decode("latin-1")
            if mechanism:
                # What has no such form may be a password that came too early.
                text = f"{text[:4]} {mechanism} *" if _MECHANISM(mechanism) else f"{text[:4]} *"
            self._log_in_failed = reply.code != 235
        elif known:
            self._log_in_failed = False
        elif self._log_in_failed:
            command = text = "*"
        self._ended = command == "QUIT"
        self._record(client, command, reply.code, text)

    def ended(self, client: Client, how: str) -> None:
        """The session is over; told only where the client did not say so itself."""
        if not self._ended:
            self._record(client, "QUIT", 421, how)

    def _record(self, client: Client, command: str, code: int, info: str) -> None:
        self._journal.audit(client, int(self._clock.seconds() - self._began), command, code, info)
