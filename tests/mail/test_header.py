"""Header blocks: where they end, what is in them, and our trace field."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.client import Client, Tls
from postoffice.mail.envelope import Envelope
from postoffice.mail.header import Headers, date, read_headers, received


class WhereItEnds(SynchronousTestCase):
    def test_the_empty_line_ends_it(self) -> None:
        block = b"Subject: a\r\nTo: b\r\n"
        self.assertEqual(read_headers(block + b"\r\nbody", final=False), Headers(block, True))

    def test_continuations_belong_to_it(self) -> None:
        block = b"Subject: a\r\n\tmore\r\n and more\r\n"
        self.assertEqual(read_headers(block + b"\r\n", final=False), Headers(block, True))

    def test_a_line_that_is_no_field_ends_it(self) -> None:
        block = b"Subject: a\r\n"
        self.assertEqual(read_headers(block + b"no field\r\n", final=False), Headers(block, False))

    def test_a_content_without_header(self) -> None:
        self.assertEqual(read_headers(b"hello\r\n", final=False), Headers(b"", False))
        self.assertEqual(read_headers(b"", final=True), Headers(b"", False))
        self.assertEqual(read_headers(b"From someone\r\n", final=False), Headers(b"", False))

    def test_it_may_go_on_until_the_end_is_seen(self) -> None:
        whole = b"Subject: a\r\n x\r\n\r\n"
        for cut in range(len(whole)):
            self.assertIsNone(read_headers(whole[:cut], final=False), whole[:cut])
        self.assertEqual(read_headers(whole, final=False), Headers(whole[:-2], True))
        self.assertEqual(read_headers(whole[:-2], final=True), Headers(whole[:-2], False))

    @given(st.lists(st.sampled_from([b"A: b", b" c", b"\r\n", b"x", b":", b"\n", b"From "])))
    def test_in_pieces_as_in_one(self, parts: list[bytes]) -> None:
        """What is found in a part of the content is what is found in the whole of it."""
        content = b"".join(parts)
        whole = read_headers(content, final=True)
        for cut in range(len(content)):
            early = read_headers(content[:cut], final=False)
            if early is not None:
                self.assertEqual(early, whole)


class WhatIsInIt(SynchronousTestCase):
    def test_names_and_values(self) -> None:
        headers = Headers(b"Received: a\r\n\tb\r\nRECEIVED: c\r\nX: d\r\n", True)
        self.assertEqual(headers.names(), [b"received", b"received", b"x"])
        self.assertEqual(headers.values(b"received"), [b"a b", b"c"])
        self.assertEqual(headers.values(b"absent"), [])

    def test_A7_hostile_names_are_only_bytes(self) -> None:
        block = b"__class__: a\r\n%s: b\r\n{0}: c\r\n" + b"n" * 500_000 + b": d\r\n"
        headers = read_headers(block + b"\r\n", final=False)
        assert headers is not None
        self.assertEqual(headers.names()[:3], [b"__class__", b"%s", b"{0}"])
        self.assertEqual(headers.values(b"%s"), [b"b"])

    def test_A7_a_hundred_thousand_fields(self) -> None:
        block = b"A: b\r\n" * 100_000
        headers = read_headers(block + b"\r\n", final=False)
        assert headers is not None
        self.assertEqual(len(headers.names()), 100_000)


class Trace(SynchronousTestCase):
    one = (Address("a", "example.org"),)

    def test_the_form(self) -> None:
        client = Client("192.0.2.1", 4, "host.example", "greeting", "ESMTP")
        self.assertEqual(
            received(client, "mx.example.org", "ID1", Envelope(None, self.one), 0.0),
            b"Received: from greeting (host.example [192.0.2.1])\r\n"
            b"\tby mx.example.org (Postoffice) with ESMTP id ID1\r\n"
            b"\tfor <a@example.org>;\r\n\t" + date(0).encode() + b"\r\n",
        )

    def test_over_tls(self) -> None:
        tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "mx.example.org")
        client = Client("192.0.2.1", helo="greeting", protocol="ESMTP", tls=tls)
        self.assertTrue(
            received(client, "mx.example.org", "ID1", Envelope(None, self.one), 0.0).startswith(
                b"Received: from greeting ([192.0.2.1])\r\n"
                b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
                b"\tby mx.example.org (Postoffice) with ESMTPS id ID1\r\n"
            )
        )
        # RFC 3848 has no keyword for the old greeting over TLS.
        self.assertIn(
            b" with SMTP id",
            received(evolve(client, protocol="SMTP"), "h", "I", Envelope(None, self.one), 0.0),
        )

    def test_logged_in(self) -> None:
        client = Client("192.0.2.1", protocol="ESMTP", login="alice@example.org")
        self.assertIn(b" with ESMTPA id", received(client, "h", "I", Envelope(None, self.one), 0.0))
        client = evolve(client, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256))
        self.assertIn(b" with ESMTPSA id", received(client, "h", "I", Envelope(None, self.one), 0.0))

    def test_no_for_with_several_recipients(self) -> None:
        line = received(Client("192.0.2.1"), "h", "I", Envelope(None, (*self.one, Address("b", "c"))), 0.0)
        self.assertNotIn(b"for <", line)

    def test_ipv6_and_local(self) -> None:
        self.assertIn(
            b"([IPv6:2001:db8::1])", received(Client("2001:db8::1"), "h", "I", Envelope(None, self.one), 0.0)
        )
        local = received(Client("", user="root", protocol="LOCAL"), "h", "I", Envelope(None, self.one), 0.0)
        self.assertTrue(local.startswith(b"Received: (from root on this machine)\r\n\tby h"))

    @given(st.text(), st.text(), st.text())
    def test_A6_whatever_the_client_calls_itself_it_stays_one_field(
        self, helo: str, name: str, local: str
    ) -> None:
        client = Client("192.0.2.1", helo=helo, name=name)
        line = received(client, "h", "I", Envelope(None, (Address(local, "x"),)), 0.0)
        self.assertEqual(len(Headers(line, True).names()), 1)
        self.assertNotIn(b"\n", line.replace(b"\r\n\t", b"")[:-2])
        self.assertNotIn(b"\0", line)

    def test_of_any_script(self) -> None:
        envelope = Envelope(None, (Address("böb", "x"),), smtputf8=True)
        client = Client("192.0.2.1", helo="h", protocol="ESMTP", login="ann")
        line = received(client, "h", "I", envelope, 0.0)
        self.assertIn("with UTF8SMTPA id I\r\n\tfor <böb@x>;".encode(), line)
        local = Client("", user="root", protocol="LOCAL")
        self.assertIn(b"with LOCAL id", received(local, "h", "I", envelope, 0.0))
