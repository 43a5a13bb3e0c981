"""The client side of SMTP as an engine: one session with any number of transactions. RFC 5321.

Called by the link of remote delivery. What the host sends goes into `receive`; then `next_event` is asked
until it returns None, and what `outgoing` returns is written to the host, again until there is neither.
`begin`, `content`, `end` and `quit` return bytes to write at once. An event is one of

    Ready     greeted (EHLO, or HELO where the host refuses EHLO): `begin` may be called;
    Proceed   the host waits for the content: `content` for each piece, then `end`;
    Finished  the transaction is over, with an outcome for each recipient: `begin` may be called again
              while `reusable`;
    Broken    the session is of no use any more: hang up.

A transaction ends as RFC 5321 section 4.2.1 has it: a 5xx to MAIL fails all recipients, to RCPT that one, to
the content all that had been accepted; everything else postpones, a 5xx to DATA included, and a RCPT answered
552 because the host takes no more recipients (section 4.5.3.1.10). A lost connection (`lost`), a 421, and
anything that is no SMTP postpone the recipients about which nothing is settled, and break the session.

With PIPELINING (RFC 2920) the commands of a transaction go out in groups of at most `GROUP`, DATA in the
last; where all recipients were refused and DATA is answered 354 all the same, the engine sends the lone dot.
LIMITS (RFC 9422) are kept: recipients above RCPTMAX are postponed unasked, and behind MAILMAX letters the
session is not `reusable`. What the other extensions of the host make of a letter is in
`postoffice.smtp.offers`.

With `lmtp` the host is asked for local delivery (RFC 2033): it is greeted by LHLO alone, and behind the
content it answers for each recipient it had accepted, in their order.

Errors: none but `AssertionError`, when methods are called out of turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from postoffice.mail.envelope import Envelope
from postoffice.mail.outcome import Delivered, Postponed, outcome_of
from postoffice.mail.reply import Reply, printable
from postoffice.smtp.answers import Answer, AnswerBuffer, Nonsense
from postoffice.smtp.client_events import Broken, Event, Finished, Proceed, Ready
from postoffice.smtp.encoding import Encoder
from postoffice.smtp.offers import Offers
from postoffice.smtp.transaction import Transaction, plan

GROUP = 100
"""The most commands that are sent before the answers to them are read."""

Awaited = Literal[
    "greeting", "EHLO", "HELO", "RSET", "MAIL", "RCPT", "DATA", "content", "end of data", "QUIT", ""
]

NONSENSE = (5, 0)
_NO_QUIT = frozenset(("DATA", "end of data", "QUIT"))


class ClientEngine:
    """One session with one host.

    `name` is what we call ourselves, `where` names the host in outcomes, and `offers` is what it offers.
    """

    def __init__(self, name: str, where: str = "", lmtp: bool = False) -> None:
        self.offers = Offers()
        self._name = name.encode("ascii", "replace")
        self._where = where
        self._lmtp = lmtp
        self._buffer = AnswerBuffer()
        self._events: deque[Event] = deque()
        self._out: list[bytes] = []
        self._pending: deque[Awaited] = deque(["greeting"])
        self._encoder: Encoder | None = None
        self._transaction: Transaction | None = None
        self._left_over = False
        self._greeted = False
        self._broken = False
        self._mails = 0

    @property
    def awaiting(self) -> Awaited:
        """What the next reply of the host answers; `content` while we are to send it; empty when idle."""
        return self._pending[0] if self._pending else "content" if self._encoder is not None else ""

    @property
    def reusable(self) -> bool:
        """Whether `begin` may be called: greeted, nothing under way, and the host said nothing unasked.

        A host that takes only so many letters in a session says so with LIMITS (RFC 9422).
        """
        under_way = self._transaction or self._pending or self._events or self._buffer
        return (
            self._greeted
            and not self._broken
            and not under_way
            and (not self.offers.most_letters or self._mails < self.offers.most_letters)
        )

    def receive(self, data: bytes) -> None:
        """Take what the host sent."""
        if not self._broken:
            self._buffer.receive(data)

    def next_event(self) -> Event | None:
        """What happened next; None when more has to come from the host or is to be written to it first.

        A reply is not read before what it answers was handed out, however early the host sent it.
        """
        while not self._events and not self._broken and not self._out:
            try:
                answer = self._buffer.take()
                if answer is None:
                    return None
                self._answered(answer)
            except Nonsense as nonsense:
                self._break(Reply(450, NONSENSE, f"the host does not speak SMTP: {nonsense}"))
        return self._events.popleft() if self._events else None

    def outgoing(self) -> bytes:
        """What is to be written to the host because of its replies."""
        if not self._out:
            return b""
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return out

    def begin(self, envelope: Envelope, size: int) -> bytes:
        """Start a transaction for a letter of `size` octets. Only while `reusable`."""
        assert self.reusable, "begin() out of turn"
        transaction = plan(envelope, size, self.offers, self._where)
        self._mails += 1
        if all(transaction.outcomes):
            self._events.append(Finished(transaction.settled()))
            return b""
        self._transaction = transaction
        self._send_group(transaction)
        return self.outgoing()

    def content(self, piece: bytes) -> bytes:
        """The wire form of the next piece of the content, after `Proceed`."""
        assert self._encoder is not None, "content() out of turn"
        return self._encoder.encode(piece)

    def end(self) -> bytes:
        """What ends the content."""
        assert self._encoder is not None, "end() out of turn"
        end, self._encoder = self._encoder.end(), None
        # With LMTP each recipient has an answer of its own.
        self._pending.extend(["end of data"] * (len(self._current().accepted) if self._lmtp else 1))
        return end

    def quit(self) -> bytes:
        """Take leave; empty where a command might be taken for content, and after the first time."""
        if self._encoder is not None or not _NO_QUIT.isdisjoint(self._pending):
            return b""
        self._pending.append("QUIT")
        return b"QUIT\r\n"

    def lost(self, reply: Reply, ours: bool = False) -> None:
        """The connection is gone, or given up, for the reason that `reply` puts into words.

        With `ours` the reason is none of the host's, and outcomes do not name it.
        """
        if not self._broken:
            self._break(reply, "" if ours else self._where)

    def _send(self, command: Awaited, line: bytes) -> None:
        self._pending.append(command)
        self._out.append(line)

    def _send_group(self, transaction: Transaction) -> None:
        """Send as many of the commands that are left as may be; end the transaction where none is."""
        room = GROUP if "PIPELINING" in self.offers else 1
        if self._left_over and not transaction.mail_sent:
            self._send("RSET", b"RSET\r\n")
            if room == 1:
                return
        if not transaction.mail_sent:
            transaction.mail_sent = True
            self._send("MAIL", transaction.mail)
        elif not transaction.mail_taken:
            self._finish(transaction)
            return
        paths = transaction.paths
        while len(self._pending) < room and transaction.next < len(paths):
            recipient = paths[transaction.next]
            if recipient is not None:
                transaction.asked.append(transaction.next)
                wish = transaction.wishes[transaction.next] if transaction.wishes else b""
                self._send("RCPT", b"RCPT TO:%b%b\r\n" % (recipient, wish))
            transaction.next += 1
        if (
            len(self._pending) < room
            and (transaction.asked or transaction.accepted)
            and not transaction.data_sent
        ):
            transaction.data_sent = True
            self._send("DATA", b"DATA\r\n")
        if not self._pending:
            self._finish(transaction)

    def _answered(self, answer: Answer) -> None:
        """Give a reply to what it answers."""
        if not self._pending:
            # The host answered the content before its end, or spoke without being asked.
            self._break(answer.reply() if answer.code >= 400 else _unexpected(answer, self.awaiting))
            return
        command = self._pending.popleft()
        if command == "QUIT" or answer.code == 421:
            self._break(answer.reply())
        elif (answer.code // 100 == 3) != (command == "DATA" and answer.code == 354):
            self._break(_unexpected(answer, command))
        else:
            _HANDLERS[command](self, answer)
            if (
                self._transaction is not None
                and not self._pending
                and self._encoder is None
                and not self._broken
            ):
                self._send_group(self._transaction)

    def _on_greeting(self, answer: Answer) -> None:
        if answer.code == 220:
            self._send("EHLO", b"%b %b\r\n" % (b"LHLO" if self._lmtp else b"EHLO", self._name))
        else:
            self._break(answer.reply())

    def _on_ehlo(self, answer: Answer) -> None:
        if answer.code >= 500 and not self._lmtp:
            self._send("HELO", b"HELO %b\r\n" % self._name)
            return
        if answer.code < 300:
            self.offers = Offers(answer.lines[1:])
        self._on_helo(answer)

    def _on_helo(self, answer: Answer) -> None:
        if answer.code < 300:
            self._greeted = True
            self._events.append(Ready())
        else:
            self._break(answer.reply())

    def _on_rset(self, answer: Answer) -> None:
        if answer.code < 300:
            self._left_over = False
        else:
            self._break(answer.reply())

    def _on_mail(self, answer: Answer) -> None:
        transaction = self._current()
        transaction.untouched = False
        if answer.code < 300:
            transaction.mail_taken = self._left_over = True
        else:
            transaction.settle(outcome_of(answer.reply(), self._where))

    def _on_rcpt(self, answer: Answer) -> None:
        transaction = self._current()
        at = transaction.asked.popleft()
        if answer.code < 300:
            transaction.accepted.append(at)
        if answer.code < 300 or transaction.outcomes[at] is not None:
            return
        reply = answer.reply()
        no_more = answer.code == 552 and (
            reply.enhanced == (5, 3) or (reply.enhanced is None and bool(transaction.accepted))
        )
        transaction.outcomes[at] = (
            Postponed(reply, self._where) if no_more else outcome_of(reply, self._where)
        )

    def _on_data(self, answer: Answer) -> None:
        transaction = self._current()
        if answer.code < 300:
            self._break(_unexpected(answer, "DATA"))
        elif answer.code != 354:
            transaction.settle(Postponed(answer.reply(), self._where))
        elif self._lmtp and not transaction.accepted:
            # Behind the end there would be no answer at all.
            self._break(_unexpected(answer, "DATA"))
        elif transaction.mail_taken and transaction.accepted:
            self._encoder = Encoder()
            self._events.append(Proceed())
        else:
            self._send("end of data", b".\r\n")

    def _on_end_of_data(self, answer: Answer) -> None:
        transaction = self._current()
        accepted = transaction.accepted
        self._left_over = False
        if self._lmtp and accepted:
            transaction.outcomes[accepted.pop(0)] = outcome_of(answer.reply(), self._where)
            if accepted:
                return
        elif accepted:
            outcome = outcome_of(answer.reply(), self._where)
            if type(outcome) is Delivered and "DSN" in self.offers:
                outcome = Delivered(outcome.reply, outcome.where, answers=True)
            transaction.settle(outcome)
        self._finish(transaction)

    def _current(self) -> Transaction:
        assert self._transaction is not None
        return self._transaction

    def _finish(self, transaction: Transaction) -> None:
        """The transaction is over; every recipient has an outcome."""
        self._transaction = None
        self._events.append(Finished(transaction.settled(), transaction.untouched))

    def _break(self, reply: Reply, where: str | None = None) -> None:
        """End the session, and the transaction under way."""
        self._broken = True
        self._buffer = AnswerBuffer()
        self._out.clear()
        if self._transaction is not None:
            self._transaction.settle(Postponed(reply, self._where if where is None else where))
            self._finish(self._transaction)
        self._events.append(Broken(reply))


_HANDLERS: dict[str, Callable[[ClientEngine, Answer], None]] = {
    "greeting": ClientEngine._on_greeting,
    "EHLO": ClientEngine._on_ehlo,
    "HELO": ClientEngine._on_helo,
    "RSET": ClientEngine._on_rset,
    "MAIL": ClientEngine._on_mail,
    "RCPT": ClientEngine._on_rcpt,
    "DATA": ClientEngine._on_data,
    "end of data": ClientEngine._on_end_of_data,
}
"""What a reply means, by what it answers."""


def _unexpected(answer: Answer, awaited: Awaited) -> Reply:
    said = printable(f"{answer.code} {answer.lines[0]}", 100)
    return Reply(450, NONSENSE, f"unexpected reply to {awaited or 'nothing'}: {said}")
