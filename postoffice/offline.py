"""What local commands ask while no service runs: the queue, the greylist, and the files of virtual domains.

Called by `postoffice.tap`, in a process that does one request and ends. It works as the service's account,
root included: what it makes belongs to the service then, and no link that others put somewhere makes root
write elsewhere. Nothing is delivered. The log says what was done, as with the service up. Errors: `NotDone`,
`WireError`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import apsw
from attrs import evolve
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from postoffice import wire
from postoffice.assembly.front import make_greylist
from postoffice.assembly.parts import greylist_store
from postoffice.config.places import LogTarget
from postoffice.config.settings import Settings
from postoffice.directory.virtual_files import Means, Places, VirtualFiles
from postoffice.interfaces import SpoolDamaged, SpoolFailed, SpoolFull, SpoolInUse
from postoffice.mail.client import Client
from postoffice.server import greylist, letters, virtual
from postoffice.server.office import NotDone
from postoffice.services.hashes import PasswordHashes
from postoffice.services.journal import Journal
from postoffice.services.privileges import account_name, give_up_root, service_account
from postoffice.services.sinks import open_sink
from postoffice.spool.schema import too_old
from postoffice.spool.sqlite import SqliteSpool

Write = Callable[[Iterator[bytes]], Awaitable[None]]

DOWN = "the service is not running"

_READING = ("list", "show")
_ABOUT_LETTERS = (*_READING, "run", "hold", "release", "delete")


async def answer(request: Any, settings: Settings, write: Write, reactor: Any) -> dict[str, Any]:
    """Do what is asked: frames of the answer go to `write`, the last is returned."""
    caller = os.geteuid()
    name = account_name(caller) or str(caller)
    about_letters = request.get("verb") in _ABOUT_LETTERS
    try:
        with settings.blaming("user"):
            account = service_account(settings.user)
        give_up_root(account)
    except LookupError as error:
        if caller and about_letters:
            raise _not_yours(settings) from error
        raise NotDone(f"{DOWN}; {error}", os.EX_CONFIG) from error
    note = partial(_note, settings, Client("", name="localhost", protocol="LOCAL", user=name), reactor)
    if about_letters:
        return await _letters(request, settings, letters.Asker(None, note), write, reactor)
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
            asker = virtual.Asker(name, administrator=True, note=note)
            return await virtual.answer(request, VirtualFiles(places, PasswordHashes(), means), asker, write)
    raise wire.WireError("no request that is known")


async def _letters(
    request: dict[str, Any], settings: Settings, asker: letters.Asker, write: Write, reactor: Any
) -> dict[str, Any]:
    """On the spool itself, which is there, and which no service has."""
    if not os.access(settings.spool, os.W_OK | os.X_OK):
        raise _not_yours(settings)
    spool = SqliteSpool(settings.spool, reactor)
    try:
        await (spool.browse() if request["verb"] in _READING else spool.enter())
        try:
            last = await letters.answer(request, letters.Letters(spool, spool.requeue), asker, write)
        finally:
            await spool.close()
    except SpoolInUse as error:
        what = "it is starting or stopping, or another command is at work; try again"
        raise NotDone(
            f"{error}, but nothing answers at {settings.control}: {what}", os.EX_TEMPFAIL
        ) from error
    except (SpoolDamaged, SpoolFailed, SpoolFull) as error:
        code = os.EX_OSERR if isinstance(error, SpoolDamaged) else os.EX_TEMPFAIL
        raise NotDone(f"{DOWN}, and the spool {settings.spool} cannot be used: {error}", code) from error
    return {**last, "down": True}


async def _greylist(
    request: dict[str, Any], settings: Settings, write: Write, reactor: Any
) -> dict[str, Any]:
    complaint = too_old(apsw.SQLITE_VERSION_NUMBER)
    if complaint is not None:
        raise NotDone(f"{DOWN}; {complaint}", os.EX_UNAVAILABLE)
    if not os.access(settings.spool, os.W_OK | os.X_OK):
        raise _not_yours(settings, os.EX_NOPERM)
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


def _not_yours(settings: Settings, code: int = os.EX_TEMPFAIL) -> NotDone:
    """Why a directory that cannot be entered is not."""
    try:
        os.stat(settings.spool)
        what = "is for root and the service's account"
    except FileNotFoundError:
        what = "does not exist"
    except OSError as error:
        what = f"cannot be reached: {error.strerror}"
    return NotDone(f"{DOWN}, and {settings.spool} {what}", code)


def _note(settings: Settings, caller: Client, reactor: Any, what: str) -> None:
    """Tell the log what was done."""
    targets = settings.log or (LogTarget("syslog"),)
    # systemd reads no standard error of ours, but syslog.
    readable = [evolve(target, kind="syslog") if target.kind == "journal" else target for target in targets]
    journal = Journal(reactor, lambda: map(open_sink, readable))
    try:
        journal.open()
    except OSError as error:
        journal.warning(f"the log is standard error: {error}")
    journal.managed(caller, what)
    journal.stop()
