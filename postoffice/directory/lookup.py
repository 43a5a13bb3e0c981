"""The directory: where an address is delivered.

Made by the service, asked by the session at RCPT and by the queue at every attempt. An address of a
domain of ours goes to the sources in order, and the first that answers wins; an address of any
other domain is `Remote`.

When things fail: a file that never could be read gives a `Refusal` with 451, never a final answer,
from `is_local` too. RFC 5321 section 3.3 and 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from postoffice.config.places import MailboxRule
from postoffice.directory.accounts import Account, SystemUsers, VirtualUsers
from postoffice.directory.domains import Domains, OurDomain, domain_key
from postoffice.directory.mailboxes import mailbox_of
from postoffice.interfaces import IDirectory
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Remote
from postoffice.mail.reply import Refusal, Reply
from postoffice.watched import Unreadable

NO_SUCH_USER = Reply(550, (1, 1), "No such user here")
NOT_KNOWN_NOW = Reply(451, (3, 0), "The address cannot be looked up now, try again later")


class Source(Protocol):
    """One way of knowing an address of ours."""

    def find(self, local: str, domain: OurDomain) -> Destination | None:
        """Where it is delivered, None if this source does not know it. Errors: `Unreadable`."""


class SystemMailboxes:
    """The mailboxes of system users, in every domain of ours that is not virtual."""

    def __init__(self, users: SystemUsers, rule: MailboxRule) -> None:
        self._users = users
        self._rule = rule

    def find(self, local: str, domain: OurDomain) -> Destination | None:
        account = None if domain.virtual else self._users.find(local)
        if account is None:
            return None
        return mailbox_of(self._rule, account.name, domain.name, account.home, account.name)


class VirtualMailboxes:
    """The mailboxes of the users of virtual domains."""

    def __init__(self, users: VirtualUsers, rule: MailboxRule) -> None:
        self._users = users
        self._rule = rule

    def find(self, local: str, domain: OurDomain) -> Destination | None:
        user = self._users.find(local, domain) if domain.virtual else None
        if user is None:
            return None
        return mailbox_of(self._rule, user, domain.name, "", f"{user}@{domain.name}")


class Postmaster:
    """The postmaster of every domain of ours where nobody else has the name (RFC 5321 section 4.5.1).

    His mail goes to the mailbox of the account the service runs as.
    """

    def __init__(self, account: Account, rule: MailboxRule) -> None:
        self._account = account
        self._rule = rule

    def find(self, local: str, domain: OurDomain) -> Destination | None:
        if local.lower() != "postmaster":
            return None
        name = self._account.name
        return mailbox_of(self._rule, name, domain.name, self._account.home, name)


@implementer(IDirectory)
class Directory:
    """`relay_host`, where there is one, takes all mail that is not for a domain of ours."""

    def __init__(self, domains: Domains, sources: Sequence[Source], relay_host: Remote | None = None) -> None:
        self._domains = domains
        self._sources = tuple(sources)
        self._relay_host = relay_host

    def is_local(self, domain: str) -> bool:
        """Errors: `Refusal` with 451 while it is not known which virtual domains there are."""
        return self._find(domain) is not None

    def is_virtual(self, domain: str) -> bool:
        """Errors: as `is_local`."""
        found = self._find(domain)
        return found is not None and found.virtual

    def resolve(self, address: Address) -> Deferred[Destination]:
        try:
            return succeed(self._resolve(address))
        except Refusal:
            return fail()

    def _resolve(self, address: Address) -> Destination:
        domain = self._find(address.domain)
        if domain is None:
            key = domain_key(address.domain)
            return self._relay_host or Remote(key, direct=key.startswith("["))
        try:
            for source in self._sources:
                destination = source.find(address.local, domain)
                if destination is not None:
                    return destination
        except Unreadable as error:
            raise Refusal(NOT_KNOWN_NOW, f"{error} was never readable") from None
        raise Refusal(NO_SUCH_USER, f"no such user: {address}")

    def _find(self, domain: str) -> OurDomain | None:
        try:
            return self._domains.find(domain)
        except Unreadable as error:
            raise Refusal(NOT_KNOWN_NOW, f"{error} was never readable") from None
