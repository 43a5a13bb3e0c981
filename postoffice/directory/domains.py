"""Which domains are ours.

Asked by `postoffice.directory.lookup` for every recipient. Always ours, without asking the DNS:
`localhost`, our host name, the name in /etc/mailname, the configured local domains, address literals of
this machine, the bare name, and the active virtual domains of `<virtual>/domains.cf`. Of every other
name the DNS tells (`postoffice.directory.exchange`). A virtual domain has users of its own, even
where its name is also configured otherwise; the users of all others are the system's.

When things fail: see `postoffice.watched`. While domains.cf never was readable every name
gives `Unreadable`, since it may stand there. RFC 5321 section 4.1.3 for literals.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from attrs import frozen

from postoffice.directory.exchange import Exchange
from postoffice.mail.virtual import VirtualDomain
from postoffice.watched import Mistake, Unreadable, Watch, Watched

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*\Z")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}\Z")


@frozen
class OurDomain:
    """A domain of ours: its name as configured, fit to be a path component, and whether it is virtual."""

    name: str
    virtual: bool


@frozen
class Elsewhere:
    """A domain that is not ours. `backup`: we are one of its exchangers, so that we take mail for it."""

    name: str
    backup: bool = False


class Domains:
    """The domains of this machine.

    `virtual` is the directory of the virtual domains' configuration. `own_addresses` gives the textual
    addresses of the machine's interfaces.
    """

    def __init__(
        self,
        names: LocalNames,
        virtual: str,
        own_addresses: Callable[[], frozenset[str]],
        watch: Watch,
        exchange: Exchange,
    ) -> None:
        self._system = OurDomain(names.hostname, virtual=False)
        self._names = frozenset(map(domain_key, ("localhost", names.hostname, *names.local)))
        self._mailname = Watched(names.mailname, _parse_mailname, "", watch, start="")
        none: dict[str, OurDomain] = {}
        path = f"{virtual}/domains.cf"
        self._virtual = watch.keep(path, lambda: Watched(path, _active_domains, none, watch))
        self._own_addresses = own_addresses
        self._exchange = exchange

    async def find(self, domain: str) -> OurDomain | None:
        """The domain of ours that `domain` names by our own configuration. Errors: `Unreadable`."""
        if not domain:
            return self._system
        key = domain_key(domain)
        if not key:
            return None
        if key.startswith("["):
            return self._system if self._is_own(key) else None
        virtual = (await self._virtual.current()).get(key)
        if virtual is not None:
            return virtual
        return self._system if key in self._names or key == self._mailname.get() else None

    def any_virtual(self) -> bool:
        """Whether there is a virtual domain; also while that is not known."""
        try:
            return bool(self._virtual.get())
        except Unreadable:
            return True

    async def place(self, domain: str) -> OurDomain | Elsewhere:
        """Like `find`, and then by the DNS. Errors: `Unreadable`, `Refusal` with 451 4.4.3."""
        found = await self.find(domain)
        if found is not None:
            return found
        key = domain_key(domain)
        if not key or key.startswith("["):
            return Elsewhere(key)
        match await self._exchange.judge(key):
            case "ours":
                return self._system
            case "better":
                return Elsewhere(key, backup=True)
        return Elsewhere(key)

    def _is_own(self, literal: str) -> bool:
        try:
            address = ipaddress.ip_address(literal[1:-1].removeprefix("ipv6:"))
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        # A connection to the unspecified address ends at this machine, too.
        return address.is_loopback or address.is_unspecified or str(address) in self._own_addresses()


@frozen
class LocalNames:
    """Names whose users are the system's: our host name, `localdomain`, and the path of the mailname file."""

    hostname: str
    local: tuple[str, ...] = ()
    mailname: str = "/etc/mailname"


def domain_key(domain: str) -> str:
    """A domain in the form it is compared in: lower case, without a final dot."""
    return domain.lower().rstrip(".")


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise Mistake(number, "not UTF-8") from None
        if line and not line.startswith("#"):
            yield number, line


def _parse_mailname(data: bytes) -> str:
    for number, line in _lines(data):
        return domain_key(_checked_name(number, line.removesuffix(".")))
    return ""


def parse_domains(data: bytes) -> dict[str, VirtualDomain]:
    """`owner:domain:active:comment` lines; a domain is active unless its number is zero."""
    found: dict[str, VirtualDomain] = {}
    for number, line in _lines(data):
        fields = line.split(":", 3)
        if len(fields) < 3:
            raise Mistake(number, "not of the form owner:domain:active:comment")
        name, active = _checked_name(number, fields[1].strip()), fields[2].strip()
        if not _NUMBER.match(active):
            raise Mistake(number, f"{active[:40]!r} in the place of active is not a number")
        if domain_key(name) in found:
            raise Mistake(number, f"the domain {name} is given twice")
        found[domain_key(name)] = VirtualDomain(name, fields[0].strip(), bool(int(active)))
    return found


def _active_domains(data: bytes) -> dict[str, OurDomain]:
    return {
        key: OurDomain(domain.name, virtual=True)
        for key, domain in parse_domains(data).items()
        if domain.active
    }


def _checked_name(number: int, name: str) -> str:
    if len(name) > 253 or not _NAME.match(name):
        raise Mistake(number, f"{name[:80]!r} is not a domain")
    return name
