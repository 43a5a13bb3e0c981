"""The order of commands of an SMTP session, as one table.

Read by `postoffice.smtp.server` alone. A row is a phase, a column a verb: `Bar` where the command is
out of order, `Move` where its answer changes the phase. A verb that is not in a row is allowed and
changes nothing. RFC 5321 section 4.1.4, with the rule of the original that a second MAIL starts over.
"""

from __future__ import annotations

from enum import Enum, auto

from attrs import frozen

from postoffice.mail.reply import Reply


class Phase(Enum):
    """Where a session stands."""

    CONNECTED = auto()  # the banner was not sent
    STRANGER = auto()  # greeted by us, and HELO or EHLO is insisted on
    OPEN = auto()  # no transaction
    DENIED = auto()  # MAIL or a chunk was refused; a client that pipelines does not know yet
    SENDER = auto()  # MAIL was accepted, no RCPT tried
    REFUSED = auto()  # MAIL was accepted, every RCPT so far refused
    READY = auto()  # at least one RCPT was accepted
    CHUNKS = auto()  # a chunk was accepted, the last is to come
    CONTENT = auto()  # behind the 354
    CHUNK = auto()  # behind BDAT
    AUTH = auto()  # behind a 334
    TLS = auto()  # behind the 220 to STARTTLS
    CLOSED = auto()  # nothing is read any more

    # Enum hashes by name in Python code; members are singletons, and every command looks a phase up.
    __hash__ = object.__hash__


@frozen
class Move:
    """The phases after a positive answer, after a negative one, and after one that asks for more (3xx)."""

    accepted: Phase
    refused: Phase
    more: Phase = Phase.CLOSED


@frozen
class Bar:
    """The command is refused as out of order; `error` as in `events.Refused`."""

    reply: Reply
    error: bool = True


_IN_TRANSACTION = Bar(Reply(503, (5, 1), "Not while a mail transaction is under way"))
_HELO_FIRST = Bar(Reply(503, (5, 1), "Send HELO or EHLO first"))
_MAIL_FIRST = Bar(Reply(503, (5, 1), "Send MAIL first"))
_RCPT_FIRST = Bar(Reply(503, (5, 1), "Send RCPT first"))
EARLY_RECIPIENT = Bar(_MAIL_FIRST.reply)
"""RCPT before MAIL, which may be let pass."""

_NO_SENDER = Bar(_MAIL_FIRST.reply, error=False)
_NO_RECIPIENTS = Bar(Reply(554, (5, 1), "No valid recipients"), error=False)

_CHUNKS_ONLY = Bar(Reply(503, (5, 1), "Send the message's other chunks first, or RSET"))

_STAY_STRANGER = Move(Phase.OPEN, Phase.STRANGER)
_STAY_OPEN = Move(Phase.OPEN, Phase.OPEN)
_STAY_DENIED = Move(Phase.OPEN, Phase.DENIED)
_STAY_SENDER = Move(Phase.OPEN, Phase.SENDER)
_STAY_REFUSED = Move(Phase.OPEN, Phase.REFUSED)
_STAY_READY = Move(Phase.OPEN, Phase.READY)
_STAY_CHUNKS = Move(Phase.OPEN, Phase.CHUNKS)
_BEGIN = Move(Phase.SENDER, Phase.DENIED)
_RECIPIENT = Move(Phase.READY, Phase.REFUSED)
_ANOTHER = Move(Phase.READY, Phase.READY)
_CONTENT = Move(Phase.OPEN, Phase.OPEN, Phase.CONTENT)
_CHUNK = Move(Phase.CHUNKS, Phase.DENIED)
_SECURE_OPEN = Move(Phase.TLS, Phase.OPEN)
_SECURE_DENIED = Move(Phase.TLS, Phase.DENIED)
_AUTH_DENIED = Move(Phase.OPEN, Phase.DENIED, Phase.AUTH)
_OTHER_STRANGER = Move(Phase.CONNECTED, Phase.STRANGER)
_OTHER_OPEN = Move(Phase.CONNECTED, Phase.OPEN)
_OTHER_DENIED = Move(Phase.CONNECTED, Phase.DENIED)

