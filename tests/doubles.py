"""In-memory stand-ins for the seams of `postoffice.interfaces`, for tests of the parts that use them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from twisted.internet import defer
from twisted.internet.defer import Deferred
from zope.interface import implementer

from postoffice.interfaces import (
    Declined,
    IDirectory,
    IGreylistStore,
    IPasswordHashes,
    IPolicy,
    IResolver,
    IVirtualFiles,
    MailExchanger,
    NoSuchDomain,
    ResolverFailure,
    StoreFailed,
)
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Copy, Destination, Explanation, Fixed, Mailbox, Remote
from postoffice.mail.envelope import Envelope
from postoffice.mail.greylist import Bounds, Record
from postoffice.mail.reply import Refusal, Reply
from postoffice.mail.virtual import AliasSummary, VirtualDomain

NO_BOUNDS = Bounds(0, 0, 0)


@implementer(IResolver)
class StaticResolver:
    """A DNS of three tables; every answer is there at once.

    `mx` gives (preference, host) pairs by domain: `(0, "")` is the null MX. `addresses` gives addresses by
    host, `reverse` the PTR name by address, which counts only where `addresses` confirms it. A name that is
    in neither `mx` nor `addresses` does not exist; asking about one of `failing` (names or addresses) fails.
    `listed` gives A records and `texts` TXT records, in DNS lists, by name.
    `asked` keeps the questions in order, as (method, name).
    """

    def __init__(
        self,
        mx: Mapping[str, Sequence[tuple[int, str]]] | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
        reverse: Mapping[str, str] | None = None,
        failing: Iterable[str] = (),
        listed: Mapping[str, Sequence[str]] | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._mx = {_plain(name): tuple(records) for name, records in (mx or {}).items()}
        self._addresses = {_plain(name): tuple(ips) for name, ips in (addresses or {}).items()}
        self._reverse = dict(reverse or {})
        self._listed = dict(listed or {})
        self._texts = dict(texts or {})
        self._failing = {_plain(name) for name in failing}
        self.asked: list[tuple[str, str]] = []

    def exchangers(self, domain: str) -> Deferred[tuple[MailExchanger, ...]]:
        name = _plain(domain)
        self.asked.append(("exchangers", name))
        if _is_ip(name):
            return defer.succeed(())
        problem = self._problem(name)
        if problem is not None:
            return defer.fail(problem)
        records = sorted(self._mx.get(name, ()), key=lambda record: record[0])
        return defer.succeed(tuple(MailExchanger(preference, _plain(host)) for preference, host in records))

    def addresses(self, host: str) -> Deferred[tuple[str, ...]]:
        name = _plain(host)
        self.asked.append(("addresses", name))
        if name not in self._failing:
            if _is_ip(name):
                return defer.succeed((name,))
            if name == "localhost" and name not in self._addresses:
                return defer.succeed(("127.0.0.1", "::1"))
        problem = self._problem(name)
        if problem is not None:
            return defer.fail(problem)
        return defer.succeed(self._addresses.get(name, ()))

    def reverse(self, ip: str) -> Deferred[str | None]:
        self.asked.append(("reverse", ip))
        name = self._reverse.get(ip)
        if ip in self._failing or (name is not None and _plain(name) in self._failing):
            return defer.fail(ResolverFailure(f"{ip}: told to fail"))
        if name is None or ip not in self._addresses.get(_plain(name), ()):
            return defer.succeed(None)
        return defer.succeed(_plain(name))

    def pointer(self, ip: str) -> Deferred[str | None]:
        self.asked.append(("pointer", ip))
        if ip in self._failing:
            return defer.fail(ResolverFailure(f"{ip}: told to fail"))
        return defer.succeed(self._reverse.get(ip))

    def listing(self, name: str) -> Deferred[tuple[str, ...]]:
        return self._from(self._listed, "listing", _plain(name))

    def texts(self, name: str) -> Deferred[tuple[str, ...]]:
        return self._from(self._texts, "texts", _plain(name))

    def _from(
        self, table: Mapping[str, Sequence[str]], question: str, name: str
    ) -> Deferred[tuple[str, ...]]:
        self.asked.append((question, name))
        if name in self._failing:
            return defer.fail(ResolverFailure(f"{name}: told to fail"))
        return defer.succeed(tuple(table.get(name, ())))

    def _problem(self, name: str) -> Exception | None:
        if name in self._failing:
            return ResolverFailure(f"{name}: told to fail")
        if name not in self._mx and name not in self._addresses:
            return NoSuchDomain(name)
        return None


@implementer(IDirectory)
class StaticDirectory:
    """The domains of `local` are ours, `virtual` among them.

    `users` gives mailboxes by lower-case name, in all of them; a look-up in one of `failing` fails.
    """

    def __init__(
        self,
        local: Iterable[str] = (),
        users: Mapping[str, Mailbox] | None = None,
        virtual: Iterable[str] = (),
        failing: Iterable[str] = (),
    ) -> None:
        self._virtual = set(map(_plain, virtual))
        self._failing = set(map(_plain, failing))
        self._local = {"", *map(_plain, local)}
        self._users = dict(users or {})

    async def is_local(self, domain: str) -> bool:
        return _plain(domain) in self._local

    async def is_virtual(self, domain: str) -> bool:
        return _plain(domain) in self._virtual

    async def accepts(self, domain: str) -> bool:
        return await self.is_local(domain)

    async def owns(self, login: str, address: Address) -> bool:
        try:
            found = await self.resolve(address)
        except Refusal as refusal:
            if refusal.reply.temporary:
                raise
            return False
        return isinstance(found, Mailbox) and found.owner.lower() == login.lower()

    async def explain(self, address: Address) -> Explanation:
        return Explanation((), ((Copy(address, (), None, await self.resolve(address)), None),))

    async def check(self, address: Address) -> None:
        await self.resolve(address)

    async def resolve(
        self, address: Address, fixed: Fixed | None = None, path: Sequence[Address] = ()
    ) -> Destination:
        if _plain(address.domain) in self._failing:
            raise Refusal(Reply(451, (3, 0), "Not known now"))
        if _plain(address.domain) not in self._local:
            return Remote(_plain(address.domain))
        mailbox = self._users.get(address.local.lower())
        if mailbox is None:
            raise Refusal(Reply(550, (1, 1), "No such user here"))
        return mailbox


@implementer(IPolicy)
class ScriptedPolicy:
    """Refuses what `refusals` says, by the name of the method; `put_off` is the answer to DATA.

    `told` keeps what was asked or told, in order.
    """

    def __init__(
        self, client: Client | None = None, put_off: Refusal | None = None, **refusals: Refusal
    ) -> None:
        self.found = client
        self.put_off = put_off
        self.refusals = refusals
        self.told: list[str] = []

    async def client(self, client: Client) -> Client:
        self._judge("client", client.ip)
        return self.found or client

    async def helo(self, client: Client) -> None:
        self._judge("helo", client.helo)

    async def sender(self, client: Client, sender: Address | None) -> Refusal | None:
        self._judge("sender", sender)
        return self.put_off

    async def recipient(self, client: Client, sender: Address | None, address: Address) -> None:
        self._judge("recipient", address)

    async def content(self, client: Client, sender: Address | None, recipients: Sequence[Address]) -> None:
        self._judge("content", *recipients)

    def wrong_number(self, client: Client, sender: Address | None) -> None:
        self._judge("wrong_number", sender)

    def rejected(self, client: Client, sender: Address | None) -> None:
        self._judge("rejected", sender)

    def accepted(self, client: Client, envelope: Envelope) -> None:
        self._judge("accepted", *envelope.recipients)

    def _judge(self, name: str, *subjects: object) -> None:
        self.told.append(" ".join((name, *map(str, subjects))))
        if name in self.refusals:
            raise self.refusals[name]


@implementer(IGreylistStore)
class MemoryGreylist:
    """The greylist's records in a dictionary, `pairs`: by key the record and its network.

    Everything goes that must when it is flushed. While `broken` is set, nothing can be done with it.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        bounds: Bounds = NO_BOUNDS,
        pairs: dict[str, tuple[Record, str]] | None = None,
    ) -> None:
        self._seconds = seconds
        self._bounds = bounds
        self.pairs = {} if pairs is None else pairs
        self.broken = True

    def adapt(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def open(self) -> Deferred[None]:
        self.broken = False
        return defer.succeed(None)

    def close(self) -> Deferred[None]:
        self.broken = True
        return defer.succeed(None)

    def _usable(self) -> dict[str, tuple[Record, str]]:
        if self.broken:
            raise StoreFailed("told to fail")
        return self.pairs

    def get(self, key: str) -> Record | None:
        pair = self._usable().get(key)
        return pair and pair[0]

    def put(self, key: str, record: Record, network: str) -> None:
        pairs = self._usable()
        pairs[key] = record, pairs.get(key, (record, network))[1]

    def remove(self, key: str) -> None:
        self._usable().pop(key, None)

    def flush(self) -> Deferred[None]:
        if self.broken:
            return defer.fail(StoreFailed("told to fail"))
        bounds, pairs, now = self._bounds, self.pairs, self._seconds()
        counted = {key: pair for key, pair in pairs.items() if not pair[0].kept}
        for key, (record, _) in list(counted.items()):
            if bounds.keep and record.seen < now - bounds.keep:
                del counted[key], pairs[key]
        for network in {network for _, network in counted.values() if network}:
            self._bound([key for key, pair in counted.items() if pair[1] == network], bounds.share)
        self._bound([key for key in counted if key in pairs], bounds.most)
        return defer.succeed(None)

    def _bound(self, keys: list[str], limit: int) -> None:
        keys.sort(key=lambda key: self.pairs[key][0].seen)
        waiting = [key for key in keys if not self.pairs[key][0].passed]
        passed = [key for key in keys if self.pairs[key][0].passed]
        excess = max(0, len(keys) - limit) if limit else 0
        first = min(excess, max(0, len(waiting) - limit // 4))
        for key in waiting[:first] + passed[: excess - first]:
            del self.pairs[key]

    async def records(self) -> AsyncIterator[list[tuple[str, Record]]]:
        await self.flush()
        everything = [(key, record) for key, (record, _) in sorted(self.pairs.items())]
        for start in range(0, len(everything), 10):
            yield everything[start : start + 10]


def _plain(name: str) -> str:
    return name.removesuffix(".").lower()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@implementer(IVirtualFiles)
class MemoryVirtualFiles:
    """Virtual domains in tables: users with passwords, and aliases, by the name of the domain."""

    def __init__(self, *domains: VirtualDomain) -> None:
        self.domains = {domain.name: domain for domain in domains}
        self.passwords: dict[str, dict[str, bytes]] = {name: {} for name in self.domains}
        self.names: dict[str, dict[str, str]] = {name: {} for name in self.domains}

    async def find(self, domain: str) -> VirtualDomain | None:
        return self.domains.get(domain)

    async def users(self, domain: VirtualDomain) -> list[tuple[str, bool]]:
        return [(user, password != b"*") for user, password in self.passwords[domain.name].items()]

    async def set_password(self, domain: VirtualDomain, user: str, password: bytes, new: bool) -> None:
        if (user in self.passwords[domain.name]) == new:
            raise Declined("no user, or one already", os.EX_NOUSER)
        self.passwords[domain.name][user] = password

    async def remove_user(self, domain: VirtualDomain, user: str) -> None:
        del self.passwords[domain.name][user]

    async def aliases(self, domain: VirtualDomain) -> list[tuple[str, str]]:
        return list(self.names[domain.name].items())

    async def set_alias(self, domain: VirtualDomain, name: str, targets: Sequence[str]) -> None:
        self.names[domain.name][name] = ", ".join(targets)

    async def remove_alias(self, domain: VirtualDomain, name: str) -> None:
        del self.names[domain.name][name]

    async def summary(self, domain: VirtualDomain | None) -> AliasSummary:
        name = "" if domain is None else domain.name
        if name not in self.names:
            raise Declined("no such file", os.EX_NOINPUT)
        sizes = [len(text) for text in self.names[name].values()]
        return AliasSummary(f"aliases of {name}", len(sizes), max(sizes, default=0), sum(sizes), ((3, "x"),))


@implementer(IPasswordHashes)
class PlainHashes:
    """Hashes are two words and the password: `hash of secret`. `done` keeps those that were worked on."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def usable(self, stored: str) -> bool:
        return " of " in stored

    def verify(self, stored: str, password: bytes) -> bool:
        self.done.append(stored)
        return stored.partition(" of ")[2] == password.decode()

    def make(self, password: bytes) -> str:
        return f"hash of {password.decode()}"
