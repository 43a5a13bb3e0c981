"""Who may log in: one twisted.cred checker for the users of virtual domains, one for those of the system.

Asked by `postoffice.server.portal`. `alice@example.org` is a user of that virtual domain; a bare name, or
one at a domain of ours that is not virtual, is a user of the system (the original's release 1.4.9 made the
machine's own name work). An avatar's id is the account's name as its source spells it.

A user who does not exist costs the same work as one who does: the password is compared with the hash of
another user of the same domain, always the same one for the same name, and the result is thrown away. So
neither the reply nor the time tells which names exist.

When things fail: `UnauthorizedLogin` for a wrong password and for whoever is not to be found; `Refusal`
with 454 where that could not be found out, or too many ask at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from zlib import crc32

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.directory.accounts import VirtualUser, VirtualUsers, is_fit
from postoffice.directory.domains import Domains, OurDomain
from postoffice.interfaces import IPasswordHashes
from postoffice.mail.reply import Refusal, Reply
from postoffice.watched import Unreadable

NOT_KNOWN_NOW = Reply(454, (7, 0), "Log-ins cannot be checked now, try again later")

Run = Callable[[Callable[[], Any]], Deferred[Any]]
"""Calls a function in a thread; the Deferred has its result or its error."""

CheckPassword = Callable[[str, bytes], Awaitable[str | None]]
"""A source of system accounts: the account's name if the password is right.

Errors: `OSError`, `Unreadable`.
"""


@implementer(ICredentialsChecker)
class VirtualPasswords:
    """Users of virtual domains, by the hashes in the domain's passwd file."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, domains: Domains, users: VirtualUsers, hashes: IPasswordHashes, run: Run) -> None:
        self._domains = domains
        self._users = users
        self._hashes = hashes
        self._run = run

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, login: bytes, password: bytes) -> bytes | tuple[()]:
        name, domain = await _find(self._domains, login)
        if not domain.virtual:
            raise UnauthorizedLogin("the domain is not virtual")
        try:
            users = await self._users.all(domain)
        except Unreadable as error:
            raise Refusal(NOT_KNOWN_NOW, f"{error} was never readable") from None
        user = users.get(name.lower())
        own = user.stored if user is not None and self._hashes.usable(user.stored) else None
        stand_in = self._stand_in(name, list(users.values()))
        if stand_in is None:
            raise UnauthorizedLogin("nobody has a password that can be checked")
        try:
            right = await self._run(partial(self._hashes.verify, own or stand_in, password))
        except OSError as error:
            raise Refusal(NOT_KNOWN_NOW, str(error)) from error
        if user is None or own is None:
            raise UnauthorizedLogin("no password that can be checked" if user else "no such user")
        if not right:
            raise UnauthorizedLogin("wrong password")
        return f"{user.name}@{domain.name}".encode()

    def _stand_in(self, name: str, users: list[VirtualUser]) -> str | None:
        """The hash to work on for a user who has none; None where nobody has one."""
        start = crc32(name.lower().encode()) % (len(users) or 1)
        for user in users[start:] + users[:start]:
            if self._hashes.usable(user.stored):
                return user.stored
        return None


@implementer(ICredentialsChecker)
class SystemPasswords:
    """Users of the system, by one source of passwords."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, domains: Domains, check: CheckPassword) -> None:
        self._domains = domains
        self._check_password = check

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, login: bytes, password: bytes) -> bytes | tuple[()]:
        name, domain = await _find(self._domains, login)
        if domain.virtual:
            raise UnauthorizedLogin("the domain is virtual")
        if not is_fit(name):
            raise UnauthorizedLogin("not the name of a user")
        try:
            account = await self._check_password(name.lower(), password)
        except (OSError, Unreadable) as error:
            raise Refusal(NOT_KNOWN_NOW, str(error)) from error
        if account is None:
            raise UnauthorizedLogin("wrong password, or no such user")
        return account.encode()


async def spelling(domains: Domains, login: str) -> str:
    """The one spelling of the account that a log-in name means; of a name that means none, the name.

    The users of the system have as many names as the machine has, its addresses among them.

    Errors: `Refusal` with 454 while that cannot be found out.
    """
    try:
        name, domain = await _find(domains, login.encode("utf-8"))
    except UnauthorizedLogin:
        return login.lower()
    return f"{name}@{domain.name}".lower() if domain.virtual else name.lower()


async def _find(domains: Domains, login: bytes) -> tuple[str, OurDomain]:
    """The user's name and the domain of ours that a log-in name consists of."""
    text = login.decode("utf-8")
    name, at, domain = text.rpartition("@") if "@" in text else (text, "", "")
    try:
        ours = await domains.find(domain) if domain or not at else None
    except Unreadable as error:
        raise Refusal(NOT_KNOWN_NOW, f"{error} was never readable") from None
    if ours is None:
        raise UnauthorizedLogin("no domain of ours")
    return name, ours
