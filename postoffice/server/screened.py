"""Letters that filters look at before they are stored.

Used in the place of a plain `Incoming` in sessions that filters take part in. The header is kept in memory,
the body goes into a draft as it comes; at the end the filters have both, and the letter as they leave it is
written to the draft that is committed. So a letter that is refused was never whole, one that is acknowledged
has every edit or none, and a large body is read from the disk piece by piece, once for each filter and once
for us.

When things fail: as with any letter; a header that could not be shown to filters is refused with 554 5.6.0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

from attrs import evolve

from postoffice.interfaces import Draught, IContent, IScreening, Screened
from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from postoffice.mail.header import Headers
from postoffice.mail.reply import Refusal, Reply
from postoffice.milter.edits import Field, fields_of
from postoffice.server.intake import Incoming, Intake

# The longest header field, in octets: filters must be told it in one packet, and may add to it.
FIELD_LIMIT = 60 * 1024
NUL_IN_HEADER = Reply(554, (6, 0), "The header of the message holds a NUL")
FIELD_TOO_LONG = Reply(554, (6, 0), "A field of the message's header is too long")


class ScreenedIncoming(Incoming):
    """A letter that is coming in for filters. `screening` has given it its queue id."""

    def __init__(
        self,
        intake: Intake,
        client: Client,
        envelope: Envelope,
        screening: IScreening,
        extra: bytes = b"",
        full_name: str = "",
    ) -> None:
        super().__init__(intake, client, envelope, extra, full_name, screening.letter_id)
        self._screening = screening
        self._fields: tuple[Field, ...] = ()
        self._discarded = False

    def pass_on(self) -> None:
        if not self._discarded:
            super().pass_on()

    def _place(self, lines: list[bytes], headers: Headers, head: bytes) -> Awaitable[None] | None:
        trace, *others = lines
        (own,) = fields_of(trace)
        fields = fields_of(b"".join((*others, headers.block)))
        if b"\0" in headers.block:
            self._refuse(Refusal(NUL_IN_HEADER))
            return None
        if any(len(field.name) + len(field.value) > FIELD_LIMIT for field in fields):
            self._refuse(Refusal(FIELD_TOO_LONG))
            return None
        self._fields = evolve(own, hidden=True), *fields
        rest = head[len(headers.block) + (2 if headers.separated else 0) :]
        return self._store(rest) if rest else None

    async def _commit(self) -> None:
        draft = self._draft
        assert draft is not None
        body = await draft.written()
        screened = await self._screening.content(Draught(self.envelope, self._fields, body))
        if screened.discard:
            self._discarded = True
            self.abort()
            return
        self._draft = self._intake.spool.draft()
        try:
            await self._write(screened, body)
        finally:
            draft.discard()
        self.check()
        self.envelope = screened.envelope
        self._held_for = screened.hold
        block = b"".join(bytes(field) for field in screened.fields if not field.hidden)
        self._international = self._is_international(Headers(block, True))
        await super()._commit()
        if screened.hold:
            self._intake.journal.held(self.id, screened.hold)

    async def _write(self, screened: Screened, body: IContent) -> None:
        """Write the letter as the filters have left it."""
        self.size = 0
        async for piece in _letter(screened, body):
            self.check()
            waiting = self._store(piece)
            if waiting is not None:
                await waiting


async def _letter(screened: Screened, body: IContent) -> AsyncIterator[bytes]:
    head = b"".join((*map(bytes, screened.fields), b"\r\n"))
    if screened.body is not None:
        yield head + screened.body
    elif body.held is not None:
        yield head + body.held
    else:
        yield head
        async for piece in body.pieces():
            yield piece
