"""Whether the DNS makes a domain ours: one of its mail exchangers has an address of this machine.

Asked by `postoffice.directory.domains` about names that the configuration does not know. Looked up are the
MX records of the domain, else those of `*.domain`, else its own addresses. Loopback addresses never count,
since everybody may publish them. With `mxpool` the domain is ours only where we are its best exchanger;
where we are another one, we take its mail and pass it on to a better one.

When things fail: `Refusal` with 451 4.4.3 where the DNS gives no answer that is needed. RFC 5321 section 5.1,
RFC 7505.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from itertools import groupby
from typing import Literal

from attrs import frozen

from postoffice.interfaces import IResolver, MailExchanger, NoSuchDomain, ResolverFailure
from postoffice.mail.reply import Refusal, Reply

Verdict = Literal["ours", "better", "elsewhere"]

# Seconds for which a verdict is kept at most; the resolver keeps the answers it is made of by their TTL.
KEPT = 10.0
_MOST_KEPT = 10_000
_MOST_HOSTS = 10


@frozen
class Machine:
    """What makes an exchanger ours: our host name, and the textual addresses of the interfaces."""

    hostname: str
    addresses: Callable[[], frozenset[str]]

    def has(self, ips: Iterable[str]) -> bool:
        """Whether one of the addresses is ours."""
        own = self.addresses()
        return any(ip in own and not ip_address(ip).is_loopback for ip in ips)


class Exchange:
    """Judges domains, given in the form they are compared in. `seconds` is a clock."""

    def __init__(
        self, resolver: IResolver, machine: Machine, seconds: Callable[[], float], mxpool: bool = False
    ) -> None:
        self._resolver = resolver
        self._machine = machine
        self._seconds = seconds
        self._mxpool = mxpool
        self._known: dict[str, tuple[float, Verdict]] = {}

    async def judge(self, domain: str) -> Verdict:
        """Whether we are an exchanger of the domain: the one to deliver here, or one that passes it on."""
        now = self._seconds()
        known = self._known.get(domain)
        if known is not None and known[0] - KEPT <= now < known[0]:
            return known[1]
        try:
            verdict = await self._judge(domain)
        except ResolverFailure as failure:
            why = f"the DNS gave no answer about {domain}: {failure}"
            raise Refusal(
                Reply(451, (4, 3), "The DNS gives no answer about the domain, try again later"), why
            ) from None
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[domain] = (now + KEPT, verdict)
        return verdict

    async def _judge(self, domain: str) -> Verdict:
        exchangers = await self._exchangers(domain)
        failure: ResolverFailure | None = None
        better = False
        for _, group in groupby(exchangers, key=lambda exchanger: exchanger.preference):
            ours, others = False, False
            for exchanger in group:
                try:
                    ips = await self._addresses(exchanger.host)
                except ResolverFailure as failed:
                    failure = failed
                    continue
                host_is_ours = exchanger.host.rstrip(".").lower() == self._machine.hostname
                ours = ours or host_is_ours or self._machine.has(ips)
                others = others or bool(ips)
            if ours and failure and self._mxpool and not better:
                # Who could not be looked up may be better than we are.
                raise failure
            if ours:
                return "better" if better and self._mxpool else "ours"
            better = better or others
        if failure is not None:
            raise failure
        return "elsewhere"

    async def _exchangers(self, domain: str) -> list[MailExchanger]:
        """The mail exchangers by preference; the domain itself where it has none, nothing for a null MX."""
        try:
            found = await self._resolver.exchangers(domain)
            if not found:
                found = await self._wildcard(domain)
        except NoSuchDomain:
            return []
        if not found:
            return [MailExchanger(0, domain)]
        return [exchanger for exchanger in found if exchanger.host.rstrip(".")][:_MOST_HOSTS]

    async def _wildcard(self, domain: str) -> tuple[MailExchanger, ...]:
        try:
            return await self._resolver.exchangers(f"*.{domain}")
        except NoSuchDomain:
            return ()

    async def _addresses(self, host: str) -> tuple[str, ...]:
        try:
            return await self._resolver.addresses(host)
        except NoSuchDomain:
            return ()