EXCHANGE = Move(Phase.OPEN, Phase.OPEN, Phase.AUTH)
"""What the answer to a step of the AUTH exchange does."""

END = Move(Phase.OPEN, Phase.OPEN)
"""What the answer to the content does."""

CLOSE = Move(Phase.CLOSED, Phase.CLOSED)
"""The connection closes, whatever the answer."""

_BETWEEN_TRANSACTIONS: dict[bytes, Move | Bar] = dict.fromkeys(
    (b"STARTTLS", b"AUTH", b"ETRN", b"XCLIENT"), _IN_TRANSACTION
)

ORDER: dict[Phase, dict[bytes, Move | Bar]] = {
    Phase.STRANGER: {
        b"HELO": _STAY_STRANGER,
        b"EHLO": _STAY_STRANGER,
        b"MAIL": _HELO_FIRST,
        b"RCPT": _MAIL_FIRST,
        b"DATA": _MAIL_FIRST,
        b"BDAT": _MAIL_FIRST,
        b"STARTTLS": _HELO_FIRST,
        b"AUTH": _HELO_FIRST,
        b"ETRN": _HELO_FIRST,
        b"XCLIENT": _OTHER_STRANGER,
    },
    Phase.OPEN: {
        b"HELO": _STAY_OPEN,
        b"EHLO": _STAY_OPEN,
        b"MAIL": _BEGIN,
        b"RCPT": EARLY_RECIPIENT,
        b"DATA": _MAIL_FIRST,
        b"BDAT": _MAIL_FIRST,
        b"STARTTLS": _SECURE_OPEN,
        b"AUTH": EXCHANGE,
        b"XCLIENT": _OTHER_OPEN,
    },
    Phase.DENIED: {
        b"HELO": _STAY_DENIED,
        b"EHLO": _STAY_DENIED,
        b"MAIL": _BEGIN,
        b"RCPT": _NO_SENDER,
        b"DATA": _NO_SENDER,
        b"BDAT": _NO_SENDER,
        b"RSET": END,
        b"STARTTLS": _SECURE_DENIED,
        b"AUTH": _AUTH_DENIED,
        b"XCLIENT": _OTHER_DENIED,
    },
    Phase.SENDER: {
        b"HELO": _STAY_SENDER,
        b"EHLO": _STAY_SENDER,
        b"MAIL": _BEGIN,
        b"RCPT": _RECIPIENT,
        b"DATA": _RCPT_FIRST,
        b"BDAT": _RCPT_FIRST,
        b"RSET": END,
        **_BETWEEN_TRANSACTIONS,
    },
    Phase.REFUSED: {
        b"HELO": _STAY_REFUSED,
        b"EHLO": _STAY_REFUSED,
        b"MAIL": _BEGIN,
        b"RCPT": _RECIPIENT,
        b"DATA": _NO_RECIPIENTS,
        b"BDAT": _NO_RECIPIENTS,
        b"RSET": END,
        **_BETWEEN_TRANSACTIONS,
    },
    Phase.READY: {
        b"HELO": _STAY_READY,
        b"EHLO": _STAY_READY,
        b"MAIL": _BEGIN,
        b"RCPT": _ANOTHER,
        b"DATA": _CONTENT,
        b"BDAT": _CHUNK,
        b"RSET": END,
        **_BETWEEN_TRANSACTIONS,
    },
    Phase.CHUNKS: {
        b"HELO": _STAY_CHUNKS,
        b"EHLO": _STAY_CHUNKS,
        b"MAIL": _BEGIN,
        b"RCPT": _CHUNKS_ONLY,
        b"DATA": _CHUNKS_ONLY,
        b"BDAT": _CHUNK,
        b"RSET": END,
        **_BETWEEN_TRANSACTIONS,
    },
}
