"""The resolver: the office's questions to the DNS, answered from memory or by the name servers given.

Made by the service, asked by policy (reverse names, whether a domain exists), directory and delivery. What is
in the cache is answered at once, with a Deferred that has already fired. Otherwise each server is asked in
turn with growing patience; one that refuses or talks nonsense is not asked again for that question. A
question fails with `ResolverFailure` when no server answered it; none takes longer than 15 seconds, CNAMEs
included. Identical questions under way are asked once, and at most 500 are under way. `close` leaves
nothing behind. RFC 1034 section 5.3, RFC 5321 section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random, SystemRandom
from typing import TypeVar, cast

from dns.rdatatype import RdataType
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from postoffice.interfaces import IResolver, MailExchanger, NoSuchDomain, ResolverFailure
from postoffice.services.dns.cache import Cache
from postoffice.services.dns.message import (
    MOST_ADDRESSES,
    MOST_ALIASES,
    BadReply,
    Found,
    Known,
    Nonexistent,
    Question,
    Unanswered,
    read,
)
from postoffice.services.dns.names import address, canonical, is_host, is_localhost, pointer
from postoffice.services.dns.system import Server
from postoffice.services.dns.transport import NoReply, Reactor, Silence, Transport

_PATIENCE = (2.0, 4.0, 8.0)
_LONGEST = 15.0
_MOST_UNDER_WAY = 500
_MOST_POINTERS = 4
_LOCALHOST = ("127.0.0.1", "::1")

_T = TypeVar("_T")


@implementer(IResolver)
class Resolver:
    """A caching stub resolver.

    `servers` are asked in their order. `hosts` gives addresses by canonical name (see `system.parse_hosts`),
    which count before the DNS for `addresses`, `reverse` and `pointer`.
    """

    def __init__(
        self,
        reactor: Reactor,
        servers: Sequence[Server],
        hosts: Mapping[str, Sequence[str]] | None = None,
        random: Random | None = None,
    ) -> None:
        self._reactor = reactor
        self._servers = tuple(servers)
        self._hosts = {name: tuple(ips) for name, ips in (hosts or {}).items()}
        self._hosts_by_address: dict[str, str] = {}
        for name, ips in self._hosts.items():
            for ip in ips:
                self._hosts_by_address.setdefault(ip, name)
        self._random = random or SystemRandom()
        self._cache = Cache(reactor.seconds)
        self._transport = Transport(reactor)
        self._room = DeferredSemaphore(_MOST_UNDER_WAY)
        self._waiting: dict[Question, list[Deferred[Known]]] = {}
        self._inquiries: set[Deferred[Known]] = set()
        self._closed = False

    def adapt(self, servers: Sequence[Server]) -> None:
        """Ask other servers from now on; what is known stays until its TTL ends."""
        self._servers = tuple(servers)

    def exchangers(self, domain: str) -> Deferred[tuple[MailExchanger, ...]]:
        try:
            name = canonical(domain)
        except NoSuchDomain:
            return defer.fail()
        if is_localhost(name) or address(name) is not None:
            return defer.succeed(())

        def conclude(known: Known) -> tuple[MailExchanger, ...]:
            match known:
                case Found(values=values):
                    return cast("tuple[MailExchanger, ...]", values)
                case Nonexistent() if name in self._hosts:
                    return ()
                case Nonexistent():
                    raise NoSuchDomain(name)
                case Unanswered(why=why):
                    raise ResolverFailure(why)

        return self._find(Question(name, RdataType.MX)).addCallback(conclude)

    def addresses(self, host: str) -> Deferred[tuple[str, ...]]:
        ip = address(host)
        if ip is not None:
            return defer.succeed((ip,))
        try:
            name = canonical(host)
        except NoSuchDomain:
            return defer.fail()
        if name in self._hosts:
            return defer.succeed(self._hosts[name])
        if is_localhost(name):
            return defer.succeed(_LOCALHOST)
        both = [self._find(Question(name, kind)) for kind in (RdataType.A, RdataType.AAAA)]
        return defer.DeferredList(both, consumeErrors=True).addCallback(
            lambda results: _merged(name, results)
        )

    def reverse(self, ip: str) -> Deferred[str | None]:
        plain = address(ip)
        if plain is None:
            return defer.succeed(None)
        if plain in self._hosts_by_address:
            return defer.succeed(self._hosts_by_address[plain])
        return self._bounded(Deferred.fromCoroutine(self._reverse(plain)), _no_reverse)

    def pointer(self, ip: str) -> Deferred[str | None]:
        plain = address(ip)
        if plain is None:
            return defer.succeed(None)
        if plain in self._hosts_by_address:
            return defer.succeed(self._hosts_by_address[plain])
        names = self._values(Question(pointer(plain), RdataType.PTR))
        return names.addCallback(lambda found: next(filter(is_host, found), None))

    def listing(self, name: str) -> Deferred[tuple[str, ...]]:
        return self._values_of(name, RdataType.A)

    def texts(self, name: str) -> Deferred[tuple[str, ...]]:
        return self._values_of(name, RdataType.TXT)

    def close(self) -> Deferred[None]:
        """End all questions; they fail. Fires when nothing is left."""
        self._closed = True
        for inquiry in tuple(self._inquiries):
            inquiry.cancel()
        return self._transport.close()

    def _values_of(self, name: str, kind: RdataType) -> Deferred[tuple[str, ...]]:
        try:
            return self._values(Question(canonical(name), kind))
        except NoSuchDomain:
            return defer.succeed(())

    def _values(self, question: Question) -> Deferred[tuple[str, ...]]:
        """The records found, () also for a name that does not exist."""

        def conclude(known: Known) -> tuple[str, ...]:
            match known:
                case Found(values=values):
                    return cast("tuple[str, ...]", values)
                case Nonexistent():
                    return ()
                case Unanswered(why=why):
                    raise ResolverFailure(why)

        return self._find(question).addCallback(conclude)

    async def _reverse(self, ip: str) -> str | None:
        known = await self._find(Question(pointer(ip), RdataType.PTR))
        match known:
            case Nonexistent():
                return None
            case Unanswered(why=why):
                raise ResolverFailure(why)
        failure = None
        for name in cast("tuple[str, ...]", known.values)[:_MOST_POINTERS]:
            # What a stranger's zone calls itself ends up in headers and logs.
            if not is_host(name):
                continue
            try:
                if ip in await self.addresses(name):
                    return name
            except NoSuchDomain:
                continue
            except ResolverFailure as error:
                failure = error
        if failure is not None:
            raise failure
        return None

    def _find(self, question: Question) -> Deferred[Known]:
        """What is known of a question, CNAMEs followed."""
        known = self._cache.get(question)
        if known is not None and not (isinstance(known, Found) and known.alias is not None):
            return defer.succeed(known)
        return self._bounded(
            Deferred.fromCoroutine(self._follow(question)),
            lambda: Unanswered(f"{question}: no answer within {_LONGEST:.0f} s"),
        )

    async def _follow(self, question: Question) -> Known:
        aliases = 0
        while True:
            known = await self._ask(question)
            if not isinstance(known, Found) or known.alias is None:
                return known
            aliases += known.aliases
            if aliases > MOST_ALIASES:
                return Unanswered(f"{question}: more than {MOST_ALIASES} CNAMEs, or a loop of them")
            question = Question(known.alias, question.kind)

    def _ask(self, question: Question) -> Deferred[Known]:
        """What the cache or a server says, shared with whoever else asks it now."""
        known = self._cache.get(question)
        if known is not None:
            return defer.succeed(known)
        waiters = self._waiting.get(question)
        started = waiters is not None
        if waiters is None:
            waiters = self._waiting[question] = []
        waiter: Deferred[Known] = Deferred(waiters.remove)
        waiters.append(waiter)
        if not started:
            self._start(question)
        return waiter

    def _start(self, question: Question) -> None:
        inquiry = Deferred.fromCoroutine(self._inquire(question))

        def conclude(result: Known | Failure) -> None:
            self._inquiries.discard(inquiry)
            if not isinstance(result, Failure):
                self._cache.put(question, result)
            elif isinstance(result.value, CancelledError):
                result = Unanswered(f"{question}: the resolver is closed")
            for waiter in tuple(self._waiting.pop(question)):
                # One that fires may cancel another.
                if not waiter.called:
                    waiter.callback(result)

        self._inquiries.add(inquiry)
        inquiry.addBoth(conclude)

    async def _inquire(self, question: Question) -> Known:
        """Wait for room, then put a question to the servers."""
        if self._closed:
            return Unanswered(f"{question}: the resolver is closed")
        deadline = self._reactor.seconds() + _LONGEST
        try:
            await self._room.acquire().addTimeout(_LONGEST, cast(IReactorTime, self._reactor))
        except defer.TimeoutError:
            return Unanswered(f"{question}: too many questions are under way")
        try:
            return await self._ask_servers(question, deadline)
        finally:
            self._room.release()

    async def _ask_servers(self, question: Question, deadline: float) -> Known:
        reasons: dict[Server, str] = {}
        silent = self._servers
        for patience in _PATIENCE:
            for server in silent:
                left = deadline - self._reactor.seconds()
                if left <= 0:
                    break
                query = question.query(self._random.getrandbits(16))
                try:
                    return read(question, await self._transport.ask(server, query, min(patience, left)))
                except (NoReply, BadReply) as error:
                    reasons[server] = str(error)
                    if not isinstance(error, Silence):
                        silent = tuple(each for each in silent if each != server)
        tried = "; ".join(f"{ip} port {port}: {reason}" for (ip, port), reason in reasons.items())
        return Unanswered(f"{question}: {tried or 'no name server'}")

    def _bounded(self, result: Deferred[_T], late: Callable[[], _T]) -> Deferred[_T]:
        """The same, but what `late` returns or raises when it takes too long."""
        return result.addTimeout(_LONGEST, cast(IReactorTime, self._reactor), lambda *_: late())


def _no_reverse() -> str | None:
    raise ResolverFailure(f"the reverse name was not found out within {_LONGEST:.0f} s")


def _merged(name: str, results: Iterable[tuple[bool, Known | Failure]]) -> tuple[str, ...]:
    """The addresses of both kinds. "None" counts only where both were answered: it bounces letters."""
    found: list[str] = []
    exists = False
    reason = None
    for _, known in results:
        match known:
            case Found(values=values):
                exists = True
                found.extend(cast("tuple[str, ...]", values))
            case Unanswered(why=why):
                reason = why
            case Failure():
                known.raiseException()
    if found:
        return tuple(ip for ip in map(address, found[:MOST_ADDRESSES]) if ip is not None)
    if reason is not None:
        raise ResolverFailure(reason)
    if not exists:
        raise NoSuchDomain(name)
    return ()
