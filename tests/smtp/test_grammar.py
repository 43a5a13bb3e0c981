"""Paths and parameters: what RFC 5321 section 4.1 lets through, and nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address, path
from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp import grammar
from postoffice.smtp.commands import MAIL_PARAMETERS, RCPT_PARAMETERS
from postoffice.smtp.grammar import parse_address, parse_parameters, parse_path, parse_reverse_path

LOCAL_64 = b"l" * 64
LABEL_63 = b"d" * 63
DOMAIN_189 = b".".join([LABEL_63, LABEL_63, b"d" * 61])

GOOD = [
    (b"<user@example.org>", "user", "example.org"),
    (b"<User@Example.ORG>", "User", "Example.ORG"),
    (b"<user>", "user", ""),
    (b"<Postmaster>", "Postmaster", ""),
    (b"user@example.org", "user", "example.org"),
    (b"user", "user", ""),
    (b"<a.b+c=d@sub-domain.example.org>", "a.b+c=d", "sub-domain.example.org"),
    (b"<!#$%&'*+-/=?^_`{|}~@example.org>", "!#$%&'*+-/=?^_`{|}~", "example.org"),
    (b"<user%inner.example@example.org>", "user%inner.example", "example.org"),
    (b"<host!user@example.org>", "host!user", "example.org"),
    (b"<host!user>", "user", "host"),
    (b"host.example!other!user", "other!user", "host.example"),
    (b"<!user>", "!user", ""),
    (b"<host!>", "host!", ""),
    (b"<*!user>", "*!user", ""),
    (b'<"host!user">', "host!user", ""),
    (b"<user@localhost>", "user", "localhost"),
    (b"<user@_host.example_1.org>", "user", "_host.example_1.org"),
    (b"<user@1.example>", "user", "1.example"),
    (b'<"two words"@example.org>', "two words", "example.org"),
    (b'<"a@b"@c>', "a@b", "c"),
    (b'<"a\\"b\\\\c\\d"@example.org>', 'a"b\\cd', "example.org"),
    (b'<"quoted">', "quoted", ""),
    (b'"quoted"@example.org', "quoted", "example.org"),
    (b"<user@[192.0.2.1]>", "user", "[192.0.2.1]"),
    (b"<user@[IPv6:2001:db8::1]>", "user", "[IPv6:2001:db8::1]"),
    (b"<user@[ipv6:::ffff:192.0.2.1]>", "user", "[ipv6:::ffff:192.0.2.1]"),
    (b"<@a.example:user@c.example>", "user", "c.example"),
    (b"<@a.example,@b.example:user@c.example>", "user", "c.example"),
    (b"<" + LOCAL_64 + b"@example.org>", "l" * 64, "example.org"),
    (b"<" + b"l" * 242 + b"@example.org>", "l" * 242, "example.org"),
    (b"<" + LOCAL_64 + b"@" + DOMAIN_189 + b">", "l" * 64, DOMAIN_189.decode()),
]

BAD = [
    b"",
    b"<>",
    b"< >",
    b"<",
    b">",
    b"<user@example.org",
    b"user@example.org>",
    b"<<user@example.org>>",
    b"<user@example.org>x",
    b"<user@example.org><user@example.org>",
    b"<user@>",
    b"<@example.org>",
    b"@example.org",
    b"<user@@example.org>",
    b"<user@a@b>",
    b"<a@b@c>",
    b"<us er@example.org>",
    b"< user@example.org>",
    b"<user@example.org >",
    b"<.user@example.org>",
    b"<user.@example.org>",
    b"<us..er@example.org>",
    b"<user@.example.org>",
    b"<user@example..org>",
    b"<user@example.org.>",
    b"<user@-example.org>",
    b"<user@example-.org>",
    b"<user@exa$mple.org>",
    b"<user@" + LABEL_63 + b"d.org>",
    b"<user(comment)@example.org>",
    b"(comment)<user@example.org>",
    b"<user@example.org(comment)>",
    b"<us,er@example.org>",
    b"<us;er@example.org>",
    b"<us:er@example.org>",
    b"<us\\er@example.org>",
    b'<"">',
    b'<""@example.org>',
    b'<"user@example.org>',
    b'<user"@example.org>',
    b'<"a"b@example.org>',
    b'<"a"."b"@example.org>',
    b'<"a\\"@example.org>',
    b"<user@[192.0.2.1>",
    b"<user@192.0.2.1]>",
    b"<user@[]>",
    b"<user@[192.0.2]>",
    b"<user@[192.0.2.256]>",
    b"<user@[192.0.2.01]>",
    b"<user@[2001:db8::1]>",
    b"<user@[IPv6:]>",
    b"<user@[IPv6:192.0.2.1]>",
    b"<user@[IPv6:2001:db8::1::2]>",
    b"<user@[IPv6:fe80::1%eth0]>",
    b"<user@[x-tag:text]>",
    b"<@a.example>",
    b"<@a.example:>",
    b"<@a.example:user>",
    b"<@a.example,user@c.example>",
    b"<@a.example,b.example:user@c.example>",
    b"<a.example:user@c.example>",
    b"@a.example:user@c.example",
    b"<" + b"l" * 243 + b"@example.org>",
    b"<" + LOCAL_64 + b"@" + DOMAIN_189 + b"d>",
    b"<u@" + b"d." * 127 + b"dd>",
    b"<=?utf-8?q?a_b?=@example.org\r\n>",
    b"<user\n@example.org>",
    b"<user@example.org\n>",
    b"<user@example.org>\n",
    b"<user\x00@example.org>",
    b"<us\xe9r@example.org>",
    b"<us\xc3\xa9\xffr@example.org>",
    b"<us\xc2\x85r@example.org>",
    b"<us\xe2\x80\xa8r@example.org>",
    b"<us\xe2\x80\xaer@example.org>",
    b"<us\xed\xa0\x80r@example.org>",
    b"<us\xc0\xaer@example.org>",
    b"<us r\xc3\xa9@example.org>",
    b"<\xc3\xa9@>",
    b"<\xc3\xa9@a..b>",
    b"<\xc3\xa9@a_\xc3\xa9.example>",
    b"<a@\xc3\xa9-.example>",
    b"<a@xn--zz--\xc3\xa9.example>",
    "<a@b。>".encode(),
    b"<a@\xef\xbf\xbd.example>",
    b"<a@" + b"\xc3\xa9" * 60 + b".example>",
    b"<a@" + b"\xc3\xa9." * 100 + b"example>",
    b"<@\xc3\xa9.example:a@b>",
    b'<"us\ter"@example.org>',
    b'<"us\\\ner"@example.org>',
]


class Paths(SynchronousTestCase):
    def refusal(self, data: bytes) -> Reply:
        return self.assertRaises(Refusal, parse_path, data).reply

    def test_good(self) -> None:
        for data, local, domain in GOOD:
            self.assertEqual(parse_path(data), (Address(local, domain), b""), data)

    def test_good_with_parameters_behind(self) -> None:
        for data, local, domain in GOOD:
            self.assertEqual(parse_path(data + b" SIZE=1"), (Address(local, domain), b" SIZE=1"), data)

    def test_bad(self) -> None:
        for data in BAD:
            reply = self.refusal(data)
            self.assertEqual((reply.code, reply.enhanced), (501, (1, 3)), data)

    def test_bad_with_parameters_behind(self) -> None:
        for data in BAD:
            self.refusal(data + b" SIZE=1")

    def test_every_octet_in_a_local_part(self) -> None:
        allowed = (
            b"!#$%&'*+-/=?^_`{|}~." + bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))
        )
        for octet in range(256):
            data = b"<a%cb@example.org>" % octet
            if octet in allowed:
                self.assertEqual(parse_path(data)[0].local, f"a{chr(octet)}b")
            elif octet == ord("@"):
                self.refusal(data)
            else:
                self.refusal(data)

    def test_every_octet_in_a_quoted_local_part(self) -> None:
        for octet in range(256):
            plain, escaped = b'<"a%cb"@c>' % octet, b'<"a\\%cb"@c>' % octet
            if 32 <= octet <= 126:
                self.assertEqual(parse_path(escaped)[0].local, f"a{chr(octet)}b")
            else:
                self.refusal(escaped)
            if 32 <= octet <= 126 and octet not in b'"\\':
                self.assertEqual(parse_path(plain)[0].local, f"a{chr(octet)}b")
            elif octet != 0x5C:
                self.refusal(plain)

    def test_sender(self) -> None:
        self.assertEqual(parse_reverse_path(b"<>"), (None, b""))
        self.assertEqual(parse_reverse_path(b"<> SIZE=1"), (None, b" SIZE=1"))
        self.assertEqual(parse_reverse_path(b"<a@b>"), (Address("a", "b"), b""))
        for data in [*BAD, b"<>x", b"<>\n"]:
            if data != b"<>":
                reply = self.assertRaises(Refusal, parse_reverse_path, data).reply
                self.assertEqual((reply.code, reply.enhanced), (501, (1, 7)), data)

    def test_A9_linear_time(self) -> None:
        """A regular expression that tries things again would not come back from these."""
        for data in [b"a." * 10**5, b"<" + b"a." * 10**5, b"<@" + b"a-" * 10**5, b'<"' + b"\\a" * 10**5]:
            self.refusal(data + b"\n")

    def test_any_script(self) -> None:
        """Domains become what the DNS knows; local parts stay as they came."""
        for text, address in [
            ("<usér@example.org>", Address("usér", "example.org")),
            ("usér@example.org", Address("usér", "example.org")),
            ("<用户>", Address("用户", "")),
            ("<user@Bücher.Example>", Address("user", "xn--bcher-kva.example")),
            ("<用户@例え.jp>", Address("用户", "xn--r8jz45g.jp")),
            ("<u@faß.example>", Address("u", "xn--fa-hia.example")),
            ("<u@ＥＸＡＭＰＬＥ．org>", Address("u", "example.org")),
            ('<"ü b"@[192.0.2.1]>', Address("ü b", "[192.0.2.1]")),
            ('<"ü\\"b"@x>', Address('ü"b', "x")),
        ]:
            for rest in (b"", b" SMTPUTF8"):
                self.assertEqual(parse_path(text.encode() + rest), (address, rest), text)
            self.assertEqual(parse_path(path(address).encode()), (address, b""))
            self.assertEqual(address.international, not address.local.isascii())
            self.assertEqual(parse_address(text), address)

    def test_single_address(self) -> None:
        self.assertEqual(parse_address("user@example.org"), Address("user", "example.org"))
        self.assertEqual(parse_address("<user@example.org>"), Address("user", "example.org"))
        self.assertEqual(parse_address("user"), Address("user", ""))
        for text in ["", "<>", "user@example.org x", " user", "user@\udc80", "a\n", "ü\n@b", "ü\u2028@b"]:
            self.assertRaises(Refusal, parse_address, text)

    @settings(deadline=None)
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30))
    def test_written_paths_read_back(self, local: str) -> None:
        address = Address(local, "example.org")
        self.assertEqual(parse_path(path(address).encode()), (address, b""))

    @settings(deadline=None)
    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        try:
            address, rest = parse_path(data)
        except Refusal:
            return
        self.assertTrue(str(address).isprintable() and address.domain.isascii())
        self.assertIn(rest[:1], (b"", b" "))


class Parameters(SynchronousTestCase):
    def refusal(self, data: bytes) -> Reply:
        return self.assertRaises(Refusal, parse_parameters, data, MAIL_PARAMETERS).reply

    def test_good(self) -> None:
        for data, values in [
            (b"", {}),
            (b" SIZE=0", {"size": 0}),
            (b" size=99999999999999999999", {"size": 10**20 - 1}),
            (b" BODY=7BIT", {"body": "7BIT"}),
            (b"  Body=8bitmime   SIZE=007", {"body": "8BITMIME", "size": 7}),
            (b" RET=hdrs ENVID=QQ+2B314 AUTH=<>", {"ret": "HDRS", "envid": "QQ+2B314", "auth": None}),
            (b" ret=FULL AUTH=e+3Dmc2@example.com", {"ret": "FULL", "auth": None}),
            (b" SMTPUTF8 SIZE=1", {"smtputf8": True, "size": 1}),
            (b" ENVID=" + b"+41" * 100, {"envid": "+41" * 100}),
        ]:
            self.assertEqual(parse_parameters(data, MAIL_PARAMETERS), values)

    def test_unknown(self) -> None:
        for data in [b" FOO", b" FOO=bar", b" SIZE=1 X-FOO=bar", b" NOTIFY=NEVER", b" BY=1"]:
            self.assertEqual(self.refusal(data), grammar.UNKNOWN_PARAMETER, data)

    def test_bad(self) -> None:
        for data in [
            b" SIZE",
            b" SIZE=",
            b" SIZE=x",
            b" SIZE=-1",
            b" SIZE=+1",
            b" SIZE=1_0",
            b" SIZE=1=1",
            b" SIZE=" + b"1" * 21,
            b" SIZE=\xb2",
            b" BODY",
            b" BODY=",
            b" BODY=BINARYMIME",
            b" =",
            b" =1",
            b" -X",
            b" SIZE=1 SIZE=1",
            b" size=1 SIZE=2",
            b" BODY=7BIT BODY=7BIT",
            b" SMTPUTF8=1",
            b" SMTPUTF8=",
            b" RET",
            b" RET=ALL",
            b" ENVID",
            b" ENVID=",
            b" ENVID=a=b",
            b" ENVID=a+b",
            b" ENVID=a+2b",
            b" ENVID=a+0D+0AX",
            b" ENVID=+7F",
            b" ENVID=+FF",
            b" ENVID=" + b"x" * 101,
            b" AUTH",
            b" AUTH=",
            b" AUTH=a+0A",
        ]:
            reply = self.refusal(data)
            self.assertEqual((reply.code, reply.enhanced), (501, (5, 4)), data)

    def test_of_recipients(self) -> None:
        for data, values in [
            (b" NOTIFY=NEVER", {"notify": "NEVER"}),
            (b" notify=delay,Success", {"notify": "SUCCESS,DELAY"}),
            (b" NOTIFY=FAILURE,DELAY,SUCCESS", {"notify": "SUCCESS,FAILURE,DELAY"}),
            (b" ORCPT=rfc822;bob@example.com", {"orcpt": "rfc822;bob@example.com"}),
            (b" ORCPT=utf-8;b\\x{FC}", {"orcpt": "utf-8;b\\x{FC}"}),
            ("ORCPT=utf-8;bü".encode(), {"orcpt": "utf-8;bü"}),
            (b" ORCPT=RFC822;b+40c NOTIFY=FAILURE", {"orcpt": "RFC822;b+40c", "notify": "FAILURE"}),
        ]:
            self.assertEqual(parse_parameters(data, RCPT_PARAMETERS), values)
        for data in [
            *(
                b" NOTIFY",
                b" NOTIFY=",
                b" NOTIFY=,",
                b" NOTIFY=NEVER,DELAY",
                b" NOTIFY=DELAY,DELAY",
                b" NOTIFY=X",
            ),
            *(
                b" NOTIFY=DELAY,",
                b" NOTIFY=DELAY NOTIFY=DELAY",
                b" ORCPT",
                b" ORCPT=",
                b" ORCPT=rfc822",
                b" ORCPT=;a",
            ),
            *(
                b" ORCPT=rfc822;",
                b" ORCPT=rfc822;a+0D",
                b" ORCPT=utf-8;\xff",
                b" ORCPT=rf c;a",
                b" ORCPT=rfc822;" + b"x" * 501,
            ),
        ]:
            reply = self.assertRaises(Refusal, parse_parameters, data, RCPT_PARAMETERS).reply
            self.assertEqual((reply.code, reply.enhanced), (501, (5, 4)), data)

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100))
    def test_xtext(self, text: str) -> None:
        encoded = "".join(c if c.isalnum() else f"+{ord(c):02X}" for c in text)
        self.assertEqual(grammar.decode_xtext(grammar.parse_envid(encoded.encode())), text)


class Hosts(SynchronousTestCase):
    def test_good(self) -> None:
        for name in [
            b"example.org",
            b"my_pc",
            b"localhost",
            b"[192.0.2.1]",
            b"[IPv6:::1]",
            b"x" * 255,
            b"alice's-mac",
        ]:
            self.assertTrue(grammar.is_host(name), name)

    def test_A6_bad(self) -> None:
        for name in [
            b"",
            b"x" * 256,
            b"a b",
            b"a\tb",
            b"a\r",
            b"a\n",
            b"a\x00b",
            b"\xfc",
            b"a(b",
            b"a)",
            b"<a>",
            b"a;b",
            b'"a"',
            b"a@b",
            b"a,b",
            b"a\\b",
        ]:
            self.assertFalse(grammar.is_host(name), name)
