"""How many letters one network or account may send in a time.

Asked by `postoffice.policy.policy` when a letter is about to come in, so that a letter that was put off costs
nothing. Each limit is a bucket for each network (a /32, a /64 in IPv6) or account: it holds `count` letters
and fills up within `period`. Clients on this machine are no network.

Memory is bounded: buckets that are full are forgotten, and where there are too many the one that was not used
for longest. Nothing here fails.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil

from postoffice.config.values import Rate
from postoffice.mail.client import Client, network_of
from postoffice.mail.reply import Refusal, Reply

MOST_BUCKETS = 100_000


class Rates:
    """The limits of the option `rate`; `seconds` is a clock."""

    def __init__(self, rates: Sequence[Rate], seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._limits: dict[Rate, Buckets] = {}
        self.adapt(rates)

    def adapt(self, rates: Sequence[Rate]) -> None:
        """Take over other limits; what was sent counts on for those that stay."""
        known, seconds = self._limits, self._seconds
        self._limits = {rate: known.get(rate, Buckets(rate, seconds)) for rate in rates}

    def debit(self, client: Client) -> None:
        """Count a letter of this client. Errors: `Refusal`; none of its limits is debited then."""
        if not self._limits:
            return
        debits: list[tuple[Buckets, str]] = []
        for rate, buckets in self._limits.items():
            subject = _subject(rate.scope, client)
            if subject is None:
                continue
            wait = buckets.wait(subject)
            if wait > 0:
                text = f"{subject} may send {rate.count} letters in {rate.period} seconds, and did"
                raise Refusal(Reply(450, (7, 1), f"{text}; try again in {ceil(wait)} seconds"))
            debits.append((buckets, subject))
        for buckets, subject in debits:
            buckets.take(subject)


class Buckets:
    """One limit: when each subject's bucket will be full again, those used last at the end."""

    def __init__(self, rate: Rate, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._letter = rate.period / rate.count
        self._period = float(rate.period)
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, subject: str) -> float:
        """Seconds until there is room for one more letter; none or less when there is."""
        return self._full_at.get(subject, 0.0) + self._letter - self._seconds() - self._period

    def take(self, subject: str) -> None:
        """A letter was sent."""
        now = self._seconds()
        self._full_at[subject] = max(self._full_at.get(subject, 0.0), now) + self._letter
        self._full_at.move_to_end(subject)
        # Two at a time, so that full ones do not pile up.
        for _ in range(2):
            first, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= MOST_BUCKETS:
                break
            del self._full_at[first]


def _subject(scope: str, client: Client) -> str | None:
    """Whose bucket counts, None when the limit is not about this client."""
    if scope != "net" and client.login is not None:
        return client.login
    if scope == "user" or client.here:
        return None
    return f"[{network_of(client.ip)}]"
