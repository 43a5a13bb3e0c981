"""One letter on its way to one host: what is to be said, and what became of each recipient.

Made by the client engine for each letter, and kept by it until every recipient has an outcome.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field

from postoffice.mail.address import path
from postoffice.mail.envelope import Envelope
from postoffice.mail.outcome import Failed, Outcome, Postponed
from postoffice.mail.reply import Reply
from postoffice.smtp.offers import Offers


@define
class Transaction:
    """What is under way. `paths` holds each recipient as it is written, None for one that is not.

    `wishes` are the parameters of each RCPT, empty where none has any. `next` is the recipient whose turn it
    is, `asked` are those whose answers are to come, `accepted` those the host took, by their places in the
    envelope. An `untouched` one the host was not heard to take up.
    """

    mail: bytes
    paths: list[bytes | None]
    outcomes: list[Outcome | None]
    wishes: list[bytes]
    next: int = 0
    mail_sent: bool = False
    data_sent: bool = False
    mail_taken: bool = False
    asked: deque[int] = field(factory=deque)
    accepted: list[int] = field(factory=list)
    untouched: bool = True

    def settle(self, outcome: Outcome) -> None:
        """Give the outcome to all recipients that have none yet."""
        outcomes = self.outcomes
        for at, known in enumerate(outcomes):
            if known is None:
                outcomes[at] = outcome

    def settled(self) -> tuple[Outcome, ...]:
        """The outcomes, now that every recipient has one."""
        outcomes = tuple(outcome for outcome in self.outcomes if outcome is not None)
        assert len(outcomes) == len(self.outcomes)
        return outcomes


def plan(envelope: Envelope, size: int, offers: Offers, where: str) -> Transaction:
    """The transaction for a letter of `size` octets with the host `where`.

    Recipients that cannot be asked for have their outcomes already, all of them where the letter cannot go.
    """
    refusal = offers.refusal(envelope, size)
    if refusal is not None:
        outcomes: list[Outcome | None] = [Failed(refusal, where)] * len(envelope.recipients)
        return Transaction(b"", [], outcomes, [])
    wide = envelope.smtputf8
    sender = _written(path(envelope.sender), wide)
    if sender is None:
        return Transaction(b"", [], [Failed(_unwritable("sender"))] * len(envelope.recipients), [])
    paths = [_written(path(recipient), wide) for recipient in envelope.recipients]
    outcomes = [None if recipient else Failed(_unwritable("recipient")) for recipient in paths]
    most = offers.most_recipients
    if most and len(paths) > most:
        reply = Reply(452, (5, 3), f"the host takes at most {most} recipients at once")
        for at in range(most, len(paths)):
            paths[at] = None
            outcomes[at] = outcomes[at] or Postponed(reply, where)
    mail = b"MAIL FROM:%b%b\r\n" % (sender, offers.mail_parameters(envelope, size))
    return Transaction(mail, paths, outcomes, offers.rcpt_parameters(envelope))


def _written(text: str, wide: bool) -> bytes | None:
    """A path as it is written, None where it has characters that no command can carry."""
    return text.encode("utf-8") if text.isprintable() and (wide or text.isascii()) else None


def _unwritable(whose: str) -> Reply:
    return Reply(553, (6, 7), f"the {whose}'s address cannot be written in plain SMTP")
