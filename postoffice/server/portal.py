"""Logging in: a twisted.cred portal, and what an account may do once it is logged in to.

Made by the assembly, used by the log-in of each session. The checkers, one for each source of accounts,
come from outside; so may others that check `IUsernamePassword`. What an account may do is the avatar,
an `IMailUser`.

When things fail: a wrong password and an unknown account give the same `Refusal` with 535; too many
failures give 454 before the password is looked at, and so does a source that cannot be asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from zope.interface import Attribute, Interface, implementer

from postoffice.interfaces import IDirectory
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from postoffice.server.throttle import Throttle, Throttled
from postoffice.smtp.sasl import INVALID, Credentials

THROTTLED = Reply(454, (7, 0), "Too many failed log-ins, try again later")


class IMailUser(Interface):
    """What a client may do that has logged in."""

    login: str = Attribute("the account, alice@example.org or the bare name of a user of the system")

    def owns(address: Address) -> Awaitable[bool]:
        """Whether an address is the account's own: mail for it ends in the account's mailbox.

        Errors: `Refusal` with 4xx while it cannot be found out.
        """


@implementer(IMailUser)
class MailUser:
    """An account, with the directory that knows where its mail goes."""

    def __init__(self, login: str, directory: IDirectory) -> None:
        self.login = login
        self._directory = directory

    async def owns(self, address: Address) -> bool:
        return await self._directory.owns(self.login, address)


@implementer(IRealm)
class MailRealm:
    """Gives `IMailUser` avatars."""

    def __init__(self, directory: IDirectory) -> None:
        self._directory = directory

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: Any
    ) -> Deferred[tuple[Any, Any, Callable[[], None]]]:
        if IMailUser not in interfaces:
            raise NotImplementedError("this realm knows users of mail only")
        assert isinstance(avatarId, bytes), "nobody logs in without a name"
        return succeed((IMailUser, MailUser(avatarId.decode("utf-8"), self._directory), _nothing))


@implementer(ICredentialsChecker)
class AnyOf:
    """Asks each checker in turn: a portal takes only one for each kind of credentials."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, checkers: Sequence[ICredentialsChecker]) -> None:
        self._checkers = tuple(checkers)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> bytes | tuple[()]:
        reasons = []
        for checker in self._checkers:
            try:
                return await checker.requestAvatarId(credentials)
            except UnauthorizedLogin as error:
                reasons.append(str(error))
        raise UnauthorizedLogin("; ".join(reasons))


class Authenticator:
    """Checks log-ins for all sessions. `has_accounts` tells whether there is anybody to log in at all.

    `spelling` gives the one spelling of an account's name: by others, guesses would count anew.
    """

    def __init__(
        self,
        portal: Portal,
        throttle: Throttle,
        has_accounts: Callable[[], bool],
        spelling: Callable[[str], Awaitable[str]],
    ) -> None:
        self._portal = portal
        self._throttle = throttle
        self.has_accounts = has_accounts
        self._spelling = spelling

    async def log_in(self, client: Client, credentials: Credentials) -> IMailUser:
        """The user whose name and password these are. Errors: `Refusal` with 535 or 454."""
        account = await self._spelling(credentials.user)
        try:
            attempt = self._throttle.begin(account, client)
        except Throttled as throttled:
            raise Refusal(THROTTLED, str(throttled)) from None
        proof = UsernamePassword(credentials.user.encode("utf-8"), credentials.password)
        try:
            _, user, _ = await self._portal.login(proof, client, IMailUser)
        except UnauthorizedLogin as error:
            attempt.failed()
            raise Refusal(INVALID, str(error)) from None
        else:
            attempt.succeeded()
        finally:
            attempt.end()
        return cast(IMailUser, user)

    async def vouched(self, client: Client) -> IMailUser:
        """The user `client.login`, whom somebody else has seen logging in: a proxy that is believed."""
        assert client.login is not None
        found = maybeDeferred(self._portal.realm.requestAvatar, client.login.encode(), client, IMailUser)
        _, user, _ = await found
        return cast(IMailUser, user)


def make_authenticator(
    directory: IDirectory,
    checkers: Sequence[ICredentialsChecker],
    throttle: Throttle,
    has_accounts: Callable[[], bool],
    spelling: Callable[[str], Awaitable[str]],
) -> Authenticator:
    """An authenticator that asks these checkers in turn."""
    portal = Portal(MailRealm(directory), [AnyOf(checkers)])
    return Authenticator(portal, throttle, has_accounts, spelling)


def _nothing() -> None:
    """There is nothing to do when a session ends."""
