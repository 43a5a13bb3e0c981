"""What the spool knows of a letter apart from its content.

An `Envelope` is what a client asked for; a `Letter` is one that was durably stored; a `Claim` is a
letter in the hands of one node that delivers some of its recipients. RFC 5321 section 2.3.1; what a client
asked for in reports on the delivery RFC 3461, `SMTPUTF8` RFC 6531.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from attrs import frozen

from postoffice.mail.address import Address
from postoffice.mail.destination import Copy, Fixed
from postoffice.mail.outcome import Outcome

Body = Literal["7BIT", "8BITMIME"]
Ret = Literal["", "FULL", "HDRS"]


@frozen
class ReportRequest:
    """What was asked for about reports on one recipient (RFC 3461 sections 4.1 and 4.2).

    `notify` is `NEVER`, some of `SUCCESS,FAILURE,DELAY` in this order, or empty where nothing was said;
    `orcpt` is the original recipient as it came (`rfc822;bob+40example.org`), else empty.
    """

    notify: str = ""
    orcpt: str = ""


NO_REQUESTS: Mapping[Address, ReportRequest] = MappingProxyType({})


@frozen
class Envelope:
    """Sender (`None` is the null sender), recipients in the order given, and the declared body type.

    `smtputf8` says that addresses or header may hold characters beyond ASCII; `ret` is how much of the letter
    a report is to return and `envid` the sender's name for it as it came, both empty where nothing was
    said; `requests` are by recipient, for those that have any. Local copies go to `folder` where it is not
    empty (as in the option `forbidden`).
    """

    sender: Address | None
    recipients: tuple[Address, ...]
    body: Body = "7BIT"
    smtputf8: bool = False
    ret: Ret = ""
    envid: str = ""
    folder: str = ""
    requests: Mapping[Address, ReportRequest] = NO_REQUESTS


@frozen
class Letter:
    """A stored letter. `id` is its queue id, `size` counts octets, `received` is in epoch seconds.

    `client` says where it came from, in the form logs show; the rest is as in `Envelope`.
    """

    id: str
    sender: Address | None
    body: Body
    size: int
    received: float
    client: str
    smtputf8: bool = False
    ret: Ret = ""
    envid: str = ""
    folder: str = ""


@frozen
class Recipient:
    """One recipient of a stored letter. `key` names it in the spool; `attempts` counts those that ended.

    `due` is when it is to be tried next (epoch seconds); `last` is the reply of its last attempt; `notify`
    and `orcpt` are as in `ReportRequest`. A recipient that another one was expanded to has the addresses
    it was found by in `path`, that of the envelope first, and what is known of where it goes in `fixed`.
    """

    key: int
    address: Address
    due: float
    attempts: int = 0
    last: str = ""
    notify: str = ""
    orcpt: str = ""
    fixed: Fixed | None = None
    path: tuple[Address, ...] = ()


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
class Replacement:
    """What a recipient, named by its key in the spool, stands for: copies with the time each is due."""

    key: int
    copies: tuple[tuple[Copy, float], ...]


@frozen
class Entry:
    """A letter as queue listings show it: `busy` while a live claim covers any of its recipients.

    `held_for` is why it was `held`; operators need not say.
    """

    letter: Letter
    recipients: tuple[Recipient, ...]
    held: bool
    busy: bool
    held_for: str = ""
