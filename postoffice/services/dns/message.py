"""One question to the DNS and what a reply to it says: from values to bytes and back, without I/O.

The transport asks `is_reply` about everything that arrives; the resolver reads replies with `read`, which
either understands one or raises `BadReply`, whatever the bytes are. Replies come from strangers. What
dnspython is given to parse is therefore cut down first: sections and record counts that nobody needs are
left out and records of other types and classes are made opaque, so that no reply costs more than some
milliseconds.
RFC 1035 section 4, RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 7505 (null MX).
"""

from __future__ import annotations

import struct
from itertools import islice

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from attrs import frozen
from dns.rdatatype import RdataType

from postoffice.interfaces import MailExchanger, NoSuchDomain
from postoffice.services.dns.names import canonical

PAYLOAD = 1232
"""Octets of a UDP reply that pass every path unfragmented."""

MOST_ALIASES = 8
MOST_EXCHANGERS = 100
MOST_ADDRESSES = 64
MOST_TEXTS = 16
LONGEST_TEXT = 4096
_MOST_ANSWER = 128
_MOST_AUTHORITY = 16
_MOST_LABELS = 1200
"""In all names of a reply: a label costs dnspython some 20 microseconds."""

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_OPAQUE = 65280
_USED = frozenset({RdataType.CNAME, RdataType.SOA, RdataType.NS})
_NAME_AT = {RdataType.MX: 2, RdataType.CNAME: 0, RdataType.NS: 0, RdataType.PTR: 0, RdataType.SOA: 0}
_REFUSALS = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})


class BadReply(Exception):
    """The server's reply is of no use; the text says why and contains nothing of the reply itself."""


@frozen
class Question:
    """What is asked: a canonical name and MX, A, AAAA, PTR or TXT."""

    name: str
    kind: RdataType

    def __str__(self) -> str:
        return f"{self.name} {self.kind.name}"

    def query(self, number: int) -> bytes:
        """The message that asks it, recursively, with `number` (16 bits) as its id."""
        return dns.message.make_query(
            self.name + ".", self.kind, use_edns=0, payload=PAYLOAD, id=number, flags=dns.flags.RD
        ).to_wire()


@frozen
class Found:
    """The name exists. `values` are its records (none: it has none of this kind), MX sorted by preference.

    `alias` is set where the reply's CNAMEs, `aliases` of them, lead to a name of which it says nothing.
    `ttl` is in seconds.
    """

    values: tuple[MailExchanger, ...] | tuple[str, ...]
    ttl: float
    alias: str | None = None
    aliases: int = 0


@frozen
class Nonexistent:
    """There is no such name, for `ttl` seconds."""

    ttl: float


@frozen
class Unanswered:
    """Nobody gave a usable answer; `why` is for operators."""

    why: str


Known = Found | Nonexistent | Unanswered


def is_reply(query: bytes, data: bytes) -> bool:
    """Whether `data` answers `query`: same id, same question (which an error may leave out)."""
    if len(data) < _HEADER.size or data[:2] != query[:2] or not data[2] & 0x80:
        return False
    if data[4:6] == b"\0\0":
        return data[3] & 0x0F in _REFUSALS
    end = query.index(b"\0", _HEADER.size) + 5
    return data[4:6] == b"\0\1" and data[_HEADER.size : end].lower() == query[_HEADER.size : end].lower()


def is_truncated(reply: bytes) -> bool:
    """Whether a reply says that the whole of it has to be fetched over TCP."""
    return bool(reply[2] & 0x02)


def read(question: Question, reply: bytes) -> Found | Nonexistent:
    """What a reply says. Errors: `BadReply`."""
    code = reply[3] & 0x0F
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise BadReply(dns.rcode.to_text(dns.rcode.Rcode(code)))
    if is_truncated(reply):
        raise BadReply("truncated")
    try:
        wire, whole = _cut_down(question, reply)
        said = _said(question, dns.message.from_wire(wire, ignore_trailing=True))
    except BadReply:
        raise
    except Exception as error:
        # Whatever a parser of hostile bytes raises means the same: this server is of no use.
        raise BadReply(f"malformed reply ({type(error).__name__})") from error
    if not whole and not (isinstance(said, Found) and said.values):
        # What was left out might have been the answer.
        raise BadReply("more in the reply than is read")
    return said


