"""What is handed to the writer thread: one object for each thing that was asked of the spool.

How each is done within a transaction, `postoffice.spool.store` knows. The set is closed: `Work`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from postoffice.interfaces import NewLetter
from postoffice.mail.envelope import Claim, Settlement
from postoffice.mail.outcome import Delivered


class _Work:
    """One thing that was handed in; `deferred` fires in the reactor with its value or its error."""

    __slots__ = ("deferred", "error", "value")

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.deferred = deferred
        self.value: Any = None
        self.error: Exception | None = None

    def answer(self) -> None:
        """Fire the Deferred; in the reactor."""
        if self.error is None:
            self.deferred.callback(self.value)
        else:
            self.deferred.errback(self.error)


class Call(_Work):
    """Anything rare: a function that is called with the store."""

    __slots__ = ("function",)

    def __init__(self, deferred: Deferred[Any], function: Callable[[Any], Any]) -> None:
        super().__init__(deferred)
        self.function = function

    def plain(self) -> bool:
        """No."""
        return False


class Insert(_Work):
    """A letter to be stored: its content, or the name of the synced file that holds it.

    `stored` becomes its key and id, so that it can be taken back if the commit fails half-way.
    """

    __slots__ = ("claim", "data", "file", "new", "size", "stored")

    def __init__(
        self, deferred: Deferred[Any], new: NewLetter, claim: bool, content: bytes | tuple[str, int]
    ) -> None:
        super().__init__(deferred)
        self.new = new
        self.claim = claim
        self.stored: tuple[int, str] | None = None
        self.data: bytes | None = None
        self.file: str | None = None
        if isinstance(content, bytes):
            self.data = content
            self.size = len(content)
        else:
            self.file, self.size = content

    def plain(self) -> bool:
        """Whether it has one recipient, and its content is a row."""
        return self.file is None and len(self.new.recipients) == 1


class Settle(_Work):
    """Outcomes to be recorded."""

    __slots__ = ("bounce", "claim", "settlements")

    def __init__(
        self,
        deferred: Deferred[Any],
        claim: Claim,
        settlements: Sequence[Settlement],
        bounce: tuple[NewLetter, bytes] | None,
    ) -> None:
        super().__init__(deferred)
        self.claim = claim
        self.settlements = settlements
        self.bounce = bounce

    def plain(self) -> bool:
        """Whether the one recipient of the claim was served, so that rows only have to go.

        Of a claim of one recipient: then no other claim that is settled beside it covers the same row.
        """
        return (
            self.bounce is None
            and len(self.settlements) == 1
            and len(self.claim.recipients) == 1
            and self.settlements[0].key == self.claim.recipients[0].key
            and type(self.settlements[0].outcome) is Delivered
        )


Work = Call | Insert | Settle
