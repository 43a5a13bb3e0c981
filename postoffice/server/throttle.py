"""How often a password may be guessed: failures are counted by account and by network.

Asked by `postoffice.server.portal` before a password is looked at and told how the attempt ended. Behind a
number of free failures every further one doubles the time in which attempts are refused unseen, so that a
right password is answered like a wrong one and nothing is learned meanwhile. An account's failures do not
count against networks it was logged in from before, which have a count of their own: nobody can lock
others out of their accounts where they usually are. A success clears no count, or whoever has one account
could guess at the others for ever.

All is in memory, of bounded size, and begins anew with the service. What is attempted at the same time
counts as failed until it ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from postoffice.mail.client import Client, network_of

FREE = 20
"""Failures without consequences."""

FIRST_WAIT = 30.0
"""Seconds after the next one; each further failure doubles them."""

NETWORK_WAIT = 3600.0
ACCOUNT_WAIT = 300.0
"""The longest waits, in seconds: short for accounts, since who waits may be their owner."""

FORGOTTEN = 7200.0
"""Seconds without a failure after which all earlier ones are forgotten."""

MOST = 20_000
"""Records of each kind; those used least recently go first."""


class Throttled(Exception):
    """No attempt now; the message says why."""


class _Record:
    """The failures of one account, network, or account in a network."""

    __slots__ = ("failures", "last", "under_way", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.under_way = 0
        self.last = 0.0
        self.until = 0.0


class _Count:
    """Records by key."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def admit(self, key: Hashable, now: float) -> _Record:
        """The record of a key, if an attempt may be made. Errors: `Throttled`."""
        record = self._records.pop(key, None) or _Record()
        self._records[key] = record
        if len(self._records) > MOST:
            self._records.popitem(last=False)
        if record.failures and now - record.last > FORGOTTEN:
            record.failures, record.until = 0, 0.0
        if now < record.until:
            raise Throttled(f"{record.failures} failed log-ins of {key}, wait {record.until - now:.0f} s")
        if record.under_way >= max(1, FREE - record.failures):
            raise Throttled(f"{record.under_way} log-ins of {key} at the same time")
        return record

    def failed(self, record: _Record, now: float) -> None:
        record.failures += 1
        record.last = now
        over = record.failures - FREE
        if over >= 0:
            record.until = now + min(FIRST_WAIT * 2 ** min(over, 20), self._longest)


class Attempt:
    """One attempt to log in: `failed` or `succeeded` or neither, then `end`."""

    def __init__(self, throttle: Throttle, records: list[tuple[_Count, _Record]], pair: Hashable) -> None:
        self._throttle = throttle
        self._records = records
        self._pair = pair

    def failed(self) -> None:
        """The password was wrong."""
        now = self._throttle.seconds()
        for count, record in self._records:
            count.failed(record, now)

    def succeeded(self) -> None:
        """The password was right."""
        self._throttle.remember(self._pair)

    def end(self) -> None:
        """The attempt is over."""
        for _, record in self._records:
            record.under_way -= 1


class Throttle:
    """Every count there is. `seconds` is a clock."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self._networks = _Count(NETWORK_WAIT)
        self._accounts = _Count(ACCOUNT_WAIT)
        self._pairs = _Count(ACCOUNT_WAIT)
        self._known: OrderedDict[Hashable, None] = OrderedDict()

    def begin(self, account: str, client: Client) -> Attempt:
        """An attempt to log in begins. `account` has one spelling only. Errors: `Throttled`."""
        now = self.seconds()
        network = network_of(client.ip)
        pair = (account, network)
        if pair in self._known:
            keys: list[tuple[_Count, Hashable]] = [(self._pairs, pair)]
        elif client.may_relay:
            # Everybody who uses the web mail of this machine comes from its address.
            keys = [(self._accounts, account)]
        else:
            keys = [(self._networks, network), (self._accounts, account)]
        records = [(count, count.admit(key, now)) for count, key in keys]
        for _, record in records:
            record.under_way += 1
        return Attempt(self, records, pair)

    def remember(self, pair: Hashable) -> None:
        """An account was logged in to from a network."""
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
