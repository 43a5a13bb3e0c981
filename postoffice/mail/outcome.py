"""How an attempt to deliver to one recipient ended. The set is closed."""

from __future__ import annotations

from attrs import frozen

from postoffice.mail.reply import Reply


@frozen
class Delivered:
    """The letter is somebody else's now: `where` names the mailbox or host, `reply` its answer.

    `answers` says that the host does what reports were asked for itself (RFC 3461 section 5.2.2).
    """

    reply: Reply
    where: str = ""
    answers: bool = False


@frozen
class Postponed:
    """Not now; try again later. `where` names the host that said so, empty when it was ourselves."""

    reply: Reply
    where: str = ""


@frozen
class Failed:
    """Never; the sender is to be told. `where` names the host that said so, empty when it was ourselves."""

    reply: Reply
    where: str = ""


Outcome = Delivered | Postponed | Failed


def outcome_of(reply: Reply, where: str = "") -> Outcome:
    """The outcome a reply stands for: 2xx delivered, 5xx failed, all else postponed."""
    if 200 <= reply.code < 300:
        return Delivered(reply, where)
    return Failed(reply, where) if reply.permanent else Postponed(reply, where)
