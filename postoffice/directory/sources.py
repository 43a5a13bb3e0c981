"""The sources of addresses: each knows one way in which a name of ours can be meant.

Made by the service as a tuple in the order in which they are asked (`postoffice.directory.expand` asks
them): the aliases of the domain, its users, the catch-all of a virtual domain, the user maps, and the
postmaster that every domain has. What a source answers is final: no later one is asked.

When things fail: `Unreadable` where a file could never be read, or a user's file not now.
"""

from __future__ import annotations

from operator import is_not
from typing import Protocol

from attrs import evolve, frozen

from postoffice.config.places import MailboxRule
from postoffice.directory.accounts import Account, Accounts, VirtualUsers
from postoffice.directory.aliases import SYSTEM, VIRTUAL, Aliases, Rules, parse_aliases
from postoffice.directory.domains import OurDomain
from postoffice.directory.mailboxes import mailbox_of
from postoffice.directory.personal import PersonalFiles
from postoffice.directory.targets import Target
from postoffice.directory.usermap import Match, Personal, TheUser, UserMap
from postoffice.mail.address import Address
from postoffice.mail.destination import Lmtp, Mailbox
from postoffice.watched import Unreadable, Watch, Watched

# Whom files and commands act as that no user asked for.
NOBODY = "nobody"
# Whose mailbox is for accounts that get no mail, where the configuration names nobody.
ROOT_MAIL = "mail"
# The longest name that user maps are tried with; RFC 5321 section 4.5.3.1.1 allows no longer one.
_LONGEST_NAME = 64


@frozen
class User:
    """Somebody with a mailbox. `account` is that of the system, None for a user of a virtual domain.

    `address` means this user whatever else there is; where it is None, the address asked for does.
    """

    mailbox: Mailbox | Lmtp
    account: str | None = None
    address: Address | None = None


@frozen
class Listed:
    """Targets, and the account that files and commands among them act as.

    They may be the same for many names: `rule` is what these have in common, empty for this name alone.
    """

    targets: tuple[Target, ...]
    account: str = NOBODY
    rule: str = ""


Answer = User | Listed


class Source(Protocol):
    """One way of knowing an address of ours; `name` tells people which."""

    name: str

    async def find(self, local: str, domain: OurDomain) -> Answer | None:
        """What the name stands for, None if this source does not know it. Errors: `Unreadable`."""


class Users(Protocol):
    """The part of a source of users that others need."""

    async def find(self, local: str, domain: OurDomain) -> User | None:
        """The user of that name. Errors: `Unreadable`."""


class AliasFile:
    """One alias file, read again when it changes."""

    def __init__(self, path: str, rules: Rules, watch: Watch) -> None:
        self._path = path
        self._watch = watch
        self._file = Watched(
            path,
            lambda data: parse_aliases(data, rules),
            Aliases(),
            watch,
            release=Aliases.clear,
        )
        self._told: Aliases | None = None

    async def current(self) -> Aliases:
        """The aliases of its last good version. Errors: `Unreadable`."""
        try:
            aliases = self._file.get()
        except Unreadable:
            aliases = await self._file.current()
        if aliases is not self._told:
            self._told = aliases
            for line, name in aliases.twice:
                self._watch.warn(
                    f"{self._path}:{line}: the alias {name} is given twice; the first one counts"
                )
        return aliases


class SystemAliases:
    """The aliases of all domains that are not virtual."""

    def __init__(self, path: str, watch: Watch) -> None:
        self.name = path
        self._file = watch.keep(path, lambda: AliasFile(path, SYSTEM, watch))

    async def find(self, local: str, domain: OurDomain) -> Listed | None:
        targets = None if domain.virtual else (await self._file.current()).find(local)
        return None if targets is None else Listed(targets)


class VirtualAliases:
    """The alias files of the virtual domains, `<directory>/<domain>/aliases`."""

    name = "aliases of the virtual domain"

    def __init__(self, directory: str, watch: Watch) -> None:
        self._directory = directory
        self._watch = watch
        self._files: dict[str, AliasFile] = {}

    async def find(self, local: str, domain: OurDomain) -> Listed | None:
        # `*` is the catch-all, not a name.
        if not domain.virtual or local == "*":
            return None
        targets = (await self.of(domain)).find(local)
        return None if targets is None else Listed(targets)

    async def of(self, domain: OurDomain) -> Aliases:
        """The aliases of a virtual domain. Errors: `Unreadable`."""
        file = self._files.get(domain.name)
        if file is None:
            path = f"{self._directory}/{domain.name}/aliases"
            file = self._files[domain.name] = AliasFile(path, VIRTUAL, self._watch)
        return await file.current()


