"""The attributes of XCLIENT."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Refusal
from postoffice.smtp.xclient import BAD_ATTRIBUTES, parse_attributes


class Attributes(SynchronousTestCase):
    def test_good(self) -> None:
        for text, values in [
            ("", {}),
            ("NAME=client.example ADDR=192.0.2.9", {"NAME": "client.example", "ADDR": "192.0.2.9"}),
            ("addr=IPV6:2001:DB8::1  port=25", {"ADDR": "2001:db8::1", "PORT": "25"}),
            ("NAME=[UNAVAILABLE] ADDR=[tempunavail]", {"NAME": None, "ADDR": None}),
            ("PROTO=esmtp HELO=me.example LOGIN=alice+40example.org", {
                "PROTO": "ESMTP", "HELO": "me.example", "LOGIN": "alice@example.org"
            }),
            ("HELO=+5B192.0.2.1+5D DESTADDR=192.0.2.1 DESTPORT=65535", {
                "HELO": "[192.0.2.1]", "DESTADDR": "192.0.2.1", "DESTPORT": "65535"
            }),
        ]:  # fmt: skip
            self.assertEqual(parse_attributes(text), values, text)

    def test_A6_bad(self) -> None:
        for text in (
            *(
                "NAME",
                "NAME=",
                "=x",
                "FOO=x",
                "NAME=a NAME=b",
                "NAME=a=b",
                "NAME=a+b",
                "NAME=a+2b",
                "NAME=a+0D+0AX",
            ),
            *(
                "NAME=a+20b",
                "NAME=a(b",
                "NAME=.a",
                "NAME=" + "x" * 256,
                "ADDR=192.0.2.256",
                "ADDR=::1",
                "ADDR=IPV6:",
            ),
            *("ADDR=IPV6:192.0.2.1", "ADDR=localhost", "PORT=-1", "PORT=65536", "PORT=+31x", "PROTO=LMTP"),
            *("HELO=a+28b", "HELO=a+20b", "LOGIN=a+20b", "LOGIN=a+00", "DESTADDR=x", "DESTPORT=x"),
        ):
            refusal = self.assertRaises(Refusal, parse_attributes, text)
            self.assertEqual(refusal.reply, BAD_ATTRIBUTES, text)
