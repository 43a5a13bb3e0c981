from __future__ import annotations

import struct

import dns.message
import dns.rcode
from dns.rdatatype import RdataType
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import MailExchanger
from postoffice.services.dns.message import BadReply, Found, Nonexistent, Question, is_reply, read
from tests.services.dns.network import SOA, reply
from tests.support import counted

ASKED = Question("example", RdataType.MX)
QUERY = ASKED.query(7)
QUESTION = QUERY[12 : 12 + 9 + 4]
BUDGET = 600_000
"""Calls that reading a reply may take: some 40 ms, where the worst replies took 600 ms unguarded."""


def record(name: bytes, kind: int, data: bytes, group: int = 1) -> bytes:
    return name + struct.pack("!HHIH", kind, group, 60, len(data)) + data


def raw(*records: bytes, count: int | None = None, authority: int = 0) -> bytes:
    answers = len(records) if count is None else count
    return struct.pack("!HHHHHH", 7, 0x8180, 1, answers, authority, 0) + QUESTION + b"".join(records)


class Hostile(SynchronousTestCase):
    """A10: replies that are made to hurt cost a bad answer and little time."""

    def bounded(self, wire: bytes) -> Found | Nonexistent | None:
        """What is read, None for a bad reply. Work is counted in calls, which do not depend on the load."""

        def attempt() -> Found | Nonexistent | None:
            try:
                return read(ASKED, wire)
            except BadReply:
                return None

        result, calls = counted(attempt)
        self.assertLess(calls, BUDGET)
        return result

    def test_A10_pointer_cycles(self) -> None:
        here = len(raw())
        for pointer in (here, here + 1, here + 2, 0x3FFF):
            name = struct.pack("!H", 0xC000 | pointer)
            self.assertIsNone(self.bounded(raw(record(name, 15, b"\0\1" + name))))

    def test_A10_pointer_chains(self) -> None:
        start = len(raw()) + 12
        chain = b"".join(struct.pack("!H", 0xC000 | (start + 2 * i - 2 if i else 12)) for i in range(8000))
        last = struct.pack("!H", 0xC000 | min(start + len(chain) - 2, 0x3FFF))
        self.bounded(raw(record(b"\xc0\x0c", 999, chain), *[record(last, 15, b"\0\1" + last)] * 300))

    def test_A10_names_of_many_labels(self) -> None:
        deep = b"\1a" * 120 + b"\xc0\x0c"
        self.bounded(raw(*[record(deep, 15, b"\0\1" + deep)] * 250))
        self.bounded(
            raw(*[record(b"\xc0\x0c", 15, struct.pack("!H", i) + b"\1b" * 120 + b"\0") for i in range(250)])
        )
        soa = record(deep, 6, deep + deep + b"\0" * 20)
        self.bounded(raw(*[soa] * 80, count=0, authority=80))

    def test_A10_a_thousand_exchangers(self) -> None:
        found = self.bounded(reply(QUERY, [f"example 60 MX {i} m{i}.example." for i in range(1000)]))
        assert isinstance(found, Found)
        self.assertEqual(len(found.values), 100)

    def test_A10_large_text(self) -> None:
        strings = record(b"\xc0\x0c", 16, b"\0" * 60000)
        mx = record(b"\xc0\x0c", 15, b"\0\1" + b"\1m\0")
        found = self.bounded(raw(strings, mx))
        self.assertEqual(found, Found((MailExchanger(1, "m"),), 60))

    def test_A10_counts_that_lie(self) -> None:
        self.assertIsNone(self.bounded(raw(count=65535)))
        self.assertIsNone(self.bounded(raw(count=1)))

    def test_A10_many_types_and_classes(self) -> None:
        records = [record(b"\xc0\x0c", 300 + i, b"x" * 20, i) for i in range(1000)]
        self.assertEqual(self.bounded(raw(*records[:100])), Found((), 0))
        # The rest is not read, and might have been the answer.
        self.assertIsNone(self.bounded(raw(*records)))

    def test_A10_opcode(self) -> None:
        wire = bytearray(raw())
        wire[2] |= 0x28
        self.assertIsNone(self.bounded(bytes(wire)))

    @given(st.binary(max_size=600))
    @settings(deadline=None)
    def test_A10_any_bytes(self, data: bytes) -> None:
        for wire in (data, raw(data, count=3), raw(record(b"\xc0\x0c", 15, data))):
            if is_reply(QUERY, wire):
                try:
                    read(ASKED, wire)
                except BadReply:
                    pass

    @given(st.data())
    @settings(deadline=None)
    def test_A10_one_octet_changed(self, data: st.DataObject) -> None:
        wire = bytearray(reply(QUERY, ["example 60 CNAME x.example.", "x.example 60 MX 1 m.example."], [SOA]))
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
        try:
            read(ASKED, bytes(wire))
        except BadReply:
            pass


class Reading(SynchronousTestCase):
    def test_names_are_text_without_raw_octets(self) -> None:
        host = b"\5a\r\n\0\xff\0"
        found = read(ASKED, raw(record(b"\xc0\x0c", 15, b"\0\1" + host)))
        self.assertEqual(found, Found((MailExchanger(1, "a\\013\\010\\000\\255"),), 60))

    def test_null_mx_among_others_is_nothing(self) -> None:
        found = read(ASKED, reply(QUERY, ["example 60 MX 0 .", "example 60 MX 5 m.example."]))
        self.assertEqual(found, Found((MailExchanger(5, "m.example"),), 60))

    def test_other_names_in_the_answer_are_not_believed(self) -> None:
        found = read(ASKED, reply(QUERY, ["other 60 MX 1 evil.example."], [SOA]))
        self.assertEqual(found, Found((), 300))

    def test_the_negative_ttl_is_the_smaller_one(self) -> None:
        soa = "example 20 SOA ns.example. root.example. 1 2 3 4 300"
        self.assertEqual(read(ASKED, reply(QUERY, (), [soa], dns.rcode.NXDOMAIN)), Nonexistent(20))
        self.assertEqual(read(ASKED, reply(QUERY, (), [SOA], dns.rcode.NXDOMAIN)), Nonexistent(300))
        self.assertEqual(read(ASKED, reply(QUERY)), Found((), 0))

    def test_an_alias_and_no_records_is_an_answer_when_vouched_for(self) -> None:
        found = read(ASKED, reply(QUERY, ["example 60 CNAME x.example."], [SOA]))
        self.assertEqual(found, Found((), 60, None, 1))

    def test_query(self) -> None:
        asked = dns.message.from_wire(QUERY)
        self.assertEqual((asked.id, asked.edns, asked.payload), (7, 0, 1232))
        self.assertEqual(str(asked.question[0]), "example. IN MX")

    def test_replies_may_differ_in_case_only(self) -> None:
        self.assertTrue(is_reply(QUERY, raw().replace(b"example", b"eXAMPLE")))
        self.assertFalse(is_reply(QUERY, raw().replace(b"example", b"examplf")))
        self.assertFalse(is_reply(QUERY, QUERY))
        empty = struct.pack("!HHHHHH", 7, 0x8180, 0, 0, 0, 0)
        self.assertFalse(is_reply(QUERY, empty))
        self.assertTrue(is_reply(QUERY, empty[:3] + b"\x85" + empty[4:]))
