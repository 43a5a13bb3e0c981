"""The PROXY header: what is read of it, and that nothing else passes for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.smtp.proxy import LONGEST_LINE, MOST_FIELDS, SIGNATURE, Announced, BadHeader, read_header

V4 = bytes([192, 0, 2, 9, 198, 51, 100, 1]) + (4321).to_bytes(2, "big") + (25).to_bytes(2, "big")
V6 = bytes.fromhex("20010db8" + "0" * 23 + "1" + "20010db8" + "0" * 23 + "2") + b"\x10\xe1\0\x19"


def binary(command: int, family: int, fields: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(fields).to_bytes(2, "big") + fields


GOOD = [
    (b"PROXY TCP4 192.0.2.9 198.51.100.1 4321 25\r\n", Announced("192.0.2.9", 4321)),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Announced("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4321 25\r\n", Announced("2001:db8::1", 4321)),
    (b"PROXY TCP6 2001:DB8::1 ::ffff:192.0.2.1 1 2\r\n", Announced("2001:db8::1", 1)),
    (b"PROXY UNKNOWN\r\n", Announced()),
    (b"PROXY UNKNOWN 127.0.0.1 127.0.0.1 1 2\r\n", Announced()),
    (binary(0x21, 0x11, V4), Announced("192.0.2.9", 4321)),
    (binary(0x21, 0x21, V6), Announced("2001:db8::1", 4321)),
    (binary(0x21, 0x11, V4 + b"\x04\0\x01x"), Announced("192.0.2.9", 4321)),
    (binary(0x21, 0x21, V6 + bytes(MOST_FIELDS - 36)), Announced("2001:db8::1", 4321)),
    (binary(0x20, 0x11, V4), Announced()),
    (binary(0x20, 0x00, b""), Announced()),
    (binary(0x21, 0x00, b"anything"), Announced()),
    (binary(0x21, 0x31, bytes(216)), Announced()),
]
BAD = [
    *(b"EHLO x\r\n", b"\x16\x03\x01", b"\r\nQUIT", b"proxy TCP4 192.0.2.9 192.0.2.1 1 2\r\n", b"PROXY\r\n"),
    b"PROXY TCP4 192.0.2.9 192.0.2.1 1 2\n\r\n",
    b"PROXY TCP4  192.0.2.9 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.9 192.0.2.1 1\r\n",
    b"PROXY TCP4 192.0.2.9 192.0.2.1 1 2 \r\n",
    b"PROXY TCP4 192.0.2.9 192.0.2.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.9 192.0.2.1 65536 2\r\n",
    b"PROXY TCP4 192.0.2.9 192.0.2.1 1 -2\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.09 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.9 192.0.2 1 2\r\n",
    b"PROXY TCP4 ::1 192.0.2.1 1 2\r\n",
    b"PROXY TCP6 192.0.2.9 192.0.2.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
    b"PROXY UDP4 192.0.2.9 192.0.2.1 1 2\r\n",
    b"PROXY UNKNOWN\0\r\n",
    b"PROXY UNKNOWN " + b"x" * LONGEST_LINE,
    *(binary(0x11, 0x11, V4), binary(0x22, 0x11, V4), binary(0x21, 0x12, V4), binary(0x21, 0x11, V4[:11])),
    *(binary(0x21, 0x21, V6[:35]), binary(0x21, 0x11, bytes(MOST_FIELDS + 1))[:16], SIGNATURE[:11] + b"\r"),
]


class Headers(SynchronousTestCase):
    def test_good(self) -> None:
        for header, announced in GOOD:
            for rest in (b"", b"EHLO x\r\n", b"\r\n", b"PROXY UNKNOWN\r\n"):
                self.assertEqual(read_header(header + rest), (announced, rest), header)
            for at in range(len(header)):
                self.assertIsNone(read_header(header[:at]), (header, at))

    def test_C1_bad(self) -> None:
        for header in BAD:
            self.assertRaises(BadHeader, read_header, header)
            for at in range(len(header)):
                try:
                    self.assertIsNone(read_header(header[:at]), (header, at))
                except BadHeader:
                    break

    def test_a_line_of_the_greatest_length(self) -> None:
        line = b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 16) + b"\r\n"
        self.assertEqual(len(line), LONGEST_LINE)
        self.assertEqual(read_header(line), (Announced(), b""))
        self.assertRaises(BadHeader, read_header, b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 15) + b"\r\n")

    @given(
        st.one_of(st.binary(max_size=300), st.sampled_from(GOOD).map(lambda good: good[0][:20])),
        st.binary(max_size=60),
    )
    def test_anything(self, start: bytes, more: bytes) -> None:
        try:
            found = read_header(start + more)
        except BadHeader:
            return
        self.assertTrue(found is None or (start + more).endswith(found[1]))
        self.assertTrue(found is not None or len(start + more) < 16 + MOST_FIELDS)
