"""What the spool knows of a letter apart from its content.

An `Envelope` is what a client asked for; a `Letter` is one that was durably stored; a `Claim` is a
letter in the hands of one node that delivers some of its recipients. RFC 5321 section 2.3.1.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from postoffice.mail.address import Address
from postoffice.mail.outcome import Outcome

Body = Literal["7BIT", "8BITMIME"]


@frozen
class Envelope:
    """Sender (`None` is the null sender), recipients in the order given, and the declared body type."""

    sender: Address | None
    recipients: tuple[Address, ...]
    body: Body = "7BIT"


@frozen
class Letter:
    """A stored letter. `id` is its queue id, `size` counts octets, `received` is in epoch seconds.

    `client` says where it came from, in the form logs show.
    """

    id: str
    sender: Address | None
    body: Body
    size: int
    received: float
    client: str


@frozen
class Recipient:
    """One recipient of a stored letter. `key` names it in the spool; `attempts` counts those that ended.

    `due` is when it is to be tried next (epoch seconds); `last` is the reply of its last attempt.
    """

    key: int
    address: Address
    due: float
    attempts: int = 0
    last: str = ""


@frozen
class Claim:
    """Recipients of one letter that this node delivers, until it settles them or the lease lapses.

    `token` tells this claim from any other of the same recipients: settling with a token that is
    no longer current is refused.
    """

    letter: Letter
    recipients: tuple[Recipient, ...]
    token: int


@frozen
class Settlement:
    """How an attempt ended for one recipient; `due` is when to try a postponed one again.

    `attempted` is false when no attempt was made (no room, shutdown), so that it does not count.
    """

    key: int
    outcome: Outcome
    due: float = 0.0
    attempted: bool = True


@frozen
class Entry:
    """A letter as queue listings show it: `busy` while a live claim covers any of its recipients."""

    letter: Letter
    recipients: tuple[Recipient, ...]
    held: bool
    busy: bool
