"""Who a client is: its name, whether it may relay, and whether we talk to it at all.

Asked by `postoffice.policy.policy` when a client connects. Whose word is trusted for relaying is decided
here: this machine's own addresses, `trusted` hosts and, with `localmx`, hosts whose mail comes here. The
access files and `paranoid` turn clients away, or mark them where `forbidden` says so. A client on this
machine is never looked up. One that a proxy announces is judged as what it is announced to be, but for an
address of this machine or none at all, which are worth nothing then; the name and the log-in that a proxy
gives are believed.

When things fail: a look-up that failed says nothing about a client. It is answered with 451 where the answer
depends on it, as access files are that cannot be read, and leaves the client without a name else.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, field, frozen

from postoffice.config.values import Disposition
from postoffice.interfaces import IResolver, MailExchanger, NoSuchDomain, ResolverFailure, Turned
from postoffice.mail.client import Client, is_loopback
from postoffice.mail.reply import Reply, printable
from postoffice.policy.access import AccessFiles
from postoffice.policy.hosts import Subject
from postoffice.watched import Unreadable

# Of the hosts that take a client's mail, as many are looked up to see whether we are among them.
MOST_EXCHANGERS = 10

LOOK_UP_FAILED = Reply(451, (4, 3), "Your host name cannot be looked up now, try again later")
ACCESS_UNKNOWN = Reply(451, (3, 0), "We cannot tell now whether you may connect, try again later")


@frozen
class ClientSettings:
    """`host` is our name; `trusted` hosts, names and addresses, are treated like this machine.

    The others are options by their names.
    """

    host: str
    trusted: frozenset[str] = frozenset()
    paranoid: bool = False
    dnscheck: bool = False
    localmx: bool = False
    forbidden: Disposition = field(factory=lambda: Disposition("bounce"))


class Clients:
    """`own_addresses` are this machine's; so is every address of the loopback network."""

    def __init__(
        self,
        settings: ClientSettings,
        own_addresses: Callable[[], frozenset[str]],
        resolver: IResolver,
        access: AccessFiles,
    ) -> None:
        self.settings = settings
        self._own_addresses = own_addresses
        self._resolver = resolver
        self._access = access

    async def introduce(self, client: Client) -> Client:
        """The client with what is known of it. Errors: `Turned`."""
        ip, settings = client.ip, self.settings
        loopback = is_loopback(ip)
        home = loopback or ip in self._own_addresses()
        if client.announced and (home or client.anonymous):
            # A proxy's word makes nobody one of us, and its own address says nothing of its clients.
            stranger = evolve(client, name=None, nameless=True, may_relay=client.login is not None)
            stranger = self._admitted(stranger, Subject(ip, None), certain=True)
            return self._named(stranger, certain=True) if settings.paranoid else stranger
        if home:
            name = "localhost" if loopback else None
            client = evolve(client, name=name, here=True, may_relay=True)
            return self._admitted(client, Subject(ip, name or settings.host), certain=True)
        if client.announced and client.name is not None:
            name, claimed, certain = client.name, None, True
        else:
            name, claimed, certain = await self._names(ip)
        trusted = ip in settings.trusted or (name or "").lower() in settings.trusted
        nameless = name is None and certain and (settings.dnscheck or claimed is None)
        may_relay = trusted or client.login is not None
        client = evolve(client, name=name, claimed=claimed, may_relay=may_relay, nameless=nameless)
        client = self._admitted(client, Subject(ip, name, claimed), certain)
        if settings.paranoid and not trusted:
            client = self._named(client, certain)
        if settings.localmx and name is not None and not may_relay:
            client = evolve(client, may_relay=await self._gets_its_mail_here(name))
        return client

    async def _names(self, ip: str) -> tuple[str | None, str | None, bool]:
        """The confirmed name, else the one it claims, and whether the answers are certain."""
        try:
            name = await self._resolver.reverse(ip)
            return name, None if name else await self._resolver.pointer(ip), True
        except (NoSuchDomain, ResolverFailure):
            return None, None, False

    def _admitted(self, client: Client, subject: Subject, certain: bool) -> Client:
        """What the access files say."""
        try:
            denied = self._access.decide(subject)
            if denied is None:
                return client
            if not certain and self._access.by_name():
                raise Turned(LOOK_UP_FAILED, "the access files deny it, but not under every name")
        except Unreadable as error:
            raise Turned(ACCESS_UNKNOWN, f"{error} was never readable") from None
        host = self.settings.host
        asked = f"ask postmaster@{host} if you think that is wrong"
        reason = denied.reason or self.settings.forbidden.text or f"your host is not welcome here; {asked}"
        if denied.final:
            raise Turned(Reply(521, (7, 1), self._text(client, reason)), "denied by the access files")
        return self._forbidden(client, reason, Reply(421, (7, 1), self._text(client, reason)), stay=True)

    def _named(self, client: Client, certain: bool) -> Client:
        """What `paranoid` says."""
        if client.name is None and not certain:
            raise Turned(LOOK_UP_FAILED, "its name cannot be looked up, and paranoid asks for one")
        if not client.nameless:
            return client
        reason = f"no host name belongs to the address {client.ip}; give it a PTR record that resolves back"
        return self._forbidden(client, reason, Reply(421, (7, 25), self._text(client, reason)), stay=False)

    def _forbidden(self, client: Client, reason: str, reply: Reply, stay: bool) -> Client:
        """What becomes of a client that `forbidden` is about."""
        if self.settings.forbidden.mode == "bounce":
            raise Turned(reply, stay=stay)
        return evolve(client, marked=client.marked or printable(reason, 200))

    def _text(self, client: Client, reason: str) -> str:
        who = client.name or f"[{client.ip}]"
        return printable(f"{self.settings.host} does not accept mail from {who}: {reason}")

    async def _gets_its_mail_here(self, name: str) -> bool:
        """Whether an MX of the host, an explicit one, is an address of ours."""
        try:
            exchangers = await self._resolver.exchangers(name)
        except (NoSuchDomain, ResolverFailure):
            return False
        for exchanger in exchangers[:MOST_EXCHANGERS]:
            if exchanger.host and await self._is_ours(exchanger):
                return True
        return False

    async def _is_ours(self, exchanger: MailExchanger) -> bool:
        try:
            addresses = await self._resolver.addresses(exchanger.host)
        except (NoSuchDomain, ResolverFailure):
            return False
        # Anybody's zone may say that his mail goes to the loopback network.
        own = self._own_addresses()
        return any(each in own and not is_loopback(each) for each in addresses)
