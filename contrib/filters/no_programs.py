"""A filter for Postoffice: letters with attached programs are refused, the others are marked as seen.

Use it with `filter=python:no_programs:NoPrograms`; docs/python-filters.md tells how.
"""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from postoffice.filters.python import Facts, Filter, Letter, Verdict, reject

PROGRAMS = (".bat", ".cmd", ".com", ".exe", ".js", ".lnk", ".pif", ".scr", ".vbs")


class NoPrograms(Filter):
    """Looks at the names of what is attached."""

    async def letter(self, facts: Facts, letter: Letter) -> Verdict | None:
        """Called when all of a letter is here."""
        names = attached(message_from_bytes(await letter.content()))
        found = [name for name in names if name.lower().endswith(PROGRAMS)]
        if found:
            return reject(f"We take no programs by mail: {found[0]}")
        letter.add_header("X-Attachments", str(len(names)))
        return None


def attached(message: Message) -> list[str]:
    """The names of everything that is attached."""
    return [name for part in message.walk() if (name := part.get_filename())]
