"""What two sides of the milter protocol agree on: our offer, the filter's answer, what follows.

Asked once a connection. A filter that asks for more than it was offered is refused for actions (as
libmilter's other users do) and believed for protocol flags: it will keep to them whether we like it or not.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from attrs import field, frozen

from postoffice.milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Edit,
    Hold,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from postoffice.milter.packets import OPTIONS, Malformed, packet

# What a filter may ask for at the end of a letter.
ADD_HEADERS, CHANGE_BODY, ADD_RECIPIENTS, REMOVE_RECIPIENTS, CHANGE_HEADERS = 0x01, 0x02, 0x04, 0x08, 0x10
QUARANTINE, CHANGE_SENDER, ADD_RECIPIENTS_WITH = 0x20, 0x40, 0x80

# Flags of the protocol that are not about one command; those are in the engine's table.
SKIPS = 0x400
REFUSED_RECIPIENTS = 0x800
LEADING_BLANK = 0x100000
_SIZES = {0x10000000: (1 << 18) - 1, 0x20000000: (1 << 20) - 1}
_INTERNAL = 0x70000000

VERSIONS: Mapping[int, tuple[int, int]] = {
    2: (0x03F, 0x7F),
    3: (0x03F, 0x17F),
    4: (0x03F, 0x37F),
    6: (0x1FF, 0x1FFFFF),
}
"""The actions and the flags that each version of the protocol knows."""

_ACTIONS: Mapping[type, int] = {
    AddHeader: ADD_HEADERS,
    InsertHeader: ADD_HEADERS,
    ChangeHeader: CHANGE_HEADERS,
    ReplaceBody: CHANGE_BODY,
    AddRecipient: ADD_RECIPIENTS,
    RemoveRecipient: REMOVE_RECIPIENTS,
    ChangeSender: CHANGE_SENDER,
    Hold: QUARANTINE,
}

SMALLEST_ROOM = 65535
"""Octets of data in one packet, unless more was agreed on."""

_ANSWER = struct.Struct(">III")
_STAGE = struct.Struct(">I")

STAGES: Mapping[int, bytes] = {0: b"C", 1: b"H", 2: b"M", 3: b"R", 4: b"T", 5: b"E", 6: b"N"}
"""The command whose macros a list names, by the number that stands in front of it."""


def _names(*texts: str) -> tuple[str, ...]:
    return tuple(" ".join(texts).split())


_TLS = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer} {verify} {tls_sni}"
_SENDER = "{auth_type} {auth_authen} {auth_ssf} {auth_author} {mail_mailer} {mail_host} {mail_addr}"

MACRO_LISTS: Mapping[bytes, tuple[str, ...]] = {
    b"C": _names(
        "j _ v b Z {daemon_name} {daemon_addr} {daemon_port} {if_name} {if_addr}",
        "{client_addr} {client_name} {client_port} {client_ptr} {client_resolve} {client_connections}",
    ),
    b"H": _names(_TLS, "s"),
    b"M": _names("i r s b v Z", _SENDER, _TLS),
    b"R": _names("i {rcpt_mailer} {rcpt_host} {rcpt_addr}"),
    b"T": _names("i {nrcpts}"),
    b"N": _names("i"),
    b"E": _names("i {msg_id} {msg_size}"),
}
"""The macros that filters are told unless they name others: what sendmail and Postfix tell, and what is read.

What can change between the end of the header and the end of the letter must not be in the list of the former,
which libmilter looks at first.
"""


CHANGES: Mapping[str, int] = {
    "add-headers": ADD_HEADERS,
    "change-headers": CHANGE_HEADERS,
    "change-body": CHANGE_BODY,
    "add-recipients": ADD_RECIPIENTS | ADD_RECIPIENTS_WITH,
    "remove-recipients": REMOVE_RECIPIENTS,
    "change-sender": CHANGE_SENDER,
    "quarantine": QUARANTINE,
}
"""What an administrator may deny a filter, by the words of the configuration."""


@frozen
class Offer:
    """What the administrator lets a filter have. `room` is the data of one packet, in octets.

    `denied` are actions that it may not take besides those that its version does not know; with
    `ignore_denied` it may ask for them, and does not get them.
    """

    version: int = 6
    room: int = SMALLEST_ROOM
    ignore_denied: bool = False
    denied: int = 0

    @property
    def actions(self) -> int:
        """The flags of the actions that are offered."""
        return VERSIONS[self.version][0] & ~self.denied

    def __bytes__(self) -> bytes:
        _, flags = VERSIONS[self.version]
        sizes = sum(flag for flag, size in _SIZES.items() if size == self.room)
        return packet(OPTIONS, _ANSWER.pack(self.version, self.actions, flags | sizes))

    def allows(self, edit: Edit) -> bool:
        """Whether an edit is among the actions that are offered."""
        return bool(self.actions & action_of(edit))


@frozen
class Agreement:
    """What was agreed on: flags as the filter set them, macros by command, and notes for an operator."""

    version: int = 6
    actions: int = 0
    flags: int = 0
    room: int = SMALLEST_ROOM
    macros: Mapping[bytes, tuple[str, ...]] = MACRO_LISTS
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"version {self.version}, actions {self.actions:#x}, protocol {self.flags:#x}"


def action_of(edit: Edit) -> int:
    """The flag of the action that an edit is."""
    if type(edit) is AddRecipient and edit.parameters:
        return ADD_RECIPIENTS_WITH
    return _ACTIONS[type(edit)]


def agreement_of(offer: Offer, data: bytes) -> Agreement:
    """What a filter's answer to our offer comes to. Errors: `Malformed`, where it cannot be worked with."""
    if len(data) < _ANSWER.size:
        raise Malformed("negotiation: the answer is too short")
    version, actions, flags = _ANSWER.unpack_from(data)
    if not 2 <= version <= offer.version:
        raise Malformed(f"negotiation: it speaks version {version}, and we offered {offer.version}")
    offered = offer.actions
    notes: list[str] = []
    if actions & ~offered:
        if not offer.ignore_denied:
            raise Malformed(f"negotiation: it asks for actions {actions & ~offered:#x} that were not offered")
        notes.append(f"it asks for actions {actions & ~offered:#x} that it will not get")
        actions &= offered
    room = max(
        (size for flag, size in _SIZES.items() if flags & flag and size <= offer.room), default=SMALLEST_ROOM
    )
    flags &= ~_INTERNAL
    unknown = flags & ~VERSIONS[6][1]
    if unknown:
        notes.append(f"it asks for unknown protocol flags {unknown:#x}")
    macros = {**MACRO_LISTS, **_macro_lists(data[_ANSWER.size :], notes)}
    return Agreement(version, actions, flags & ~unknown, room, macros, tuple(notes))


def _macro_lists(data: bytes, notes: list[str]) -> dict[bytes, tuple[str, ...]]:
    """The lists behind the answer: one that is there replaces ours, an empty one by nothing."""
    lists: dict[bytes, tuple[str, ...]] = {}
    while len(data) >= _STAGE.size:
        (stage,) = _STAGE.unpack_from(data)
        text, _, data = data[_STAGE.size :].partition(b"\0")
        command = STAGES.get(stage)
        if command is None:
            notes.append(f"it names macros for an unknown stage {stage}")
            continue
        names = re.split(r"[ ,]+", text.decode("latin-1"))
        lists[command] = tuple(name for name in names if name)
    if data:
        notes.append("there is something behind its macros")
    return lists
