"""The exchanges of AUTH, whole and at every step at which they may end."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp.sasl import LIMIT, Credentials, Exchange

ALICE = Credentials("alice@example.org", b"se cret")
USERNAME = Reply(334, None, "VXNlcm5hbWU6")
PASSWORD = Reply(334, None, "UGFzc3dvcmQ6")


def held(mechanism: str, *lines: bytes | None) -> Reply | Credentials:
    """What the last step of an exchange gives; the first line is the initial response or None, all base64."""
    exchange = Exchange(mechanism)
    result = exchange.begin(None if lines[0] is None else lines[0].decode())
    for line in lines[1:]:
        assert line is not None
        result = exchange.respond(line)
    return result


class Exchanges(SynchronousTestCase):
    def refused(self, mechanism: str, *lines: bytes | None) -> int:
        with self.assertRaises(Refusal) as caught:
            held(mechanism, *lines)
        return caught.exception.reply.code

    def test_LOGIN(self) -> None:
        user, password = b64encode(b"alice@example.org"), b64encode(b"se cret")
        self.assertEqual(held("LOGIN", None), USERNAME)
        self.assertEqual(held("LOGIN", None, user), PASSWORD)
        self.assertEqual(held("login", None, user, password), ALICE)
        self.assertEqual(held("LOGIN", user), PASSWORD)
        self.assertEqual(held("LOGIN", user, password), ALICE)

    def test_PLAIN(self) -> None:
        for identity in (b"", b"alice@example.org"):
            message = b64encode(identity + b"\0alice@example.org\0se cret")
            self.assertEqual(held("PLAIN", message), ALICE)
            self.assertEqual(held("plain", None, message), ALICE)
        self.assertEqual(held("PLAIN", None), Reply(334, None, ""))

    def test_the_empty_challenge_on_the_wire(self) -> None:
        result = held("PLAIN", None)
        assert isinstance(result, Reply)
        self.assertEqual(result.encode(), b"334 \r\n")

    def test_nobody_acts_for_somebody_else(self) -> None:
        self.assertEqual(self.refused("PLAIN", b64encode(b"bob\0alice\0secret")), 535)

    def test_other_mechanisms(self) -> None:
        for mechanism in ("CRAM-MD5", "NTLM", "EXTERNAL", "PLAIN-CLIENTTOKEN", "XOAUTH2", ""):
            self.assertEqual(self.refused(mechanism, None), 504)

    def test_a_star_ends_it_at_each_step(self) -> None:
        for lines in ([None, b"*"], [None, b64encode(b"alice"), b"*"], [b64encode(b"alice"), b"*"]):
            self.assertEqual(self.refused("LOGIN", *lines), 501)
        self.assertEqual(self.refused("PLAIN", None, b"*"), 501)

    def test_bad_base64(self) -> None:
        for bad in (
            b"%%%%",
            b"YWxp=Y2U",
            b"YWxpY2",
            b"YWxpY2U=YWxp",
            b" ",
            b"=",
            b"YWxp\xff",
            b"**",
            b"-_-_",
        ):
            self.assertEqual(self.refused("LOGIN", None, bad), 501, bad)
            self.assertEqual(self.refused("LOGIN", None, b64encode(b"alice"), bad), 501, bad)
            if bad.isascii() and bad != b"=":
                self.assertEqual(self.refused("PLAIN", bad), 501, bad)

    def test_nobody(self) -> None:
        """Release 1.5.4: an empty user name crashed the original."""
        secret = b64encode(b"secret")
        self.assertEqual(held("LOGIN", b"="), PASSWORD)
        self.assertEqual(self.refused("LOGIN", b"=", secret), 535)
        self.assertEqual(self.refused("LOGIN", None, b"", secret), 535)
        self.assertEqual(self.refused("LOGIN", None, b64encode(b"alice"), b""), 535)
        self.assertEqual(self.refused("PLAIN", b64encode(b"\0\0secret")), 535)
        self.assertEqual(self.refused("PLAIN", b64encode(b"\0alice\0")), 535)
        self.assertEqual(self.refused("PLAIN", b"="), 501)

    def test_C2_what_is_no_name_and_no_password(self) -> None:
        secret = b64encode(b"secret")
        for user in (b"a\0b", b"a\r\nb", b"a\tb", b"\xff", b"a" * (LIMIT + 1), b"\xe2\x80\xa8"):
            self.assertEqual(self.refused("LOGIN", None, b64encode(user), secret), 501, user)
            self.assertEqual(self.refused("PLAIN", b64encode(b"\0" + user + b"\0secret")), 501, user)
        for password in (b"a\0b", b"a" * (LIMIT + 1)):
            self.assertEqual(self.refused("LOGIN", None, b64encode(b"a"), b64encode(password)), 501)
            self.assertEqual(self.refused("PLAIN", b64encode(b"\0a\0" + password)), 501)
        for fields in (b"", b"alice", b"alice\0secret", b"\0alice\0secret\0", b"\0\0\0\0"):
            self.assertEqual(self.refused("PLAIN", b64encode(fields) or b"="), 501, fields)

    def test_the_longest(self) -> None:
        longest = b64encode(b"\0" + b"u" * LIMIT + b"\0" + b"p" * LIMIT)
        self.assertEqual(held("PLAIN", longest), Credentials("u" * LIMIT, b"p" * LIMIT))

    def test_D6_nothing_shows_the_password(self) -> None:
        self.assertNotIn("se cret", repr(ALICE))
        for line in (b"se cret", b64encode(b"\0alice\0se\0cret")):
            with self.assertRaises(Refusal) as caught:
                held("PLAIN", line)
            self.assertNotIn("cret", f"{caught.exception!r} {caught.exception.why}")
            self.assertIsNone(caught.exception.__cause__)

    @given(st.sampled_from(["LOGIN", "PLAIN"]), st.lists(st.binary(max_size=40), min_size=1, max_size=3))
    def test_any_lines(self, mechanism: str, lines: list[bytes]) -> None:
        exchange = Exchange(mechanism)
        try:
            result = exchange.begin(lines[0].decode("latin-1") if lines[0].isascii() else None)
            for line in lines[1:]:
                if isinstance(result, Credentials):
                    break
                result = exchange.respond(line)
        except Refusal as refusal:
            self.assertIn(refusal.reply.code, (501, 535))
