"""One filter's part in one session: what it was told so far, whether it still is to be asked, what it said.

Made by `postoffice.filters.screening`, one for each filter of a session. Whatever a filter says is logged
here, with its name and the time it took, and counted for DEBUG. A line for each event that it lets go on
would be a flood: those of a letter are told with what it says to the content, or when the letter has come to
nothing; those in front of a letter when that begins, or at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from postoffice.filters.arrivals import Arrivals
from postoffice.filters.terms import ChainSettings, Member
from postoffice.interfaces import IDirectory, IFilterSession, IJournal, IPolicy, Steps
from postoffice.mail.reply import Refusal, Reply
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import Continue, Failed, Refuse, Verdict

CONTENT = "content"
"""What logs call the event that is about a whole letter."""

Event = Callable[[IFilterSession], Awaitable[Verdict]]


@frozen
class World:
    """What every session of the chain needs."""

    settings: ChainSettings
    directory: IDirectory
    policy: IPolicy
    journal: IJournal
    new_id: Callable[[], str]
    clock: IReactorTime
    arrivals: Arrivals


class Leg:
    """One filter in a session. It may be `out` of this letter, or have `failed` and why.

    `mark` is what it said against the client itself, which every letter bears, `helo_mark` against its
    greeting.
    """

    __slots__ = ("_counts", "_facts", "_longest", "_seconds", "_world", "failed", "helo_mark", "mark",
                 "member", "opened", "out", "session")  # fmt: skip

    def __init__(self, member: Member, facts: Facts, world: World) -> None:
        self.member = member
        self._facts = facts
        self._world = world
        # What it let go on and is not told yet: how often each event, seconds of all, and the longest.
        self._counts: dict[str, int] = {}
        self._seconds = self._longest = 0.0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing was said yet."""
        self.session: IFilterSession = self.member.filter.session()
        self.opened = self.out = False
        self.failed: str | None = None
        self.mark = self.helo_mark = ""

    @property
    def there(self) -> bool:
        """Whether it can be spoken to."""
        return self.opened and self.failed is None

    @property
    def active(self) -> bool:
        """Whether it is asked about this letter, and has not said already what it thinks of the client."""
        return self.there and not self.out and not self.mark and not self.helo_mark

    def look(self) -> None:
        """Has it gone since it was asked last?"""
        if self.there and self.session.lost:
            self._note_failure("connection", Failed(self.session.lost), 0.0)

    async def open(self) -> None:
        """Get it ready, or know that it failed."""
        verdict = await self.session.open()
        self.opened = True
        if type(verdict) is Failed:
            self._note_failure("connection", verdict, 0.0)

    def end(self) -> None:
        """Close it, and be as at the beginning."""
        self.close()
        self.begin_anew()

    def close(self) -> None:
        """Its part is over."""
        self.sum_up()
        self.session.close()

    def sum_up(self) -> None:
        """Log what it let go on, as far as it is not told."""
        steps = self._steps()
        if steps is not None:
            facts = self._facts
            self._world.journal.passed(facts.client, self.member.filter.name, facts.letter_id, steps)

    async def ask(self, what: str, event: Event) -> Verdict:
        """Tell it of an event; what it says."""
        clock = self._world.clock
        begun = clock.seconds()
        verdict = await event(self.session)
        seconds = clock.seconds() - begun
        if type(verdict) is Failed:
            self._note_failure(what, verdict, seconds)
            return verdict
        if type(verdict) is not Continue or (what == CONTENT and not self.session.silent):
            kind = type(verdict).__name__.lower()
            said = str(verdict.reply) if type(verdict) is Refuse else kind
            self.tell(what, said, seconds, self._steps() if what == CONTENT else None)
            self.member.counts[kind] += 1
        elif not self.session.silent:
            self._counts[what] = self._counts.get(what, 0) + 1
            self._seconds += seconds
            self._longest = max(self._longest, seconds)
        if what == CONTENT:
            self.member.last_failure = ""
        return verdict

    def tell(self, what: str, said: str, seconds: float = 0.0, steps: Steps | None = None) -> None:
        """Log what it said, or what became of it; `steps` it let go on before."""
        facts, name = self._facts, self.member.filter.name
        self._world.journal.filtered(facts.client, name, what, facts.letter_id, said, seconds, steps)

    def refusal(self, reply: Reply, why: str = "") -> Refusal:
        """A refusal on its account."""
        return Refusal(reply, f"filter {self.member.filter.name}{': ' if why else ''}{why}")

    def _steps(self) -> Steps | None:
        """What it let go on, which is told by who asks; None where it is nothing."""
        if not self._counts:
            return None
        steps = Steps(self._counts, self._seconds, self._longest)
        self._counts, self._seconds, self._longest = {}, 0.0, 0.0
        return steps

    def _note_failure(self, what: str, failed: Failed, seconds: float) -> None:
        self.failed = self.member.last_failure = failed.why
        self.member.counts["failed"] += 1
        self.tell(what, f"failed: {failed.why}", seconds)
