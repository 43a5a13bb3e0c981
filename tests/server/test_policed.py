"""Policy as a client meets it, at each step of the conversation."""

from __future__ import annotations

from postoffice.config.values import RATE
from postoffice.policy.policy import PolicySettings
from postoffice.policy.sender import SenderSettings
from postoffice.server.listener import Limits
from tests.doubles import StaticResolver
from tests.server.support import OUTSIDE
from tests.server.test_session import BEGIN, LETTER, Conversation

VERIFY = SenderSettings()
DNS = StaticResolver(
    mx={"null.example": [(0, "")]},
    addresses={
        "client.example": [OUTSIDE],
        "alias.example": ["203.0.113.1", "198.51.100.1"],
        "a.example": ["203.0.113.2"],
    },
    reverse={OUTSIDE: "client.example"},
    failing=["lost.example"],
    listed={"9.2.0.192.list.example": ["127.0.0.2"]},
    texts={"9.2.0.192.list.example": ["Listed for spam"]},
)


class Greeting(Conversation):
    def test_checkhelo(self) -> None:
        self.door.judge(DNS, rules=PolicySettings("mx.example.org", checkhelo=True))
        literals = ("[198.51.100.1]", "[IPv6:::ffff:198.51.100.1]", "198.51.100.1")
        for name in ("MX.example.org", "alias.example", *literals, "localhost"):
            visit = self.visit()
            visit.play(f"S: 220 *\nC: EHLO {name}\nS: 521 5.7.1 *")
            self.assertTrue(visit.closed)
        for name in ("client.example", "gone.example", "lost.example", "[192.0.2.9]", "nonsense"):
            self.visit().play(f"S: 220 *\nC: HELO {name}\nS: 250 *")
        self.visit("198.51.100.1").play("S: 220 *\nC: HELO mx.example.org\nS: 250 *")

    def test_without_it_names_are_not_looked_at(self) -> None:
        self.visit().play("S: 220 *\nC: HELO mx.example.org\nS: 250 *")

    def test_load(self) -> None:
        self.door.doorkeeper.limits = Limits(0, 0, busy=lambda: True)
        self.assertEqual(self.door.visit(OUTSIDE).heard()[:10], b"451 4.3.2 ")
        self.assertEqual(self.door.visit("127.0.0.1").heard()[:10], b"451 4.3.2 ")


class Sending(Conversation):
    def test_verify_from(self) -> None:
        self.door.judge(DNS, senders=VERIFY)
        visit = self.visit()
        visit.play(
            BEGIN
            + """
            C: MAIL FROM:<x@gone.example>
            S: 553 5.1.8 *
            C: MAIL FROM:<x@null.example>
            S: 550 5.7.27 *
            C: MAIL FROM:<x@lost.example>
            S: 451 4.4.3 *
            C: MAIL FROM:<nobody@example.org>
            S: 553 5.1.8 There is no such user here *
            """
        )
        self.assertIn("nobody@example.org: 553", self.facts("wrong number")[0])

    def test_nodaemon(self) -> None:
        self.door.judge(senders=SenderSettings(nodaemon=True))
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 550 5.7.1 *\nC: RCPT TO:<a@example.org>\nS: 503 *")

    def test_dnsbl(self) -> None:
        self.door.judge(DNS, dnsbl=[("list.example", "")])
        self.visit().play(
            BEGIN
            + "C: MAIL FROM:<>\nS: 554 5.7.1 *[[]192.0.2.9] is listed at list.example: Listed for spam\n"
            + "C: RCPT TO:<a@example.org>\nS: 503 *"
        )
        self.visit("127.0.0.1").play(BEGIN + LETTER)


class Receiving(Conversation):
    def test_recipients_elsewhere(self) -> None:
        self.door.judge(DNS, rules=PolicySettings("mx.example.org"))
        self.visit("127.0.0.1").play(
            BEGIN
            + """
            C: MAIL FROM:<>
            S: 250 *
            C: RCPT TO:<x@a.example>
            S: 250 *
            C: RCPT TO:<x@gone.example>
            S: 553 5.1.2 *
            C: RCPT TO:<x@null.example>
            S: 556 5.1.10 *
            C: RCPT TO:<x@lost.example>
            S: 451 4.4.3 *
            C: RCPT TO:<x@[203.0.113.9]>
            S: 250 *
            """
        )
        before = len(DNS.asked)
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<x@gone.example>\nS: 550 5.7.1 *")
        self.assertNotIn(("exchangers", "gone.example"), DNS.asked[before:])

    def test_rates(self) -> None:
        self.door.judge(rates=[RATE.parse("2/1h")])
        visit = self.visit()
        visit.play(BEGIN + LETTER + LETTER)
        visit.play(
            """
            C: MAIL FROM:<s@example.net>
            S: 250 *
            C: RCPT TO:<a@example.org>
            S: 250 *
            C: DATA
            S: 450 4.7.1 *
            """
        )
        self.assertEqual(len(self.door.contents()), 2)
        self.visit("127.0.0.1").play(BEGIN + LETTER + LETTER + LETTER)
