"""The door for people on this machine: commands talk to the service over a unix socket.

One connection is one request (the verbs are in `postoffice.wire`). Who asks is the kernel's word.
Everybody may submit; running the queue is for root, the service's account and members of
`control-group`, and so is the whole listing where it is not everybody's. Neighbours are reached through
`IOffice`, which the assembly provides.

When things fail: malformed input, or silence, ends that connection only. A refusal is answered with
its text and the exit code for it; anything else is a bug, logged, and answered as a temporary
failure. A submission that breaks off leaves nothing.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice import wire
from postoffice.interfaces import IJournal
from postoffice.server.office import Caller, IOffice, LocalSettings, NotDone
from postoffice.server.requests import Desk

#: Connections at once from one account; root's are not counted.
PER_ACCOUNT = 100

_LETTERS_AT_ONCE = 100


class LocalFactory(Factory):
    """Makes a conversation for each connection, and counts them.

    `account` gives the name of a uid, None where it has none; `identify` the caller behind a transport.
    """

    noisy = False

    def __init__(
        self,
        office: IOffice,
        account: Callable[[int], str | None],
        identify: Callable[[ITransport], Caller],
        journal: IJournal,
        settings: LocalSettings,
        clock: IReactorTime,
    ) -> None:
        self.office = office
        self.account = account
        self.identify = identify
        self.journal = journal
        self.settings = settings
        self.clock = clock
        self.conversations: set[Conversation] = set()
        self._of: Counter[int] = Counter()
        self._emptied: Deferred[None] | None = None

    def buildProtocol(self, addr: object) -> Conversation:
        return Conversation(self)

    def enter(self, conversation: Conversation, caller: Caller) -> bool:
        """A conversation begins; false when its account has too many."""
        self.conversations.add(conversation)
        self._of[caller.uid] += 1
        return not caller.uid or self._of[caller.uid] <= PER_ACCOUNT

    def leave(self, conversation: Conversation, caller: Caller) -> None:
        """A conversation ended."""
        self.conversations.discard(conversation)
        self._of[caller.uid] -= 1
        if not self._of[caller.uid]:
            del self._of[caller.uid]
        if self._emptied is not None and not self.conversations:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    async def drain(self, bound: float = 3.0) -> None:
        """Drop who has asked nothing yet, and after `bound` seconds whoever has not come to an end."""
        for conversation in list(self.conversations):
            if not conversation.asked:
                conversation.drop()
        if not self.conversations:
            return
        self._emptied = Deferred()
        cut = self.clock.callLater(bound, self._cut_off)
        await self._emptied
        if cut.active():
            cut.cancel()

    def _cut_off(self) -> None:
        for conversation in list(self.conversations):
            conversation.drop()


class _Gone(Exception):
    """The other end closed, or was silent for too long."""


class Conversation(Protocol):
    """One request and its answer. Reads ahead by what came in one piece, and no further."""

    def __init__(self, factory: LocalFactory) -> None:
        self._factory = factory
        self._decoder = wire.Decoder()
        self._frames: deque[Any] = deque()
        self._waiting: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._caller: Caller | None = None
        self._closing = False
        self.asked = False

    # What Twisted calls.

    def connectionMade(self) -> None:
        try:
            caller = self._factory.identify(self._wire)
        except OSError:
            self.drop()
            return
        self._caller = caller
        if self._factory.enter(self, caller):
            Deferred.fromCoroutine(self._talk(caller))
        else:
            self._refuse("too many connections of this account; try again later", os.EX_TEMPFAIL)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._frames.extend(self._decoder.feed(data))
        except wire.WireError as error:
            self._refuse(f"malformed request: {error}", os.EX_PROTOCOL)
            self._wake(error)
            return
        if self._frames and not self._wake():
            self._wire.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self._unwatch()
        if self._caller is not None:
            self._factory.leave(self, self._caller)
        self._wake(_Gone())

    # What the request is served with.

    async def next(self) -> Any:
        """The next frame; neighbouring pieces of content as one. Errors: `_Gone`, `WireError`."""
        if not self._frames:
            if self._closing:
                raise _Gone
            self._waiting = Deferred()
            self._watch()
            self._wire.resumeProducing()
            await self._waiting
            self._unwatch()
        frame = self._frames.popleft()
        if not isinstance(frame, bytes):
            return frame
        pieces = [frame]
        while self._frames and isinstance(self._frames[0], bytes):
            pieces.append(self._frames.popleft())
        return b"".join(pieces)

    async def write(self, frames: Iterator[bytes]) -> None:
        """Send frames as fast as they are read at the other end. Errors: `_Gone`."""
        await _Listing(frames, self._wire, self._watch).done

    def drop(self) -> None:
        """Close now, whatever is unsent."""
        self._closing = True
        self._wire.abortConnection()

    async def _talk(self, caller: Caller) -> None:
        factory = self._factory
        try:
            request = await self.next()
            self.asked = True
            name = factory.account(caller.uid)
            desk = Desk(factory.office, factory.journal, factory.settings, caller, name, self)
            self._answer(await desk.answer(request))
        except _Gone:
            pass
        except wire.WireError as error:
            self._refuse(f"malformed request: {error}", os.EX_PROTOCOL)
        except NotDone as error:
            self._refuse(str(error), error.exit_code)
        except Exception as error:
            factory.journal.error("a local request failed", error)
            self._refuse("something is wrong with the service; try again later", os.EX_TEMPFAIL)

    @property
    def _wire(self) -> Any:
        return self.transport

    def _answer(self, value: dict[str, Any]) -> None:
        """Say the last word, once, and close."""
        if self._closing:
            return
        self._watch()
        self._closing = True
        self._wire.write(wire.encode_json(value))
        self._wire.loseConnection()

    def _refuse(self, text: str, exit_code: int) -> None:
        self._answer({"error": text, "exit": exit_code})

    def _wake(self, error: Exception | None = None) -> bool:
        """Let a waiting `next` go on; false when none waits."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return False
        if error is None:
            waiting.callback(None)
        else:
            waiting.errback(error)
        return True

    def _watch(self) -> None:
        """The other end has `idle` seconds from now on for its next step."""
        idle = self._factory.settings.idle
        self._unwatch()
        if idle and not self._closing:
            self._timer = self._factory.clock.callLater(idle, self._silent)

    def _unwatch(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _silent(self) -> None:
        self._timer = None
        self.drop()


@implementer(IPullProducer)
class _Listing:
    """Writes frames as fast as they are read at the other end. `done` fires after the last."""

    def __init__(self, frames: Iterator[bytes], transport: Any, progress: Callable[[], None]) -> None:
        self._frames = frames
        self._transport = transport
        self._progress = progress
        self.done: Deferred[None] = Deferred()
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self._progress()
        data = b"".join(islice(self._frames, _LETTERS_AT_ONCE))
        if data:
            self._transport.write(data)
        else:
            self._transport.unregisterProducer()
            self.done.callback(None)

    def stopProducing(self) -> None:
        if not self.done.called:
            self.done.errback(_Gone())
