"""The greylist's requests of local commands; the frames are in `postoffice.wire`.

Called by the desk of the running service, and by `postoffice.tap` for a command that finds the service down.
Errors: `NotDone` for what cannot be done, `WireError` for what is not understood.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from postoffice import wire
from postoffice.interfaces import IGreylist, StoreFailed
from postoffice.mail.greylist import Expiry
from postoffice.server.office import NotDone

Write = Callable[[Iterator[bytes]], Awaitable[None]]


async def answer(request: dict[str, Any], greylist: IGreylist, write: Write) -> dict[str, Any]:
    """Do what is asked: frames of the answer go to `write`, the last is returned."""
    try:
        match request:
            case {"do": "list"}:
                return await _list(greylist, write)
            case {"do": "approve", "record": str(name)}:
                return _set(greylist.approve, name)
            case {"do": "forbid", "record": str(name)}:
                return _set(greylist.forbid, name)
            case {"do": "expire", "age": int(age)}:
                flags = {name: request.get(name) is True for name in ("forbidden", "null", "unused")}
                return await _expire(greylist, write, Expiry(age, **flags), request.get("dry") is True)
    except StoreFailed as error:
        raise NotDone(f"the greylist cannot be used now: {error}", os.EX_TEMPFAIL) from error
    raise wire.WireError("no request that is known")


def _set(how: Callable[[str], None], name: str) -> dict[str, Any]:
    try:
        how(name)
    except ValueError as error:
        raise NotDone(str(error), os.EX_USAGE) from error
    return {"done": True}


async def _list(greylist: IGreylist, write: Write) -> dict[str, Any]:
    async for portion in greylist.records():
        await write(
            wire.encode_json({"record": key, "accepted": record.accepted, "seen": record.seen})
            for key, record in portion
        )
    return {"done": True}


async def _expire(greylist: IGreylist, write: Write, which: Expiry, dry: bool) -> dict[str, Any]:
    records = expired = 0
    async for number, gone in greylist.expire(which, dry):
        records += number
        expired += len(gone)
        await write(wire.encode_json({"record": key}) for key in gone)
    return {"done": True, "records": records, "expired": expired}
