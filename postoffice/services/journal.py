"""The journal: what happened, in lines an operator can read and records a program can.

One method for each fact. Every fact goes to each configured sink, as a line of text or as a JSON
object. Lines are gathered and written a few times a second by a thread of their own, so that a slow
terminal, pipe or syslog daemon never holds up the reactor; when a sink cannot keep up, lines are
dropped and counted rather than kept without bound. No method raises, and none is given a secret.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from postoffice.interfaces import IJournal, Steps
from postoffice.mail.address import Address, path
from postoffice.mail.client import Client
from postoffice.mail.destination import Copy, Destination, where_to
from postoffice.mail.envelope import Envelope, Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply, legible, printable
from postoffice.services.sinks import Level, Record, Sink, StderrSink, as_text

# Seconds that lines are gathered before they are handed to the writing thread.
GATHER = 0.1
# Batches that may wait for a sink that is stuck.
BACKLOG = 600


@implementer(IJournal)
class Journal:
    """The journal of the service.

    Until `open` records are kept, then they are written at once, from `start` to `stop` in a thread.
    """

    def __init__(self, clock: IReactorTime, open_sinks: Callable[[], Iterable[Sink]]) -> None:
        self._clock = clock
        self._open_sinks = open_sinks
        self._sinks: list[Sink] = []
        self._gathered: list[Record] = []
        self._timer: IDelayedCall | None = None
        self._thread: Thread | None = None
        self._batches: SimpleQueue[list[Record] | Callable[[], None] | None] = SimpleQueue()
        self._dropped = 0
        self.auditing = False

    def open(self) -> None:
        """Open the sinks, while we may still be root.

        Errors: OSError that names the file; the journal goes to standard error then.
        """
        try:
            self._sinks += self._open_sinks()
        except OSError:
            self._sinks.append(StderrSink(as_text))
            raise
        finally:
            self._hand_over()

    def reopen(self, open_sinks: Callable[[], Iterable[Sink]]) -> None:
        """Go on in other sinks; what was gathered goes to the ones before.

        Errors: OSError that names the file; the sinks stay then.
        """
        opened = list(open_sinks())
        self._hand_over()
        if self._thread is None:
            self._switch(opened)
        else:
            self._batches.put(partial(self._switch, opened))

    def _switch(self, opened: list[Sink]) -> None:
        before, self._sinks = self._sinks, opened
        for sink in before:
            sink.close()

    def start(self) -> None:
        """Begin to write in a thread; after privileges were given up, since threads keep theirs."""
        self._thread = Thread(target=self._write_batches, name="journal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what was gathered and end the thread; a sink that is stuck is waited for one second."""
        self._hand_over()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._batches.put(None)
            thread.join(1.0)
        for sink in self._sinks:
            sink.close()
        self._sinks.clear()

    # The facts.

    def ready(self, what: str) -> None:
        self._note("notice", "ready", f"ready, listening on {what}", listening=what)

    def reloaded(self, changed: Sequence[str]) -> None:
        """Other settings were taken over."""
        names = ", ".join(changed) or "nothing"
        self._note("notice", "reloaded", f"configuration read again, changed: {names}", changed=list(changed))

    def toggle_audit(self) -> None:
        """Begin or end audit records."""
        self.auditing = not self.auditing
        self._note("notice", "auditing", f"auditing {'on' if self.auditing else 'off'}", on=self.auditing)

    def stalled(self, seconds: float, work: float) -> None:
        stall, at_work = round(seconds * 1000, 1), round(work * 1000, 1)
        text = f"the reactor was held up for {stall} ms, {at_work} of them at work"
        self._note("info", "stalled", text, stall_ms=stall, work_ms=at_work)

    def stopped(self, longest_stall: float) -> None:
        stall = round(longest_stall * 1000, 1)
        self._note("notice", "stopped", f"stopped; longest stall of the reactor {stall} ms", stall_ms=stall)

    def admitted(self, client: Client) -> None:
        may = "it may relay" if client.may_relay else "it may not relay"
        if client.marked:
            may += f", and is forbidden: {printable(client.marked)}"
        tls = f" using {client.tls}" if client.tls else ""
        self._note(
            "info",
            "admitted",
            f"session with {client} on {client.door}{tls}: {may}",
            client=str(client),
            door=client.door,
            may_relay=client.may_relay,
            marked=client.marked,
        )

    def refused(self, client: Client, what: str, reply: Reply, why: str) -> None:
        reason = f" ({printable(why)})" if why and why != str(reply) else ""
        what = legible(what)
        self._note(
            "info",
            "refused",
            f"refused {what} of {client} helo={printable(client.helo or '-', 255)}: {reply}{reason}",
            client=str(client),
            what=what,
            reply=str(reply),
            why=why,
        )

    def logged_in(self, client: Client, mechanism: str) -> None:
        self._note(
            "info",
            "logged in",
            f"log-in of {printable(client.login or '')} by {mechanism} from {client}",
            client=str(client),
            login=client.login,
            mechanism=mechanism,
            tls=str(client.tls or ""),
        )

    def managed(self, client: Client, what: str) -> None:
        self._note("info", "managed", f"{client}: {printable(what)}", client=str(client), what=what)

    def wrong_number(self, client: Client, address: Address, reply: Reply) -> None:
        helo = printable(client.helo or "-", 255)
        self._note(
            "info",
            "wrong number",
            f"wrong number: refused {path(address)} of {client} helo={helo}: {reply}",
            client=str(client),
            address=path(address),
            reply=str(reply),
        )

    def audit(self, client: Client, seconds: int, command: str, code: int, info: str) -> None:
        where = f"[{client.ip}]" if ":" in client.ip else client.ip
        info = printable(info, 2000)
        verb = printable(command, 4)
        self._note(
            "debug",
            "audit",
            f"AUDIT:{seconds:3d}:{where:>15}:{verb:>4}:{code:03d}:{info}",
            client=client.ip,
            seconds=seconds,
            command=verb,
            code=code,
            info=info,
        )

    def secured(self, client: Client) -> None:
        tls = client.tls
        assert tls is not None
        asked = f", asked for {tls.server_name}" if tls.server_name else ""
        self._note(
            "info",
            "secured",
            f"session with {client} on {client.door} now using {tls}{asked}",
            client=str(client),
            door=client.door,
            tls=str(tls),
            server_name=tls.server_name,
        )

    def handshake_failed(self, client: Client, why: str) -> None:
        self._note(
            "info",
            "handshake_failed",
            f"TLS handshake with {client} failed: {printable(why)}",
            client=str(client),
            door=client.door,
            why=why,
        )

    def accepted(self, letter_id: str, envelope: Envelope, size: int, client: Client) -> None:
        recipients = envelope.recipients
        sender = path(envelope.sender)
        login = f" logged in as {printable(client.login)}" if client.login else ""
        tls = f" using {client.tls}" if client.tls else ""
        shown = path(recipients[0]) if len(recipients) == 1 else f"{len(recipients)} recipients"
        self._note(
            "info",
            "accepted",
            f"{letter_id}: accepted {size} octets from {sender} ({client}) for {shown}{login}{tls}",
            id=letter_id,
            sender=sender,
            recipients=len(recipients),
            size=size,
            client=str(client),
            door=client.door,
            protocol=client.keyword,
            login=client.login or "",
            tls=str(client.tls or ""),
            server_name=client.tls.server_name if client.tls else None,
        )

    def held(self, letter_id: str, reason: str) -> None:
        text = f"{letter_id}: on hold: {printable(reason)}"
        self._note("notice", "held", text, id=letter_id, reason=reason)

    def filtered(
        self,
        client: Client,
        name: str,
        what: str,
        letter_id: str,
        verdict: str,
        seconds: float,
        steps: Steps | None = None,
    ) -> None:
        which = f"{letter_id}: " if letter_id else ""
        took = _ms(seconds)
        before = "" if steps is None else f", behind {steps}: continue {_times(steps)}"
        self._note(
            "info",
            "filtered",
            f"{which}filter {name} on {what} of {client}: {printable(verdict)} ({took} ms){before}",
            id=letter_id,
            filter=name,
            what=what,
            client=str(client),
            verdict=verdict,
            ms=took,
            **({} if steps is None else _fields(steps)),
        )

    def passed(self, client: Client, name: str, letter_id: str, steps: Steps) -> None:
        which = f"{letter_id}: " if letter_id else ""
        self._note(
            "info",
            "passed",
            f"{which}filter {name} on {steps} of {client}: continue {_times(steps)}",
            id=letter_id,
            filter=name,
            client=str(client),
            **_fields(steps),
        )

    def settled(
        self, letter: Letter, recipient: Recipient, outcome: Outcome, destination: Destination | None
    ) -> None:
        verb, level = _VERBS[type(outcome)]
        sender, to = path(letter.sender), path(recipient.address)
        where = outcome.where or where_to(destination)
        self._note(
            level,
            verb,
            f"{letter.id}: {verb} mail from {sender} ({letter.client}) to {to} ({where}): {outcome.reply}",
            id=letter.id,
            sender=sender,
            recipient=to,
            where=where,
            reply=str(outcome.reply),
        )

    def expanded(self, letter: Letter, recipient: Recipient, copies: Sequence[Copy]) -> None:
        to = [path(copy.address) for copy in copies[:_MOST_NAMED]]
        more = f" and {len(copies) - len(to)} more" if len(copies) > len(to) else ""
        self._note(
            "info",
            "expanded",
            f"{letter.id}: {path(recipient.address)} stands for {', '.join(to)}{more}",
            id=letter.id,
            recipient=path(recipient.address),
            copies=to,
            count=len(copies),
        )

    def bounced(self, letter: Letter, bounce_id: str, recipients: Sequence[Address]) -> None:
        self._note(
            "info",
            "bounced",
            f"{letter.id}: returned to {path(letter.sender)} as {bounce_id} for {len(recipients)} recipients",
            id=letter.id,
            bounce=bounce_id,
            sender=path(letter.sender),
        )

    def reported(self, letter: Letter, report_id: str, recipients: Sequence[Address]) -> None:
        self._note(
            "info",
            "reported",
            f"{letter.id}: reported to {path(letter.sender)} as {report_id} for {len(recipients)} recipients",
            id=letter.id,
            report=report_id,
            sender=path(letter.sender),
        )

    def warning(self, text: str) -> None:
        self._note("warning", "warning", printable(text, 2000))

    def error(self, text: str, failure: BaseException | None = None) -> None:
        trace = ""
        if failure is not None:
            trace = "".join(traceback.format_exception(failure)).rstrip()
            text = f"{text}: {type(failure).__name__}: {failure}"
        shown = "".join(f"\n    {printable(line, 500)}" for line in trace.splitlines())
        self._note("error", "error", printable(text, 2000) + shown, trace=trace)

    def fatal(self, text: str) -> None:
        """Why the service cannot go on: told on standard error too, where whoever starts it looks."""
        if not any(isinstance(sink, StderrSink) for sink in self._sinks):
            self._sinks.append(StderrSink(as_text))
        self.error(text)

    # Gathering and writing.

    def _note(self, level: Level, fact: str, text: str, **fields: object) -> None:
        self._gathered.append(Record(self._clock.seconds(), level, fact, text, fields))
        if self._thread is None:
            if self._sinks:
                self._hand_over()
        elif self._timer is None:
            self._timer = self._clock.callLater(GATHER, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        batch, self._gathered = self._gathered, []
        if not batch:
            return
        if self._thread is None:
            self._write(batch)
        elif self._batches.qsize() < BACKLOG:
            self._batches.put(batch)
        else:
            self._dropped += len(batch)

    def _write_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            if callable(batch):
                batch()
            else:
                self._write(batch)

    def _write(self, batch: list[Record]) -> None:
        if self._dropped:
            text = f"{self._dropped} log records were dropped, the log could not be written fast enough"
            self._dropped = 0
            batch.append(Record(batch[-1].when, "warning", "dropped", text, {}))
        for sink in self._sinks:
            try:
                sink.write(batch)
            except OSError:
                # There is nowhere left to say it; the next batch is tried again.
                self._dropped += len(batch)


def _times(steps: Steps) -> str:
    """What a filter's steps took, for people."""
    return f"({_ms(steps.seconds)} ms, {_ms(steps.longest)} ms at most)"


def _fields(steps: Steps) -> dict[str, object]:
    """The same for programs."""
    return {"steps": str(steps), "steps_ms": _ms(steps.seconds), "longest_ms": _ms(steps.longest)}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


# Addresses that one line of the log tells.
_MOST_NAMED = 20

_VERBS: dict[type, tuple[str, Level]] = {
    Delivered: ("deliver", "info"),
    Postponed: ("postpone", "notice"),
    Failed: ("fail", "notice"),
}
