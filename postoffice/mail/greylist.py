"""What the greylist keeps of a sender at a client, and which of it is to go.

A record has a key that people can read: `local@[address]` for a sender at a client, `<>@[address]` for the
null sender there, or a plain address. Times are whole epoch seconds.
"""

from __future__ import annotations

from attrs import frozen

NULL = "<>@"
"""What the key of a null sender's record begins with; no other does."""


@frozen
class Record:
    """`accepted` is when mail is accepted from, None for never; `seen` is the last contact.

    `kept` ones were made by an operator: only an operator removes them.
    """

    accepted: int | None
    seen: int
    kept: bool = False

    @property
    def passed(self) -> bool:
        """Whether the client came back once it might."""
        return self.accepted is not None and self.seen >= self.accepted


@frozen
class Bounds:
    """Most records at all and of one network, seconds a record is kept unseen; 0 for no limit."""

    most: int
    share: int
    keep: int


@frozen
class Expiry:
    """Which records are to go: those not seen for `age` seconds, and more.

    `forbidden` ones only if that is set. With `null` all of the null sender, with `unused` all that have not
    come back since their embargo ended.
    """

    age: int
    forbidden: bool = False
    null: bool = False
    unused: bool = False

    def concerns(self, key: str, record: Record, now: float) -> bool:
        """Whether the record under this key is to go."""
        if record.accepted is None and not self.forbidden:
            return False
        if record.seen + self.age < now or (self.null and key.startswith(NULL)):
            return True
        return self.unused and record.accepted is not None and not record.passed
