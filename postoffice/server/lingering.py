"""Clients that are refused in place of the banner and yet stay.

Used by the session when policy or filters turned a client away. `linger` is for those that policy would not
have come back at once: each command is answered with 502 after a pause, until patience runs out or the client
quits; the doorkeeper bounds how many there are. `refuse_all` is for those that got a 554, which by RFC 5321
section 3.1 is followed by 503 to everything until the client quits; they count as clients.

Errors: `Disconnected` and `TimedOut`, as in any conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from postoffice.mail.reply import Reply
from postoffice.server.link import Link
from postoffice.smtp.events import Event, Mail, Quit

# Seconds before a command is answered, and how many commands are.
PAUSE = 30.0
PATIENCE = 5
# Seconds that whoever got a 554 may stay.
LONGEST = 3600.0

NOTHING_DONE = Reply(502, (7, 1), "We take nothing from your host, as we said when you connected")
REFUSED_ALL = Reply(503, (5, 1), "We take nothing from you in this session, as we said when you connected")
TOO_MANY_ERRORS = Reply(421, (7, 0), "Too many errors, closing the connection")
BYE = Reply(221, (0, 0), "Goodbye")

Record = Callable[[Event, Reply], None]


async def linger(link: Link, reply: Reply, record: Record) -> None:
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


async def refuse_all(link: Link, reply: Reply, most: int, record: Record) -> None:
    """Give `reply` in place of the banner, and refuse at most so many commands (0: any number) after that.

    Nobody stays longer than `LONGEST`, where commands have a limit of time at all.
    """
    link.greet(reply, stay=True)
    deadline = link.clock.seconds() + LONGEST
    for number in count(1):
        event = await link.next_event()
        enough = number == most or (link.heard > deadline and link.pace.idle)
        answer = BYE if isinstance(event, Quit) else TOO_MANY_ERRORS if enough else REFUSED_ALL
        record(event, answer)
        link.answer(answer)
        if link.engine.closing:
            return
        if isinstance(event, Mail):
            # As whenever it is refused.
            link.hurry(True)
