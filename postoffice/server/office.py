"""What the local door knows of its callers, and what it asks of the rest of the service.

The assembly provides `IOffice`; `postoffice.server.local` speaks with the commands and uses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, Protocol

from attrs import frozen
from zope.interface import Attribute, Interface

from postoffice.interfaces import IContent, IGreylist, IVirtualFiles
from postoffice.mail.address import Address, path
from postoffice.mail.client import Client
from postoffice.mail.destination import Explanation
from postoffice.mail.envelope import Entry
from postoffice.mail.reply import Reply


@frozen
class Caller:
    """Who is at the other end, by the kernel: ids of the process that connected, and all its groups."""

    uid: int
    pid: int
    groups: frozenset[int]


class NotDone(Exception):
    """The request is refused: text and exit code for the command."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Talk(Protocol):
    """What answering needs of the conversation."""

    def next(self) -> Awaitable[Any]:
        """The next frame; an error ends the request."""

    def write(self, frames: Iterator[bytes]) -> Awaitable[None]:
        """Send frames as fast as they are read at the other end."""


@frozen
class Pattern:
    """Which letters are meant: those with `text`, in lower case, in the field named."""

    field: str
    text: str

    def matches(self, entry: Entry) -> bool:
        """Whether the text is in that field of the letter, without regard to case."""
        fields: list[str] = []
        if self.field in ("id", "any"):
            fields.append(entry.letter.id)
        if self.field in ("sender", "any"):
            fields.append(path(entry.letter.sender))
        if self.field in ("recipient", "any"):
            fields.extend(str(recipient.address) for recipient in entry.recipients)
        return any(self.text in field.lower() for field in fields)


class ISubmission(Interface):
    """A letter that is being handed in."""

    def write(data: bytes) -> Awaitable[None] | None:
        """Take a piece of content with CRLF line ends; an awaitable means: wait before the next."""

    def finish() -> Awaitable[str]:
        """Store it durably; the queue id. Errors: `Refusal`: nothing was kept."""

    def abort() -> None:
        """Forget it. Harmless after `finish`."""


class ILetters(Interface):
    """The letters of the queue, as those who look after it see them."""

    def entries() -> Awaitable[list[Entry]]:
        """Every letter, oldest first."""

    def run(pattern: Pattern | None) -> Awaitable[int]:
        """Make the letters that match (None: all) due now; how many there were."""

    def set_held(letter_id: str, held: bool) -> Awaitable[bool]:
        """Set a letter aside, or let it go on at once; false if there is no such letter."""

    def delete(letter_id: str) -> Awaitable[bool]:
        """Remove a letter; false if there is no such letter."""

    def content(letter_id: str) -> Awaitable[IContent | None]:
        """What a letter says, None if there is no such letter."""


class IOffice(Interface):
    """What the local door asks of the rest of the service."""

    letters: ILetters = Attribute("the letters of the queue")
    greylist: IGreylist = Attribute("the greylist's records")
    virtual: IVirtualFiles = Attribute("the files of virtual domains")

    def explain(address: Address) -> Awaitable[Explanation]:
        """How an address comes to what it stands for."""

    def begin(
        client: Client, sender: Address | None, recipients: Sequence[Address], warning: str | None
    ) -> Awaitable[tuple[ISubmission, list[tuple[Address, Reply]]]]:
        """Begin a letter: the submission, and the recipients it will not go to with the reason.

        `warning` is the value of an X-Authentication-Warning field to add. Errors: `Refusal` when no
        recipient is good, or nothing can be taken now.
        """


@frozen
class LocalSettings:
    """`host` is our name, `service_uid` our own account, `admin_group` the gid of `control-group`.

    `everybody_lists` is `mailq-all`; `recipients` the most of one letter (0: no limit); `idle` the
    seconds after which a silent client is dropped (0: never).
    """

    host: str
    service_uid: int
    admin_group: int | None
    everybody_lists: bool
    recipients: int
    idle: float
