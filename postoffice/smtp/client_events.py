"""What happened in a session with another host, as the client engine tells it. The set is closed.

Made by `postoffice.smtp.client.ClientEngine`, matched by the link of remote delivery. Text of the host in it
is printable ASCII.
"""

from __future__ import annotations

from attrs import frozen

from postoffice.mail.outcome import Outcome
from postoffice.mail.reply import Reply


@frozen
class Ready:
    """The host has greeted us; its extensions are known."""


@frozen
class Proceed:
    """The host waits for the content of the letter."""


@frozen
class Finished:
    """A transaction ended: `outcomes` in the order of the envelope's recipients.

    `untouched` says that the host was not heard to take the transaction up at all (no answer to MAIL but
    perhaps a 421): it may be tried again elsewhere at once, without a risk of duplicates.
    """

    outcomes: tuple[Outcome, ...]
    untouched: bool = False


@frozen
class Broken:
    """The session cannot be used any more; `reply` says why: the host's own, or one of ours for it."""

    reply: Reply


Event = Ready | Proceed | Finished | Broken
