"""DNS lists of clients: those we refuse mail from, and those that are welcome.

Asked by `postoffice.policy.policy` for clients that may not relay. `begin` has the lists asked while the
session begins, so that the answers are there, in the resolver's memory, when they are needed. Only records
within 127.0.0.0/8 count, and not those with which lists say that they do not answer us (127.255.255.0/24).

When things fail: a list that gives no answer lists nobody, and so does one that lists 127.0.0.1, which no
working list does. One that has failed `FAILURES` times in a row is asked once in `REST` seconds until it
answers again: its clients would all wait for it, and their questions fill the resolver. RFC 5782.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from postoffice.interfaces import IResolver, ResolverFailure
from postoffice.mail.reply import Refusal, Reply, printable

FAILURES = 10
REST = 60.0

List = tuple[str, str]
"""A zone, and the address a record must have to count; with an empty one all count."""

_PROBE = "1.0.0.127"
_ANSWERS = range(int(IPv4Address("127.0.0.0")), int(IPv4Address("127.255.255.0")))
# Of what a list says of a client as much is passed on.
_LONGEST = 200


class Lists:
    """The lists of the options `dnsbl` (`blocks`) and `dnswl` (`welcomes`); `warn` hears of broken ones.

    `seconds` tells the time.
    """

    def __init__(
        self,
        blocks: Sequence[List],
        welcomes: Sequence[List],
        resolver: IResolver,
        warn: Callable[[str], None],
        seconds: Callable[[], float],
    ) -> None:
        self._blocks = tuple(blocks)
        self._welcomes = tuple(welcomes)
        self._resolver = resolver
        self._warn = warn
        self._seconds = seconds
        self._broken: set[str] = set()
        # How often each zone failed since it last answered, and when one that rests is asked again.
        self._failures: Counter[str] = Counter()
        self._again: dict[str, float] = {}

    def begin(self, ip: str) -> None:
        """Have all lists asked about a client."""
        if self._blocks or self._welcomes:
            name = reversed_name(ip)
            for zone in {zone for zone, _ in (*self._blocks, *self._welcomes)}:
                self._ask(name, zone).addErrback(_later)
                self._ask(_PROBE, zone).addErrback(_later)

    async def check(self, ip: str) -> None:
        """Errors: `Refusal` for a client that a blocking list has, with the list's name and its words."""
        for zone, code in self._blocks:
            if await self._listed(ip, zone, code):
                said = await self._text(f"{reversed_name(ip)}.{zone}")
                text = f"[{ip}] is listed at {zone}{said}"
                raise Refusal(Reply(554, (7, 1), printable(f"We take no mail from you: {text}")))

    async def welcome(self, ip: str) -> bool:
        """Whether a list of welcome clients has this one."""
        for zone, code in self._welcomes:
            if await self._listed(ip, zone, code):
                return True
        return False

    async def _listed(self, ip: str, zone: str, code: str) -> bool:
        try:
            found = await self._ask(reversed_name(ip), zone)
            if not any(counts(each, code) for each in found):
                return False
            broken = any(counts(each, "") for each in await self._ask(_PROBE, zone))
        except ResolverFailure:
            return False
        if not broken:
            self._broken.discard(zone)
        elif zone not in self._broken:
            self._broken.add(zone)
            self._warn(f"the DNS list {zone} lists even 127.0.0.1; it does not count until it is mended")
        return not broken

    def _ask(self, name: str, zone: str) -> Deferred[tuple[str, ...]]:
        """The records of a name in a list. Errors: `ResolverFailure`, at once while the list rests."""
        if self._failures[zone] >= FAILURES:
            now = self._seconds()
            if now < self._again[zone]:
                return fail(ResolverFailure(f"the DNS list {zone} does not answer"))
            # This one asks for all.
            self._again[zone] = now + REST
        asked = self._resolver.listing(f"{name}.{zone}")
        if not asked.called:
            # What the resolver remembers says nothing of how the list is now.
            asked.addCallbacks(self._answered, self._unanswered, callbackArgs=(zone,), errbackArgs=(zone,))
        return asked

    def _answered(self, found: tuple[str, ...], zone: str) -> tuple[str, ...]:
        if self._failures.pop(zone, 0) >= FAILURES:
            self._warn(f"the DNS list {zone} answers again")
        return found

    def _unanswered(self, failure: Failure, zone: str) -> Failure:
        if failure.check(ResolverFailure):
            self._failures[zone] += 1
            if self._failures[zone] == FAILURES:
                self._again[zone] = self._seconds() + REST
                self._warn(f"the DNS list {zone} does not answer; it lists nobody until it does")
        return failure

    async def _text(self, name: str) -> str:
        try:
            texts = await self._resolver.texts(name)
        except ResolverFailure:
            return ""
        return f": {printable(texts[0], _LONGEST)}" if texts else ""


def counts(address: str, code: str) -> bool:
    """Whether a record says that the subject is listed: any that is not an error, or the one asked for."""
    return int(IPv4Address(address)) in _ANSWERS and code in ("", address)


def reversed_name(ip: str) -> str:
    """An address as the first part of a name in a list: octets, or the digits of IPv6, backwards."""
    return ip_address(ip).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _later(failure: Failure) -> None:
    """What went wrong is seen when the answer is needed."""
    failure.trap(ResolverFailure)
