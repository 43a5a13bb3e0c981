"""Where a recipient's copy goes. The set is closed; the directory makes these, the queue sorts by them."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen


@frozen
class Mailbox:
    """A mailbox on this machine: an mbox file or a Maildir at `path` (absolute), of `owner`.

    `owner` is the account's name for logs (`alice@example.org` for a virtual user). `home` is that account's
    home, empty for a virtual user, who has none.
    """

    kind: Literal["mbox", "maildir"]
    path: str
    owner: str
    home: str = field(default="", eq=False)


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


def in_folder(destination: Destination, folder: str) -> Destination:
    """Where a copy goes that belongs in a folder, written as in the options `forbidden` and `spam`.

    A word is a mailbox beside the user's, or a folder within his Maildir; `~/name` lies in his home, and is a
    Maildir where it ends in a slash. Who has no home has no folders either.
    """
    if not folder or not isinstance(destination, Mailbox) or not destination.home:
        return destination
    owner, home = destination.owner, destination.home
    if folder.startswith("~/"):
        kind: Literal["mbox", "maildir"] = "maildir" if folder.endswith("/") else "mbox"
        return Mailbox(kind, f"{home}/{folder[2:].rstrip('/')}", owner, home)
    sign = "/." if destination.kind == "maildir" else ":"
    return Mailbox(destination.kind, f"{destination.path}{sign}{folder}", owner, home)
