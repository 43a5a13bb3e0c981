"""A filter that says what a test tells it to, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.interfaces import Draught, IFilter, IFilterSession
from postoffice.milter.edits import Edit
from postoffice.milter.facts import Facts
from postoffice.milter.verdicts import Accept, Continue, Failed, Verdict


@implementer(IFilter)
class ScriptedFilter:
    """`says` by stage (open, client, helo, sender, recipient, data, content, unknown), else Continue.

    A Deferred there is waited for. `told` is what the sessions were asked, in order.
    """

    def __init__(
        self, name: str = "first", says: dict[str, Verdict | Deferred[Verdict]] | None = None
    ) -> None:
        self.name = name
        self.says = dict(says or {})
        self.changes: Sequence[Edit] = ()
        self.hears_refused = False
        self.told: list[str] = []
        self.letters: list[Draught] = []
        self.bodies: list[bytes] = []
        self.inside = 0
        self.open = 0
        self.connections: list[tuple[int, int]] = []
        self.lost = ""

    def load(self) -> None:
        """It is here."""

    def session(self) -> IFilterSession:
        return ScriptedSession(self)


@implementer(IFilterSession)
class ScriptedSession:
    with_blank = False

    def __init__(self, script: ScriptedFilter) -> None:
        self.script = script
        self.opened = False
        self.in_letter = False
        self.passed = False
        self.done = False
        self.silent = False

    @property
    def hears_refused(self) -> bool:
        return self.script.hears_refused

    @property
    def lost(self) -> str:
        return self.script.lost

    async def _say(self, stage: str, shown: str = "") -> Verdict:
        self.silent = self.done
        if self.done:
            return Continue()
        self.script.told.append(f"{stage} {shown}".strip())
        verdict = self.script.says.get(stage, Continue())
        if isinstance(verdict, Deferred):
            verdict = await verdict
        if type(verdict) is Accept and stage != "content":
            self.done = True
        return verdict

    async def open(self) -> Verdict:
        self.script.open += 1
        self.script.lost = ""
        self.opened = True
        return await self._say("open")

    async def client(self, facts: Facts) -> Verdict:
        self.script.connections.append((facts.connections, facts.rate))
        return await self._say("client", facts.client.ip)

    async def helo(self, facts: Facts) -> Verdict:
        return await self._say("helo", facts.greeting or "")

    async def sender(self, facts: Facts) -> Verdict:
        assert not self.in_letter, "a letter begins inside of another"
        self.in_letter = True
        return await self._say("sender", b" ".join(facts.arguments).decode())

    async def recipient(self, facts: Facts) -> Verdict:
        refused = f" refused {facts.refused.code}" if facts.refused else ""
        return await self._say("recipient", b" ".join(facts.arguments).decode() + refused)

    async def data(self, facts: Facts) -> Verdict:
        return await self._say("data", str(facts.recipients))

    async def content(self, facts: Facts, draught: Draught, until: float) -> Verdict:
        self.script.letters.append(draught)
        self.script.bodies.append(b"".join([piece async for piece in draught.body.pieces()]))
        verdict = await self._say("content", facts.letter_id and "letter")
        self.in_letter = False
        self.passed = type(verdict) in (Continue, Accept)
        return verdict

    async def unknown(self, facts: Facts, line: bytes) -> Verdict:
        return await self._say("unknown", line.decode())

    def edits(self) -> Sequence[Edit]:
        return self.script.changes if self.passed else ()

    def abort(self) -> None:
        if self.in_letter:
            self.script.told.append("abort")
        self.in_letter = self.passed = False

    def close(self) -> None:
        if self.opened:
            self.opened = False
            self.script.open -= 1
            self.script.told.append("close")
        for stage, verdict in list(self.script.says.items()):
            if isinstance(verdict, Deferred) and not verdict.called:
                del self.script.says[stage]
                verdict.callback(Failed("the session is over"))
