"""What filters ask to have changed, as values, and the changes to header and body themselves.

A filter's edits are collected in the order they came and applied together when its last word is that the
letter may pass; until then the letter is as it was. Names and numbers mean what they mean to libmilter and to
the filters in use; where mail servers differ, the comments say whom we follow. Nothing here raises: an edit
that would spoil the header block is dropped, and its reason returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import define, frozen

LINE_LIMIT = 998
"""Octets of a line without its end (RFC 5322 section 2.1.1)."""

_field = re.compile(rb"([!-9;-~]++)([ \t]*+):([^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))")
_name = re.compile(rb"[!-9;-~]+\Z").match


@frozen
class Field:
    """One field of a header block: name, blanks in front of the colon, and all that is behind it.

    `value` has CRLF in its folds and none at its end. The one field that is `hidden` is never shown to
    filters: our own Received.
    """

    name: bytes
    gap: bytes
    value: bytes
    hidden: bool = False

    def __bytes__(self) -> bytes:
        return b"%b%b:%b\r\n" % (self.name, self.gap, self.value)

    def shown(self, with_blank: bool) -> bytes:
        """The value as filters are told it: LF in folds, its first blank only for those who asked."""
        value = self.value.replace(b"\r\n", b"\n")
        return value if with_blank or value[:1] != b" " else value[1:]


def fields_of(block: bytes) -> list[Field]:
    """The fields of a header block as `read_headers` finds it; their bytes are the block."""
    return [Field(found[1], found[2], found[3].removesuffix(b"\r\n")) for found in _field.finditer(block)]


@frozen
class AddHeader:
    """A field at the end of the header."""

    name: bytes
    value: bytes


@frozen
class InsertHeader:
    """A field at a place of the header as it will be delivered: 0 is above our Received, 1 right below it."""

    index: int
    name: bytes
    value: bytes


@frozen
class ChangeHeader:
    """Another value for one of the fields of a name, counted from 1; with an empty one it goes."""

    index: int
    name: bytes
    value: bytes


@frozen
class ReplaceBody:
    """Another body, or a further piece of it."""

    data: bytes


@frozen
class AddRecipient:
    """One more recipient, with ESMTP parameters."""

    address: bytes
    parameters: bytes = b""


@frozen
class RemoveRecipient:
    """One recipient less."""

    address: bytes


@frozen
class ChangeSender:
    """Another sender, with ESMTP parameters."""

    address: bytes
    parameters: bytes = b""


@frozen
class Hold:
    """The letter is set aside until an operator releases it."""

    reason: bytes


HeaderEdit = AddHeader | InsertHeader | ChangeHeader
Edit = HeaderEdit | ReplaceBody | AddRecipient | RemoveRecipient | ChangeSender | Hold


@define
class _Slot:
    """A place of the header: a field that was deleted keeps its number while the same filter goes on."""

    field: Field
    gone: bool = False


def edited_header(
    fields: Iterable[Field], edits: Iterable[Edit], with_blank: bool
) -> tuple[tuple[Field, ...], list[str]]:
    """The fields after one filter's edits, and why edits were dropped.

    `with_blank` says that the filter's values bring the blank behind the colon themselves, if any.
    """
    slots = [_Slot(field) for field in fields]
    dropped: list[str] = []
    for edit in edits:
        if not isinstance(edit, AddHeader | InsertHeader | ChangeHeader):
            continue
        if not _name(edit.name):
            dropped.append(f"not the name of a header field: {edit.name[:80]!r}")
            continue
        value = clean_value(edit.value, len(edit.name) + (1 if with_blank else 2))
        new = Field(edit.name, b"", value if with_blank else b" " + value)
        match edit:
            case AddHeader():
                slots.append(_Slot(new))
            case InsertHeader(index=index):
                slots.insert(_place(slots, index), _Slot(new))
            case ChangeHeader(index=index):
                _change(slots, index, new, not edit.value)
    return tuple(slot.field for slot in slots if not slot.gone), dropped


def _place(slots: Sequence[_Slot], index: int) -> int:
    """Where in the list the field of this number among those to be delivered is."""
    for place, slot in enumerate(slots):
        if slot.gone:
            continue
        if not index:
            return place
        index -= 1
    return len(slots)


def _change(slots: list[_Slot], index: int, new: Field, delete: bool) -> None:
    """As sendmail does it: numbers stay, a number beyond the last appends. Postfix would count anew.

    Number 0 is the first that is still there, which is how opendkim removes one after the other.
    """
    key = new.name.lower()
    named = [slot for slot in slots if slot.field.name.lower() == key and not slot.field.hidden]
    if not index:
        named = [slot for slot in named if not slot.gone] or named
    number = max(index, 1) - 1
    if number < len(named):
        slot = named[number]
        slot.gone = delete
        if not delete:
            slot.field = new
    elif not delete:
        slots.append(_Slot(new))


def clean_value(value: bytes, used: int = 0) -> bytes:
    """A filter's value as it can stand in a header block: CRLF in front of each continuation, no other CR.

    No line of it can begin a field or end the block, and `used` octets in front of it are counted in the
    length of its first line; longer lines than RFC 5322 allows are folded at a blank, where there is one.
    """
    first, *more = value.replace(b"\0", b"").replace(b"\r", b"").rstrip(b"\n").split(b"\n")
    # A line of blanks alone would end the header for some readers.
    continued = (line if line[:1] in (b" ", b"\t") else b"\t" + line for line in more if line.strip(b" \t"))
    lines = [first, *continued]
    done: list[bytes] = []
    for line in lines:
        room = LINE_LIMIT - (0 if done else used)
        while len(line) > room:
            at = max(line.rfind(b" ", 1, room + 1), line.rfind(b"\t", 1, room + 1))
            if at < 1 or not line[:at].strip(b" \t") or not line[at:].strip(b" \t"):
                break
            done.append(line[:at])
            line, room = line[at:], LINE_LIMIT
        done.append(line)
    return b"\r\n".join(done)


def replaced_body(edits: Iterable[Edit]) -> bytes | None:
    """The body that a filter has put in the place of the one there was; None where it has not."""
    pieces = [edit.data for edit in edits if isinstance(edit, ReplaceBody)]
    if not pieces:
        return None
    body = b"".join(pieces).replace(b"\r", b"").replace(b"\n", b"\r\n")
    return body if not body or body.endswith(b"\n") else body + b"\r\n"
