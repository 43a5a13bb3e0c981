"""What local commands ask while no service runs: the greylist, and the files of virtual domains.

Called by `postoffice.tap`, in a process that does one request and ends. It works as the service's account,
root included: what it makes belongs to the service then, and no link that others put somewhere makes root
write elsewhere. Errors: `NotDone`, `WireError`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import apsw
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from postoffice import wire
from postoffice.assembly.front import make_greylist
from postoffice.assembly.parts import greylist_store
from postoffice.config.places import LogTarget
from postoffice.config.settings import Settings
from postoffice.directory.virtual_files import Means, Places, VirtualFiles
from postoffice.server import greylist, virtual
from postoffice.server.office import NotDone
from postoffice.services.hashes import PasswordHashes
from postoffice.services.journal import Journal
from postoffice.services.privileges import give_up_root, service_account
from postoffice.services.sinks import open_sink
from postoffice.spool.schema import too_old

Write = Callable[[Iterator[bytes]], Awaitable[None]]

DOWN = "the service is not running"


async def answer(request: Any, settings: Settings, write: Write, reactor: Any) -> dict[str, Any]:
    """Do what is asked: frames of the answer go to `write`, the last is returned."""
    try:
        account = service_account(settings.user)
        give_up_root(account)
    except LookupError as error:
        raise NotDone(f"{DOWN}; {error}", os.EX_CONFIG) from error
    match request:
        case {"verb": "greylist"}:
            return await _greylist(request, settings, write, reactor)
        case {"verb": "virtual" | "newaliases"}:
            means = Means(
                deferToThread,
                deferToThread,
                lambda seconds: deferLater(reactor, seconds),
                lambda: None,
            )
            places = Places(settings.virtual, settings.aliases, account.name)
            asker = virtual.Asker(account.name, administrator=True, note=lambda _what: None)
            return await virtual.answer(request, VirtualFiles(places, PasswordHashes(), means), asker, write)
    raise wire.WireError("no request that is known")


async def _greylist(
    request: dict[str, Any], settings: Settings, write: Write, reactor: Any
) -> dict[str, Any]:
    complaint = too_old(apsw.SQLITE_VERSION_NUMBER)
    if complaint is not None:
        raise NotDone(f"{DOWN}; {complaint}", os.EX_UNAVAILABLE)
    if not os.access(settings.spool, os.W_OK | os.X_OK):
        what = "is for root and the service's account" if os.path.isdir(settings.spool) else "does not exist"
        raise NotDone(f"{DOWN}, and {settings.spool} {what}", os.EX_NOPERM)
    journal = Journal(reactor, lambda: [open_sink(LogTarget("stderr"))])
    journal.open()
    journal.start()
    store = greylist_store(settings, journal, reactor)
    await store.open()
    try:
        return await greylist.answer(request, make_greylist(settings, store, journal, reactor), write)
    finally:
        await store.close()
        journal.stop()
