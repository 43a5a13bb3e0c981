"""Which recipients take the place of those that were expanded, within one transaction.

`Copies` decides, for the spool in memory too: a copy that is known already is left out, whether it is that
of somebody else or was delivered before. `expand` is called by the writer thread only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from postoffice.interfaces import SpoolFailed, StaleClaim
from postoffice.mail.address import Address
from postoffice.mail.destination import Copy, fixed_text
from postoffice.mail.envelope import Claim, Recipient, Replacement
from postoffice.spool import statements as sql
from postoffice.spool.schema import PLACES, span
from postoffice.spool.store import Store


class Copies:
    """Collects in `fresh` the recipients that come into the letter of a claim.

    `keys` gives a key for each; `known` are the copies the letter has, to which new ones are added.
    """

    def __init__(self, claim: Claim, keys: Iterator[int], known: set[str]) -> None:
        self._claim = claim
        self._left = {recipient.key: recipient for recipient in claim.recipients}
        self._keys = keys
        self.known = known
        self.fresh: list[Recipient] = []

    def add(self, replacement: Replacement) -> None:
        """Take the copies of one recipient in its place."""
        origin = self._left.pop(replacement.key)
        for copy, due in replacement.copies:
            if copy.key in self.known:
                continue
            self.known.add(copy.key)
            self.fresh.append(
                Recipient(
                    next(self._keys),
                    copy.address,
                    due,
                    notify=origin.notify,
                    orcpt=origin.orcpt,
                    fixed=copy.fixed,
                    path=copy.path,
                )
            )

    def claim(self, now: float) -> Claim:
        """The claim with those that are due."""
        due = [recipient for recipient in self.fresh if recipient.due <= now]
        return evolve(self._claim, recipients=(*self._left.values(), *due))


def expand(store: Store, claim: Claim, replacements: Sequence[Replacement], standing: Sequence[str]) -> Claim:
    """What `ISpool.expand` promises. Errors: `StaleClaim`, `SpoolFailed`."""
    letter = claim.recipients[0].key >> PLACES
    for replacement in replacements:
        store.execute(sql.SETTLED, (replacement.key, claim.token))
        if store.changes() != 1:
            raise StaleClaim(f"{claim.letter.id}: the claim is not current any more")
    for (held,) in store.execute("SELECT held FROM letter WHERE key = ?", (letter,)):
        copies = Copies(claim, _keys(store, claim, letter), {*_known(store, letter), *standing})
        for replacement in replacements:
            copies.add(replacement)
        now = store.seconds()
        taken = (now + store.lease, store.node, claim.token)
        rows = [
            (
                *(one.key, one.address.local, one.address.domain, one.due, held),
                *(taken if one.due <= now else (one.due, None, None)),
                *(one.notify, one.orcpt, fixed_text(one.fixed), sql.way_text(one.path)),
            )
            for one in copies.fresh
        ]
        store.rows(sql.EXPANDED, rows)
        store.rows(sql.COPY, [(letter, name) for name in copies.known])
        store.drop_empty(letter)
        return copies.claim(now)
    raise StaleClaim(f"{claim.letter.id}: the letter is gone")


def _known(store: Store, letter: int) -> Iterator[str]:
    """What was remembered, and who waits for a queue run and so is in no claim."""
    for (name,) in store.execute("SELECT name FROM copy WHERE letter = ?", (letter,)):
        yield name
    waiting = "SELECT local, domain FROM recipient WHERE key BETWEEN ? AND ? AND token IS NULL AND fixed = ''"
    for local, domain in store.execute(waiting, span(letter)):
        yield Copy(Address(local, domain), ()).key


def _keys(store: Store, claim: Claim, letter: int) -> Iterator[int]:
    """Keys for further recipients of a letter: behind all there are, then in the gaps."""
    first, last = span(letter)
    used = {recipient.key for recipient in claim.recipients}
    for (key,) in store.execute("SELECT key FROM recipient WHERE key BETWEEN ? AND ?", (first, last)):
        used.add(key)
    highest = max(used)
    yield from range(highest + 1, last + 1)
    yield from (key for key in range(first, highest) if key not in used)
    raise SpoolFailed(f"{claim.letter.id}: a letter cannot have more recipients")
