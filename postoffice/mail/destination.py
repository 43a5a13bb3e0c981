"""Where a recipient's copy goes. The set is closed; the directory makes these, the queue sorts by them."""

from __future__ import annotations

import json
from typing import Literal

from attrs import field, frozen

from postoffice.mail.address import Address
from postoffice.mail.reply import Reply, printable


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
class Lmtp:
    """The mailbox of `owner` in another program, which takes letters by LMTP at `place`.

    That is the path of a socket or `host:port`; letters for several owners go there together.
    """

    place: str
    owner: str = field(eq=False)


@frozen
class Remote:
    """Another host: `domain` is looked up by MX, then address, unless `direct`.

    `direct` means `domain` is a host name or an address literal in brackets that is connected to
    as it is, without MX. `port` 0 stands for the configured port.
    """

    domain: str
    port: int = 0
    direct: bool = False


@frozen
class File:
    """Append to the file at `path`, as `account`."""

    path: str
    account: str


@frozen
class Command:
    """Run `text` with the shell, as `account`; `extension` is the detail of the address it was found by."""

    text: str
    account: str
    extension: str = ""


Destination = Mailbox | Lmtp | Remote | File | Command


def where_to(destination: Destination | None) -> str:
    """How logs and people are told of a destination, on one line of printable ASCII."""
    match destination:
        case Mailbox(kind=kind, path=where):
            return printable(f"{kind} {where}")
        case Lmtp(place=place):
            return printable(f"lmtp {place}")
        case Remote(domain=domain, port=port):
            return printable(f"smtp {domain}:{port}" if port else f"smtp {domain}")
        case File(path=where):
            return printable(f"file {where}")
        case Command(text=text):
            return printable(f"|{text}")
        case None:
            return "nowhere"


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


@frozen
class OwnMailbox:
    """Whoever the address names: the copy goes to that user's own mailbox, whatever else it stands for."""


Fixed = OwnMailbox | File | Command
"""What is already known of where a copy goes, so that its address is not expanded again."""


def fixed_text(fixed: Fixed | None) -> str:
    """The form in which the spool keeps it; empty for None."""
    match fixed:
        case None:
            return ""
        case OwnMailbox():
            return "mailbox"
        case File(path=path, account=account):
            return json.dumps(["file", path, account])
        case Command(text=text, account=account, extension=extension):
            return json.dumps(["command", text, account, extension])


def read_fixed(text: str) -> Fixed | None:
    """What `fixed_text` wrote. Errors: `ValueError`."""
    if not text:
        return None
    if text == "mailbox":
        return OwnMailbox()
    match json.loads(text):
        case ["file", str(path), str(account)]:
            return File(path, account)
        case ["command", str(command), str(account), str(extension)]:
            return Command(command, account, extension)
    raise ValueError(f"not a destination: {text[:80]!r}")


@frozen
class Copy:
    """One copy of a letter that an address stands for.

    `address` is whose copy it is, `path` the addresses it was found by, the first one foremost.
    `destination` is None where the address is yet to be looked up, else what `fixed` leads to now.
    """

    address: Address
    path: tuple[Address, ...]
    fixed: Fixed | None = None
    destination: Destination | None = None

    @property
    def key(self) -> str:
        """Equal for two copies that would end in the same place."""
        match self.destination:
            case None | Remote():
                return f"{self.address.local}@{self.address.domain_key}"
            case Mailbox(path=place):
                return place
            case other:
                return str(other)


@frozen
class Step:
    """One step of an explanation: an address, how far from the first, and what says what it stands for."""

    depth: int
    address: Address
    what: str


@frozen
class Explanation:
    """How an address comes to the copies it stands for, each with the reason where it cannot be made.

    `refusal` is how the address itself is refused, if it is; there are no copies then.
    """

    steps: tuple[Step, ...]
    copies: tuple[tuple[Copy, Reply | None], ...]
    refusal: Reply | None = None
