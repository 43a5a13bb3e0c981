"""The files of virtual domains, as those who own the domains look after them.

Asked by `postoffice.server.virtual` for local commands. Files are read, and written by
`postoffice.directory.rewrite`, in threads, and read anew for every request, so that what counts is what
they say now; hashes are made where passwords are checked. Whoever delivers looks at a changed file at once.

When things fail: `Declined`, with a text that names the file and where it can be the line; the files are
as they were.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from attrs import frozen
from zope.interface import implementer

from postoffice.directory import editing
from postoffice.directory.accounts import parse_passwd
from postoffice.directory.aliases import SYSTEM, VIRTUAL, Rules, parse_aliases
from postoffice.directory.domains import domain_key, parse_domains
from postoffice.directory.lists import check_lists
from postoffice.directory.rewrite import read_file, rewrite
from postoffice.interfaces import Declined, IPasswordHashes, IVirtualFiles
from postoffice.mail.virtual import AliasSummary, VirtualDomain
from postoffice.watched import LIMIT_IN_THREAD, Mistake, read

T = TypeVar("T")
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function in a thread, and waits for its result or its error."""

# Seconds between attempts while somebody else changes files of the domain, and how many there are.
PAUSE = 0.05
ATTEMPTS = 200

_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FOR_NOW = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})


@frozen
class Places:
    """The directory of the virtual domains, the system's alias file, and the account that changes them."""

    virtual: str
    aliases: str
    account: str


@frozen
class Means:
    """Threads for files and for passwords, a pause, and what has changed files looked at (`Watch.look`)."""

    in_thread: Run
    for_passwords: Run
    sleep: Callable[[float], Awaitable[object]]
    look: Callable[[], None]


@implementer(IVirtualFiles)
class VirtualFiles:
    """See the interface."""

    def __init__(self, places: Places, hashes: IPasswordHashes, means: Means) -> None:
        self._places = places
        self._hashes = hashes
        self._means = means

    async def find(self, domain: str) -> VirtualDomain | None:
        path = f"{self._places.virtual}/domains.cf"
        domains = await self._called(path, lambda: parse_domains(_content(path)))
        return domains.get(domain_key(domain))

    async def users(self, domain: VirtualDomain) -> list[tuple[str, bool]]:
        folder = self._folder(domain)
        found = await self._called(f"{folder}/passwd", lambda: parse_passwd(_data(folder, "passwd")))
        return [(user.name, self._hashes.usable(user.stored)) for user in found.values()]

    async def set_password(self, domain: VirtualDomain, user: str, password: bytes, new: bool) -> None:
        try:
            stored = await self._means.for_passwords(lambda: self._hashes.make(password))
        except BlockingIOError:
            raise Declined("too many passwords are worked on; try again later", os.EX_TEMPFAIL) from None
        await self._change(domain, "passwd", lambda data: editing.set_user(data, user, stored, new))

    async def remove_user(self, domain: VirtualDomain, user: str) -> None:
        await self._change(domain, "passwd", lambda data: editing.remove_user(data, user))

    async def aliases(self, domain: VirtualDomain) -> list[tuple[str, str]]:
        folder = self._folder(domain)
        return await self._called(f"{folder}/aliases", lambda: editing.list_aliases(_data(folder, "aliases")))

    async def set_alias(self, domain: VirtualDomain, name: str, targets: Sequence[str]) -> None:
        await self._change(domain, "aliases", lambda data: editing.set_alias(data, name, targets))

    async def remove_alias(self, domain: VirtualDomain, name: str) -> None:
        await self._change(domain, "aliases", lambda data: editing.remove_alias(data, name))

    async def summary(self, domain: VirtualDomain | None) -> AliasSummary:
        if domain is None:
            path = self._places.aliases
            found = await self._called(path, lambda: _summary(path, read(path, LIMIT_IN_THREAD)[1], SYSTEM))
        else:
            folder = self._folder(domain)
            path = f"{folder}/aliases"
            found = await self._called(path, lambda: _summary(path, _data(folder, "aliases"), VIRTUAL))
        self._means.look()
        return found

    def _folder(self, domain: VirtualDomain) -> str:
        # The name is that of domains.cf, and it was checked to be a domain's there.
        return f"{self._places.virtual}/{domain.name}"

    async def _change(self, domain: VirtualDomain, name: str, edit: Callable[[bytes], bytes]) -> None:
        """Change a file. While somebody else does, nobody's thread waits."""
        folder = self._folder(domain)
        for _ in range(ATTEMPTS):
            try:
                await self._called(f"{folder}/{name}", lambda: rewrite(folder, name, edit))
            except BlockingIOError:
                await self._means.sleep(PAUSE)
            else:
                self._means.look()
                return
        raise Declined(f"{folder}/{name}: somebody else is changing it; try again later", os.EX_TEMPFAIL)

    async def _called(self, path: str, work: Callable[[], T]) -> T:
        """What `work` returns, from a thread. Errors: `Declined`, `BlockingIOError`."""
        try:
            result: T = await self._means.in_thread(work)
        except BlockingIOError:
            raise
        except Mistake as mistake:
            raise Declined(f"{path}:{mistake.line}: {mistake}", os.EX_DATAERR) from None
        except OSError as error:
            raise self._declined(path, error) from None
        return result

    def _declined(self, path: str, error: OSError) -> Declined:
        where, account = error.filename or path, self._places.account
        what = f"{where}: {error.strerror}"
        if error.errno in _NOT_OURS:
            whose = os.path.dirname(path)
            advice = f"{whose} and the files in it must belong to {account} and one of its groups"
            return Declined(f"{what}; {advice}", os.EX_NOPERM)
        if error.errno in _FOR_NOW:
            return Declined(what, os.EX_TEMPFAIL)
        return Declined(what, os.EX_NOINPUT if error.errno == errno.ENOENT else os.EX_IOERR)


def _summary(path: str, data: bytes, rules: Rules) -> AliasSummary:
    aliases = parse_aliases(data, rules)
    lists = check_lists(path, aliases.included)
    summary = AliasSummary(
        path,
        aliases.count,
        aliases.longest,
        aliases.total,
        tuple(aliases.twice),
        tuple(lists.mistakes),
        tuple(lists.warnings),
    )
    # In this thread, since it takes time.
    aliases.clear()
    return summary


def _data(folder: str, name: str) -> bytes:
    return read_file(folder, name) or b""


def _content(path: str) -> bytes:
    """Of a file that may not be there."""
    try:
        return read(path, LIMIT_IN_THREAD)[1]
    except FileNotFoundError:
        return b""
