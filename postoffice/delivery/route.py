"""Which addresses a letter to another host is tried at, and in which order. RFC 5321 section 5, RFC 7505.

Used by remote delivery. Domains are looked up by MX, lowest preference first and equal ones shuffled; a
domain without MX is its own host. Hosts are looked up only when their turn has come. If we are one of the
exchangers, only better ones are used; if we are the best, the letter would loop. Loopback addresses and our
own never count, since whoever writes the DNS of a domain must not choose what we say to ourselves. A
`direct` destination was chosen by the operator: no MX, any address.

Errors: `Refusal` with the reply to record, 5xx where the answer of the DNS is final.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import groupby
from random import Random

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from postoffice.interfaces import IResolver, MailExchanger, NoSuchDomain, ResolverFailure
from postoffice.mail.destination import Remote
from postoffice.mail.reply import Refusal, Reply

MOST_HOSTS = 10
MOST_ADDRESSES = 10

_Answer = tuple[str, ...] | NoSuchDomain | ResolverFailure


@frozen
class Target:
    """An address to connect to, and the host name it belongs to; the path of a socket is both, at port 0."""

    host: str
    ip: str
    port: int

    def __str__(self) -> str:
        """How outcomes name it: `host[ip]:port`, `[ip]:port` where there was no name, `/path`."""
        if not self.port:
            return self.host
        return f"{'' if self.host[0] == '[' else self.host}[{self.ip}]:{self.port}"


class Router:
    """Finds addresses. `name` is our own, `port` the one for destinations without, `random` shuffles."""

    def __init__(
        self,
        resolver: IResolver,
        name: str,
        port: int,
        own_addresses: Callable[[], frozenset[str]],
        random: Random,
    ) -> None:
        self._resolver = resolver
        self._name = _plain(name)
        self._port = port
        self._own_addresses = own_addresses
        self._random = random

    async def targets(self, route: Remote) -> AsyncIterator[Target]:
        """The addresses for a destination, best first, at least one and at most `MOST_ADDRESSES`."""
        found = 0
        async for target in self._direct(route) if route.direct else self._exchangers(route):
            yield target
            found += 1
            if found == MOST_ADDRESSES:
                return

    async def _direct(self, route: Remote) -> AsyncIterator[Target]:
        for ip in await self._host(route.domain):
            yield self._target(route, route.domain, ip)

    async def _exchangers(self, route: Remote) -> AsyncIterator[Target]:
        hosts = await self._hosts(route.domain)
        own = self._own_addresses()
        found = False
        failure: ResolverFailure | None = None
        for _, group in groupby(hosts, key=lambda exchanger: exchanger.preference):
            addresses, failed = await self._addresses([exchanger.host for exchanger in group])
            failure = failure or failed
            if any(host == self._name or ip in own for host, ip in addresses):
                if found:
                    return
                raise Refusal((failure and _unknown(failure)) or _looping(route.domain))
            for host, ip in addresses:
                if _is_outside(ip):
                    found = True
                    yield self._target(route, host, ip)
        if not found:
            raise Refusal(_unknown(failure) if failure else _unreachable(route.domain))

    async def _hosts(self, domain: str) -> list[MailExchanger]:
        """The hosts to try, by preference, equal ones shuffled."""
        if _literal(domain) is not None:
            return [MailExchanger(0, domain)]
        try:
            exchangers = await self._resolver.exchangers(domain)
        except NoSuchDomain:
            raise Refusal(_no_such(domain)) from None
        except ResolverFailure as failure:
            raise Refusal(_unknown(failure)) from None
        if exchangers and not any(exchanger.host.rstrip(".") for exchanger in exchangers):
            raise Refusal(Reply(556, (1, 10), f"{domain} takes no mail"))
        if not exchangers:
            # Asked here, so that a domain without any address is told from one whose exchanger has none.
            await self._host(domain)
            return [MailExchanger(0, domain)]
        hosts = [exchanger for exchanger in exchangers if exchanger.host.rstrip(".")]
        self._random.shuffle(hosts)
        return sorted(hosts, key=lambda exchanger: exchanger.preference)[:MOST_HOSTS]

    async def _host(self, host: str) -> tuple[str, ...]:
        """The addresses of a host that has to have some."""
        literal = _literal(host)
        if literal is not None:
            return (literal,)
        try:
            addresses = await self._resolver.addresses(host)
        except NoSuchDomain:
            addresses = ()
        except ResolverFailure as failure:
            raise Refusal(_unknown(failure)) from None
        if not addresses:
            raise Refusal(_no_such(host))
        return addresses

    async def _addresses(self, hosts: Sequence[str]) -> tuple[list[tuple[str, str]], ResolverFailure | None]:
        """Host and address for each address of some hosts, all asked at once; hosts without are left out."""
        asked: list[tuple[str, Deferred[_Answer]]] = []
        for host in hosts:
            literal = _literal(host)
            addresses: tuple[str, ...] = () if literal is None else (literal,)
            answer = succeed(addresses) if addresses else self._resolver.addresses(host)
            asked.append((_plain(host), answer.addErrback(_problem)))
        found: list[tuple[str, str]] = []
        failure: ResolverFailure | None = None
        for host, deferred in asked:
            match await deferred:
                case ResolverFailure() as failed:
                    failure = failed
                case tuple(ips):
                    found += [(host, ip) for ip in ips]
        return found, failure

    def _target(self, route: Remote, host: str, ip: str) -> Target:
        return Target(_plain(host), ip, route.port or self._port)


def _problem(failure: Failure) -> NoSuchDomain | ResolverFailure:
    """A refusal of the DNS as a value, so that none goes unhandled when nobody waits for it any more."""
    if isinstance(failure.value, NoSuchDomain | ResolverFailure):
        return failure.value
    return failure.raiseException()


def _literal(domain: str) -> str | None:
    """The address in an address literal, None for a name. Errors: `Refusal` where it is no address."""
    if not domain.startswith("["):
        return None
    inner = domain.strip("[]")
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    try:
        return str(ip_address(inner))
    except ValueError:
        raise Refusal(_no_such(domain)) from None


def _is_outside(ip: str) -> bool:
    """Whether an address can be another host's: not loopback, unspecified or multicast."""
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def _no_such(domain: str) -> Reply:
    return Reply(550, (1, 2), f"{domain} does not exist, or has neither mail exchanger nor address")


def _unknown(failure: ResolverFailure) -> Reply:
    return Reply(451, (4, 3), f"the DNS gave no answer: {failure}")


def _looping(domain: str) -> Reply:
    return Reply(554, (4, 6), f"mail for {domain} loops back to this host")


def _unreachable(domain: str) -> Reply:
    return Reply(550, (4, 4), f"no mail exchanger of {domain} has an address that can be used")
