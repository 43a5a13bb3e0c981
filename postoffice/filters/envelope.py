"""What a filter has changed in an envelope: recipients added and removed, another sender.

Used by the chain when a filter's edits are taken. What a filter gives is a stranger's word: addresses go
through the one parser, and what it does not take is dropped and told, but for a sender, without which the
letter cannot go on (`BadSender`). A bare name and the same at our host are one recipient, as they are to the
directory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from postoffice.mail.address import Address
from postoffice.mail.envelope import Envelope, ReportRequest
from postoffice.mail.reply import Refusal
from postoffice.milter.edits import AddRecipient, ChangeSender, Edit, RemoveRecipient
from postoffice.smtp.commands import MAIL_PARAMETERS, RCPT_PARAMETERS
from postoffice.smtp.grammar import ParameterTable, parse_parameters, parse_path, parse_reverse_path

_KEPT = ("body", "ret", "envid", "smtputf8")


class BadSender(Exception):
    """A filter gave a sender that is no address."""


def edited_envelope(envelope: Envelope, edits: Iterable[Edit], host: str) -> tuple[Envelope, list[str]]:
    """The envelope after one filter's edits at `host`, and what was dropped and why. Errors: `BadSender`."""
    dropped: list[str] = []
    for edit in edits:
        match edit:
            case AddRecipient(address=text, parameters=parameters):
                envelope = _added(envelope, text, parameters, host, dropped)
            case RemoveRecipient(address=text):
                envelope = _removed(envelope, text, host)
            case ChangeSender(address=text, parameters=parameters):
                envelope = _changed(envelope, text, parameters, dropped)
    return envelope, dropped


def _added(envelope: Envelope, text: bytes, parameters: bytes, host: str, dropped: list[str]) -> Envelope:
    try:
        address, rest = parse_path(text.strip())
    except Refusal:
        rest = text
    if rest:
        dropped.append(f"a recipient that is no address: {text[:80]!r}")
        return envelope
    key = address.local, _domain(address, host)
    if any((one.local, _domain(one, host)) == key for one in envelope.recipients):
        return envelope
    request = ReportRequest(**_parameters(parameters, RCPT_PARAMETERS, dropped))
    requests = envelope.requests
    if request != ReportRequest():
        requests = {**requests, address: request}
    return evolve(envelope, recipients=(*envelope.recipients, address), requests=requests)


def _removed(envelope: Envelope, text: bytes, host: str) -> Envelope:
    """Without the recipient; with that very local part if there is one, else with it in any case."""
    try:
        gone, rest = parse_path(text.strip())
    except Refusal:
        return envelope
    domain = _domain(gone, host)
    here = [one for one in envelope.recipients if _domain(one, host) == domain and not rest]
    found = [one for one in here if one.local == gone.local] or [
        one for one in here if one.local.lower() == gone.local.lower()
    ]
    return evolve(
        envelope,
        recipients=tuple(one for one in envelope.recipients if one not in found),
        # Who is added again may be so on other terms.
        requests={one: request for one, request in envelope.requests.items() if one not in found},
    )


def _domain(address: Address, host: str) -> str:
    """What the domain of an address is compared by."""
    return address.domain_key or host.lower()


def _changed(envelope: Envelope, text: bytes, parameters: bytes, dropped: list[str]) -> Envelope:
    sender: Address | None
    try:
        sender, rest = parse_reverse_path(text.strip() or b"<>")
    except Refusal:
        rest = text
    if rest:
        raise BadSender(f"a sender that is no address: {text[:80]!r}")
    values = _parameters(parameters, MAIL_PARAMETERS, dropped)
    known: dict[str, Any] = {name: values[name] for name in _KEPT if name in values}
    dropped += (f"a parameter of no effect here: {name.upper()}" for name in values if name not in _KEPT)
    return evolve(envelope, sender=sender, **known)


def _parameters(text: bytes, table: ParameterTable, dropped: list[str]) -> dict[str, Any]:
    """Those that can be read, each by itself."""
    values: dict[str, Any] = {}
    for word in text.split():
        try:
            values.update(parse_parameters(word, table))
        except Refusal:
            dropped.append(f"a parameter that is none: {word[:80]!r}")
    return values
