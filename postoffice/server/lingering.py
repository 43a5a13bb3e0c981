"""Refused clients that may stay for a while, so that they do not come back at once.

Used by the session when policy turned a client away and said so. Each command is answered with 502 after a
pause, until patience runs out or the client quits. The doorkeeper bounds how many there are.

Errors: `Disconnected` and `TimedOut`, as in any conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from postoffice.mail.reply import Reply
from postoffice.server.link import Link
from postoffice.smtp.events import Event, Quit

# Seconds before a command is answered, and how many commands are.
PAUSE = 30.0
PATIENCE = 5

NOTHING_DONE = Reply(502, (7, 1), "We take nothing from your host, as we said when you connected")
BYE = Reply(221, (0, 0), "Goodbye")


async def linger(link: Link, reply: Reply, record: Callable[[Event, Reply], None]) -> None:
    """Give `reply` in place of the banner, and refuse what is asked after that; `record` is told of each."""
    link.greet(reply, stay=True)
    for _ in range(PATIENCE):
        event = await link.next_event()
        if isinstance(event, Quit):
            record(event, BYE)
            link.answer(BYE)
            return
        await link.pause(PAUSE)
        record(event, NOTHING_DONE)
        link.answer(NOTHING_DONE)
        if link.engine.closing:
            return
