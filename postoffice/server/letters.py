"""The requests of local commands about the letters of the queue; the frames are in `postoffice.wire`.

Called by the desk of the running service, and by `postoffice.offline` for a command that finds the service
down; who may ask what, they know. Errors: `NotDone` for what cannot be done, `WireError` for what is not
understood.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from attrs import frozen
from zope.interface import implementer

from postoffice import wire
from postoffice.interfaces import IContent, ISpool
from postoffice.mail.envelope import Entry
from postoffice.mail.reply import printable
from postoffice.server.office import ILetters, NotDone, Pattern

Write = Callable[[Iterator[bytes]], Awaitable[None]]

_FIELDS = ("id", "sender", "recipient", "any")


@implementer(ILetters)
class Letters:
    """The letters of a spool. `requeue` is the spool's, or that of the queue, which then looks at once."""

    def __init__(self, spool: ISpool, requeue: Callable[[str | None], Awaitable[int]]) -> None:
        self._spool = spool
        self._requeue = requeue

    async def entries(self) -> list[Entry]:
        return await self._spool.entries()

    async def run(self, pattern: Pattern | None) -> int:
        if pattern is None:
            return await self._requeue(None)
        count = 0
        for entry in await self._spool.entries():
            if pattern.matches(entry):
                count += await self._requeue(entry.letter.id)
        return count

    async def set_held(self, letter_id: str, held: bool) -> bool:
        if held:
            return await self._spool.hold(letter_id)
        found = await self._spool.release(letter_id)
        if found:
            await self._requeue(letter_id)
        return found

    async def delete(self, letter_id: str) -> bool:
        return await self._spool.delete(letter_id)

    async def content(self, letter_id: str) -> IContent | None:
        return await self._spool.content(letter_id)


@frozen
class Asker:
    """Who asks: `only` is the client, in log form, whose letters alone are listed, None: everybody's.

    `note` tells the log what was done.
    """

    only: str | None
    note: Callable[[str], None]


async def answer(request: dict[str, Any], letters: ILetters, asker: Asker, write: Write) -> dict[str, Any]:
    """Do what is asked: frames of the answer go to `write`, the last is returned."""
    match request:
        case {"verb": "list"}:
            return await _list(letters, _pattern(request), asker.only, write)
        case {"verb": "run"}:
            return {"done": True, "letters": await letters.run(_pattern(request))}
        case {"verb": "hold" | "release" | "delete" as verb, "ids": list(ids)}:
            for letter_id in ids:
                await _manage(letters, verb, letter_id)
                asker.note(f"{verb} letter {letter_id}")
            return {"done": True}
        case {"verb": "show", "id": str(letter_id)}:
            return await _show(letters, letter_id, write)
    raise wire.WireError("no request that is known")


async def _list(letters: ILetters, pattern: Pattern | None, only: str | None, write: Write) -> dict[str, Any]:
    entries = await letters.entries()
    chosen = (
        entry
        for entry in entries
        if only in (None, entry.letter.client) and (pattern is None or pattern.matches(entry))
    )
    await write(wire.encode_json(_told(entry)) for entry in chosen)
    return {"done": True}


async def _manage(letters: ILetters, verb: str, letter_id: Any) -> None:
    if not isinstance(letter_id, str):
        raise wire.WireError("a queue id that is not text")
    if verb == "delete":
        found = await letters.delete(letter_id)
    else:
        found = await letters.set_held(letter_id, verb == "hold")
    if not found:
        raise _no_such(letter_id)


async def _show(letters: ILetters, letter_id: str, write: Write) -> dict[str, Any]:
    content = await letters.content(letter_id)
    if content is None:
        raise _no_such(letter_id)
    async for piece in content.pieces():
        await write(iter((wire.encode_content(piece),)))
    return {"done": True}


def _no_such(letter_id: str) -> NotDone:
    return NotDone(f"there is no letter {printable(letter_id, 20)}", os.EX_DATAERR)


def _pattern(request: dict[str, Any]) -> Pattern | None:
    match request.get("pattern"):
        case None:
            return None
        case {"field": str(field), "text": str(text)} if field in _FIELDS:
            return Pattern(field, text.lower())
    raise wire.WireError("a pattern that is none")


def _told(entry: Entry) -> dict[str, Any]:
    letter = entry.letter
    return {
        "id": letter.id,
        "size": letter.size,
        "received": letter.received,
        "sender": None if letter.sender is None else str(letter.sender),
        "held": entry.held,
        "held_for": entry.held_for,
        "busy": entry.busy,
        "recipients": [{"address": str(one.address), "last": one.last} for one in entry.recipients],
    }
