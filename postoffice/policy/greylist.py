"""The greylist: strangers come back later, or they do not, and then it was no mail server.

Asked by the policy for clients that may not relay. A pair of sender and client is let in once its embargo
ended; a pair that passed stays passed while it is used. Addresses our own users have written to pass at
once. What the records are, `postoffice.mail.greylist` says; where they are, `IGreylistStore`.

Nothing here waits. When the store fails, mail is let through, and an error is logged once a minute.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_network

from attrs import evolve, frozen
from zope.interface import implementer

from postoffice.interfaces import IGreylist, IGreylistStore, IJournal, StoreFailed
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.greylist import NULL, Expiry, Record
from postoffice.mail.reply import Refusal
from postoffice.smtp.grammar import parse_address

WINDOW = 600
"""Seconds after its embargo in which the null sender passes once: the next report waits again."""

SHARES = (24, 48)
"""Prefix lengths (IPv4, IPv6) of the networks that have a share of the records each; see `share_of`."""

_DAY = 86400
_COMPLAINTS = 60
# For how many seconds, and of how many addresses, we know that a user of ours just wrote to them.
_NOTED = 3600
_MOST_NOTED = 10_000
_PAIR = re.compile(r"(?P<local>.+)@\[(?:ipv6:)?(?P<ip>[0-9a-f.:]+)(?:/[0-9]+)?\]")


@frozen
class Pass:
    """The mail may come."""


@frozen
class Wait:
    """Not for so many seconds."""

    seconds: int


@frozen
class Never:
    """An operator forbade it; nobody is told."""


Verdict = Pass | Wait | Never

_PASS = Pass()
_NEVER = Never()


@frozen
class GreylistSettings:
    """`delay` and `keep` in seconds (0: for ever); `null` is the multiplier of the null sender.

    With `full` the key is the sender's whole address. `prefixes` (IPv4, IPv6) say what counts as one client.
    """

    delay: int
    keep: int = 35 * _DAY
    null: int = 5
    full: bool = False
    prefixes: tuple[int, int] = (32, 128)


@implementer(IGreylist)
class Greylist:
    """Judges senders, and keeps the records. `seconds` gives the time in epoch seconds."""

    def __init__(
        self,
        store: IGreylistStore,
        settings: GreylistSettings,
        journal: IJournal,
        seconds: Callable[[], float],
    ) -> None:
        self.settings = settings
        self._store = store
        self._journal = journal
        self._seconds = seconds
        self._complained = float("-inf")
        self._noted: dict[Address, float] = {}

    # What the policy asks.

    def consult(self, client: Client, sender: Address | None) -> Verdict:
        """Whether mail of this sender may come from this client now. It counts as a contact."""
        try:
            return self._judge(client, sender, int(self._seconds()))
        except StoreFailed as error:
            self._complain(error)
            return _PASS

    def forget(self, client: Client, sender: Address | None) -> None:
        """The client begins anew with this sender: it had a wrong number, or its mail was rejected."""
        key = self._key(client, sender)
        try:
            record = self._store.get(key)
            if record is not None and not record.kept:
                self._store.remove(key)
        except StoreFailed as error:
            self._complain(error)

    def wrote_to(self, address: Address) -> None:
        """One of our users wrote to this address: its answer need not wait."""
        now, noted = int(self._seconds()), self._noted
        if now - noted.get(address, 0) < _NOTED:
            return
        if len(noted) >= _MOST_NOTED:
            noted.clear()
        noted[address] = now
        key = _plain(address)
        if key is None:
            return
        try:
            record = self._store.get(key)
            # What an operator said stands.
            if record is None or not record.kept:
                self._store.put(key, Record(now, now), "")
        except StoreFailed as error:
            self._complain(error)

    def _judge(self, client: Client, sender: Address | None, now: int) -> Verdict:
        key = self._key(client, sender)
        record = found = self._live(key, now)
        plain = None if sender is None else _plain(sender)
        if plain not in (None, key) and (found is None or _waits(found, now)):
            other = self._live(plain, now)
            if other is not None and (found is None or not _waits(other, now)):
                key, record = plain, other
        if record is None:
            record = Record(now + self._multiplier(client, sender) * self.settings.delay, now)
        elif sender is None and _just_let_in(record, now):
            self._store.remove(key)
            return _PASS
        else:
            record = evolve(record, seen=now)
        self._store.put(key, record, share_of(client.ip))
        if record.accepted is None:
            return _NEVER
        return Wait(record.accepted - now) if record.accepted > now else _PASS

    def _live(self, key: str, now: int) -> Record | None:
        """The record, unless it was not seen for too long."""
        record = self._store.get(key)
        keep = self.settings.keep
        if record is None or (keep and not record.kept and record.seen < now - keep):
            return None
        return record

    def _multiplier(self, client: Client, sender: Address | None) -> int:
        multiplier = 2 if client.nameless else 1
        if sender is None:
            return multiplier + self.settings.null - 1
        if sender.local.isascii() and sender.local.isprintable() and " " not in sender.local:
            return multiplier
        return multiplier + sum(1 for sign in sender.local if sign.isspace() or not sign.isprintable())

    def _key(self, client: Client, sender: Address | None) -> str:
        if sender is not None and self.settings.full:
            return _text(sender.local, sender.domain_key)
        place = f"[{_network(client.ip, self.settings.prefixes)}]"
        return NULL + place if sender is None else _text(sender.local, place)

    def _complain(self, error: StoreFailed) -> None:
        now = self._seconds()
        if now - self._complained >= _COMPLAINTS:
            self._complained = now
            self._journal.error(f"the greylist lets everybody through: {error}")

    # What operators ask. Errors: `StoreFailed`.

    def records(self) -> AsyncIterator[list[tuple[str, Record]]]:
        """All records, in portions."""
        return self._store.records()

    def approve(self, name: str) -> None:
        """Let a record's mail in, now and until it expires. Errors: `ValueError` for what names none."""
        now = int(self._seconds())
        self._store.put(self.key_of(name), Record(now - 1, now, kept=True), "")

    def forbid(self, name: str) -> None:
        """Never let a record's mail in. Errors: `ValueError` for what names none."""
        self._store.put(self.key_of(name), Record(None, int(self._seconds()), kept=True), "")

    async def expire(self, which: Expiry, dry: bool = False) -> AsyncIterator[tuple[int, list[str]]]:
        """Remove records; for each portion how many were looked at, and the keys of those that went.

        With `dry` they stay.
        """
        now = self._seconds()
        async for portion in self._store.records():
            gone = [(key, record) for key, record in portion if which.concerns(key, record, now)]
            if not dry:
                # What was used since it was read stays.
                gone = [(key, record) for key, record in gone if self._store.get(key) == record]
                for key, _ in gone:
                    self._store.remove(key)
                await self._store.flush()
            yield len(portion), [key for key, _ in gone]

    def key_of(self, name: str) -> str:
        """The key of what an operator calls a record: `local@[ip]`, `<>@[ip]`, or an address."""
        pair = _PAIR.fullmatch(name.lower())
        try:
            if pair is None:
                address = parse_address(name)
                return _text(address.local, address.domain_key)
            place = f"[{_network(str(ip_address(pair['ip'])), self.settings.prefixes)}]"
            if pair["local"] == "<>":
                return NULL + place
            return _text(parse_address(f"{pair['local']}@example.org").local, place)
        except (ValueError, Refusal):
            raise ValueError(
                f"{name!r} names no record; these are local@[ip], <>@[ip] and addresses"
            ) from None


def share_of(ip: str) -> str:
    """The network whose share of the records a client's address counts to (`192.0.2`, `2001:db8::/48`)."""
    return _network(ip, SHARES) if ":" in ip else ip.rpartition(".")[0]


def _network(ip: str, prefixes: tuple[int, int]) -> str:
    """What counts as one client: an address, or a network that is larger than one."""
    # A proxy may have announced a client without an address.
    if not ip or prefixes[":" in ip] == (32, 128)[":" in ip]:
        return ip
    return str(ip_network((ip, prefixes[":" in ip]), strict=False))


def _text(local: str, place: str) -> str:
    """A key. Quoting keeps a local part from looking like another key."""
    return str(Address(local.lower(), place))


def _plain(sender: Address) -> str | None:
    """The key of an address whatever the client; an address literal would look like a client, so has none."""
    domain = sender.domain_key
    return None if not domain or domain[0] == "[" else _text(sender.local, domain)


def _waits(record: Record, now: int) -> bool:
    return record.accepted is not None and record.accepted > now


def _just_let_in(record: Record, now: int) -> bool:
    return record.accepted is not None and not record.kept and 0 <= now - record.accepted < WINDOW
