"""Where a recipient's copy goes. The set is closed; the directory makes these, the queue sorts by them."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen
class Mailbox:
    """A mailbox on this machine: an mbox file or a Maildir at `path` (absolute), of `owner`.

    `owner` is the account's name for logs (`alice@example.org` for a virtual user).
    """

    kind: Literal["mbox", "maildir"]
    path: str
    owner: str


@frozen
class Remote:
    """Another host: `domain` is looked up by MX, then address, unless `direct`.

    `direct` means `domain` is a host name or an address literal in brackets that is connected to
    as it is, without MX. `port` 0 stands for the configured port.
    """

    domain: str
    port: int = 0
    direct: bool = False


Destination = Mailbox | Remote