def _cut_down(question: Question, reply: bytes) -> tuple[bytes, bool]:
    """The reply with few records and labels and no type that is not used, and whether its answer is whole."""
    number, flags, questions, answers, authorities, _ = _HEADER.unpack_from(reply)
    if flags & 0x7800:
        raise BadReply("not a reply to a query")
    message = bytearray(reply)
    used = {*_USED, question.kind}
    place = _past_name(reply, _HEADER.size) + 4
    labels = 0
    kept = [0, 0]
    for section, most in enumerate((min(answers, _MOST_ANSWER), min(authorities, _MOST_AUTHORITY))):
        for _ in range(most):
            labels += _labels(reply, place)
            place = _past_name(reply, place)
            kind, group, ttl, size = _RECORD.unpack_from(reply, place)
            data = place + _RECORD.size
            if kind not in used or group != dns.rdataclass.IN:
                _RECORD.pack_into(message, place, _OPAQUE, dns.rdataclass.IN, ttl, size)
            elif kind in _NAME_AT:
                labels += _labels(reply, data + _NAME_AT[kind])
                if kind == RdataType.SOA:
                    labels += _labels(reply, _past_name(reply, data))
            if labels > _MOST_LABELS:
                break
            place = data + size
            kept[section] += 1
        if kept[section] < (answers, authorities)[section]:
            break
    _HEADER.pack_into(message, 0, number, flags, questions, *kept, 0)
    return bytes(message), kept[0] == answers


def _past_name(data: bytes, place: int) -> int:
    while 0 < (length := data[place]) < 64:
        place += length + 1
    return place + 1 if length == 0 else place + 2


def _labels(data: bytes, place: int) -> int:
    """How many labels and pointers a name is made of: what it costs to parse it."""
    count = 0
    while (length := data[place]) and count <= _MOST_LABELS:
        place = place + length + 1 if length < 64 else (length & 0x3F) << 8 | data[place + 1]
        count += 1
    return count


def _said(question: Question, message: dns.message.Message) -> Found | Nonexistent:
    sets = {(each.name, each.rdtype): each for each in message.answer}
    name = dns.name.from_text(question.name + ".")
    ttl = float("inf")
    aliases = 0
    while (records := sets.get((name, question.kind))) is None and aliases <= MOST_ALIASES:
        link = sets.get((name, RdataType.CNAME))
        if link is None:
            break
        name = link[0].target
        ttl = min(ttl, link.ttl)
        aliases += 1
    if records is not None:
        return Found(_values(question.kind, records), min(ttl, records.ttl), aliases=aliases)
    negative = _negative_ttl(message)
    if message.rcode() == dns.rcode.NXDOMAIN:
        return Nonexistent(min(ttl, negative or 0))
    if negative is None and aliases:
        return _elsewhere(name, ttl, aliases)
    if negative is None and _is_referral(message):
        raise BadReply("a referral: the server does not resolve for us")
    return Found((), min(ttl, negative or 0), aliases=aliases)


def _elsewhere(name: dns.name.Name, ttl: float, aliases: int) -> Found | Nonexistent:
    try:
        return Found((), ttl, canonical(_text(name)), aliases)
    except NoSuchDomain:
        return Nonexistent(ttl)


def _values(kind: RdataType, records: dns.rrset.RRset) -> tuple[MailExchanger, ...] | tuple[str, ...]:
    match kind:
        case RdataType.MX:
            every = (MailExchanger(each.preference, _text(each.exchange)) for each in records)
            exchangers = sorted(islice(every, MOST_EXCHANGERS), key=lambda each: each.preference)
            # A null MX among others means nothing (RFC 7505 section 3).
            return tuple(each for each in exchangers if each.host) or tuple(exchangers[:1])
        case RdataType.PTR:
            return tuple(_text(each.target) for each in islice(records, MOST_ADDRESSES))
        case RdataType.TXT:
            texts = (b"".join(each.strings) for each in islice(records, MOST_TEXTS))
            return tuple(text[:LONGEST_TEXT].decode("latin-1") for text in texts)
        case _:
            return tuple(each.address for each in islice(records, MOST_ADDRESSES))


def _text(name: dns.name.Name) -> str:
    """A name as text: lower case, no final dot, odd octets escaped; "" for the root."""
    return name.to_text(omit_final_dot=True).lower().removesuffix(".")


def _negative_ttl(message: dns.message.Message) -> float | None:
    """How long "there is none" counts in seconds; None where the reply does not vouch for it."""
    for records in message.authority:
        if records.rdtype == RdataType.SOA:
            return float(min(records.ttl, records[0].minimum))
    return None


def _is_referral(message: dns.message.Message) -> bool:
    answers_itself = message.flags & (dns.flags.AA | dns.flags.RA)
    return not answers_itself and any(each.rdtype == RdataType.NS for each in message.authority)