class CatchAll:
    """The alias `*` of a virtual domain; in its targets `*@` keeps the name that was written to."""

    name = "catch-all of the virtual domain"

    def __init__(self, aliases: VirtualAliases) -> None:
        self._aliases = aliases

    async def find(self, local: str, domain: OurDomain) -> Listed | None:
        targets = (await self._aliases.of(domain)).find("*") if domain.virtual else None
        if targets is None:
            return None
        named = tuple(
            evolve(target, local=local) if isinstance(target, Address) and target.local == "*" else target
            for target in targets
        )
        return Listed(named, rule="" if any(map(is_not, named, targets)) else "*")


@frozen
class Floor:
    """Which accounts get no mail themselves: 0, and those below `min_uid`; and who gets it instead.

    Without `root_mail` it is the mailbox `mail`. That account gets mail wherever it stands.
    """

    min_uid: int = 0
    root_mail: str | None = None

    @property
    def deputy(self) -> str:
        """Who gets the mail of those below."""
        return self.root_mail or ROOT_MAIL

    def bears(self, account: Account) -> bool:
        """Whether an account gets mail itself."""
        return account.uid != 0 and (account.uid >= self.min_uid or account.name == self.deputy)


class Mailboxes:
    """The users of the system in every domain that is not virtual, and those of each virtual domain."""

    name = "users"

    def __init__(
        self,
        accounts: Accounts,
        floor: Floor,
        rule: MailboxRule,
        virtual: VirtualUsers,
        virtual_rule: MailboxRule,
    ) -> None:
        self._accounts = accounts
        self._floor = floor
        self._rule = rule
        self._virtual = virtual
        self._virtual_rule = virtual_rule

    async def find(self, local: str, domain: OurDomain) -> User | None:
        if domain.virtual:
            user = await self._virtual.find(local, domain)
            if user is None:
                return None
            return User(mailbox_of(self._virtual_rule, user, domain.name, "", f"{user}@{domain.name}"))
        account = await self._accounts.find(local)
        if account is None or not self._floor.bears(account):
            return None
        mailbox = mailbox_of(self._rule, account.name, domain.name, account.home, account.name)
        # Nothing is read as an account below the floor.
        return User(mailbox, account.name if account.uid >= self._floor.min_uid else None)


class RootMail:
    """The mail of accounts that get none themselves goes to `root-mail`, or to the mailbox `mail`."""

    name = "root-mail"

    def __init__(self, accounts: Accounts, floor: Floor) -> None:
        self._accounts = accounts
        self._floor = floor

    async def find(self, local: str, domain: OurDomain) -> Listed | None:
        account = None if domain.virtual else await self._accounts.find(local)
        if account is None or self._floor.bears(account):
            return None
        return Listed((Address(self._floor.deputy, ""),))


class UserMaps:
    """The user maps, in their order.

    The first whose pattern matches decides, even if none of its targets then does.
    """

    name = "user maps"

    def __init__(self, maps: tuple[UserMap, ...], users: Users, files: PersonalFiles) -> None:
        self._maps = maps
        self._users = users
        self._files = files

    async def find(self, local: str, domain: OurDomain) -> Answer | None:
        if len(local) > _LONGEST_NAME:
            return None
        name = local.lower()

        async def user_of(part: str) -> tuple[str, User] | None:
            user = await self._users.find(part, domain)
            return None if user is None else (part, user)

        for usermap in self._maps:
            match = Match(usermap.tokens, name, user_of)
            if await match.succeeds():
                return await self._decide(usermap, name, domain, match.found)
        return None

    async def _decide(
        self, usermap: UserMap, name: str, domain: OurDomain, found: tuple[str, User] | None
    ) -> Answer:
        for target in usermap.targets:
            match target:
                case TheUser():
                    assert found is not None
                    return evolve(found[1], address=Address(found[0], domain.name))
                case Personal(file=file):
                    assert found is not None
                    listed = await self._personal(found[1], file, name)
                    if listed is not None:
                        return listed
                case _:
                    return Listed((target,), rule=usermap.text)
        return Listed(())

    async def _personal(self, user: User, file: str, name: str) -> Listed | None:
        if user.account is None:
            return None
        aliases = await self._files.aliases(user.account, file)
        targets = aliases.find(name) if aliases is not None else None
        return None if targets is None else Listed(targets, user.account)


class Postmaster:
    """The postmaster of every domain of ours where nobody else has the name (RFC 5321 section 4.5.1).

    His mail goes to the account the service runs as.
    """

    name = "postmaster"

    def __init__(self, account: Account, rule: MailboxRule) -> None:
        self._account = account
        self._rule = rule

    async def find(self, local: str, domain: OurDomain) -> User | None:
        if local.lower() != "postmaster":
            return None
        name = self._account.name
        return User(
            mailbox_of(self._rule, name, domain.name, self._account.home, name), name, Address(name, "")
        )
