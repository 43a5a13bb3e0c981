"""Lanes: the attempts for each destination, so many at a time, the rest in the order they came.

Used by the scheduler. All lanes together have a bound, which they share in turn, and a lane that is full
takes no more, so that a host that is slow or dead does not take the room of mail for others. A
destination that could not be reached counts as dead for a while, and what waits for it is given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from postoffice.interfaces import IContent
from postoffice.mail.destination import Command, Destination, File, Lmtp, Mailbox, Remote
from postoffice.mail.envelope import Claim, Recipient
from postoffice.mail.outcome import Outcome, Postponed

# Attempts at once to one destination. Letters for one mailbox share the work of the disk.
_REMOTE = 20
_MAILBOX = 32
_PROGRAM = 10
# Attempts at once to other hosts in all; each takes a socket.
REMOTE_AT_ONCE = 400
# Attempts that may wait in one lane.
WAITING = 500
# Seconds for which a destination that could not be reached is not tried again, at the most.
DEAD_FOR = 60.0
# Seconds after which what found its lane full comes again, at the most.
CROWDED = 60.0


@frozen
class Job:
    """One attempt to make: recipients of one claimed letter that share a destination."""

    claim: Claim
    content: IContent
    destination: Destination
    recipients: tuple[Recipient, ...]


class _Lane:
    """The attempts for one destination."""

    __slots__ = ("active", "advancing", "ended", "held", "remote", "since", "turn", "waiting", "width")

    def __init__(self, destination: Destination, now: float) -> None:
        self.width = _width(destination)
        self.remote = isinstance(destination, Remote)
        self.active = 0
        self.waiting: deque[Job] = deque()
        self.held = False
        self.advancing = False
        # How many attempts ended since then, and when the last one that found no room comes again.
        self.since = now
        self.ended = 0
        self.turn = 0.0

    def count(self, now: float) -> None:
        """An attempt ended. What is long ago counts less."""
        self.ended += 1
        if self.ended > 2 * WAITING:
            self.ended //= 2
            self.since = (self.since + now) / 2

    def next_turn(self, now: float) -> float:
        """When one more may come again: when half of what waits has gone, at the pace of the attempts."""
        pace = (now - self.since) / self.ended if self.ended else CROWDED
        self.turn = min(max(self.turn, now + pace * WAITING / 2) + pace, now + CROWDED)
        # In whole seconds, so that many come at once.
        return float(ceil(self.turn))


class Lanes:
    """All lanes. A job is started by calling `start`; tell `ended` when its attempt is over.

    `first_wait` is when letters that were put off come again, in seconds: a dead host is tried then.
    """

    def __init__(
        self, start: Callable[[Job], None], clock: IReactorTime, first_wait: float = DEAD_FOR
    ) -> None:
        self._start = start
        self._clock = clock
        self.adapt(first_wait)
        self._lanes: dict[Destination, _Lane] = {}
        # Attempts to other hosts under way, and the lanes that wait because there are too many.
        self._remote = 0
        self._held: deque[_Lane] = deque()
        self._dead: dict[Destination, tuple[float, Outcome]] = {}
        self._closed = False

    def adapt(self, first_wait: float) -> None:
        """Letters that are put off come again after so many seconds."""
        self._dead_for = min(DEAD_FOR, first_wait / 2)

    def dead(self, destination: Destination) -> Outcome | None:
        """How the last attempt ended, where it found the destination unreachable a short time ago."""
        known = self._dead.get(destination)
        if known is None:
            return None
        until, outcome = known
        if self._clock.seconds() < until:
            return outcome
        del self._dead[destination]
        return None

    def full(self, destination: Destination) -> bool:
        """Whether too much waits for a destination already."""
        lane = self._lanes.get(destination)
        return lane is not None and len(lane.waiting) >= WAITING

    def room_at(self, destination: Destination) -> float:
        """When a job that found its lane full may come again; not the same for all, lest all come at once."""
        return self._lanes[destination].next_turn(self._clock.seconds())

    def put(self, job: Job) -> None:
        """Start a job, or keep it until there is room."""
        lane = self._lanes.get(job.destination)
        if lane is None:
            lane = self._lanes[job.destination] = _Lane(job.destination, self._clock.seconds())
        lane.waiting.append(job)
        self._advance(lane)

    def ended(self, job: Job, outcome: Outcome) -> list[Job]:
        """An attempt ended like that. The jobs returned are not to be tried: nobody is there to take them."""
        destination = job.destination
        lane = self._lanes[destination]
        lane.active -= 1
        lane.count(self._clock.seconds())
        self._remote -= lane.remote
        dropped: list[Job] = []
        if unreachable(outcome):
            self._dead[destination] = (self._clock.seconds() + self._dead_for, outcome)
            dropped = list(lane.waiting)
            lane.waiting.clear()
        elif self._dead:
            self._dead.pop(destination, None)
        # Those that wait for their turn go first.
        while self._held and self._remote < REMOTE_AT_ONCE:
            other = self._held.popleft()
            other.held = False
            self._advance(other)
        self._advance(lane)
        if not lane.active and not lane.waiting:
            self._lanes.pop(destination, None)
        return dropped

    def forget_dead(self, all_of_them: bool = False) -> None:
        """Let go of what is known of hosts that may be back (or of all); call it now and then."""
        now = self._clock.seconds()
        self._dead = {
            place: known for place, known in self._dead.items() if now < known[0] and not all_of_them
        }

    def close(self) -> None:
        """Forget what waits, and start nothing more."""
        self._closed = True
        for lane in self._lanes.values():
            lane.waiting.clear()

    def _advance(self, lane: _Lane) -> None:
        if lane.advancing:
            # An attempt that ended while it was being started; the loop that started it goes on.
            return
        lane.advancing = True
        while lane.waiting and lane.active < lane.width and not self._closed:
            if lane.remote and self._remote >= REMOTE_AT_ONCE:
                if not lane.held:
                    lane.held = True
                    self._held.append(lane)
                break
            lane.active += 1
            self._remote += lane.remote
            self._start(lane.waiting.popleft())
        lane.advancing = False


def unreachable(outcome: Outcome) -> bool:
    """Whether no host of a destination was reached: no connection (441), or no answer of the DNS."""
    if type(outcome) is not Postponed:
        return False
    reply = outcome.reply
    return reply.code == 441 or (not outcome.where and reply.enhanced == (4, 3))


def _width(destination: Destination) -> int:
    match destination:
        case Remote():
            return _REMOTE
        case Mailbox() | File():
            return _MAILBOX
        case Command() | Lmtp():
            return _PROGRAM
