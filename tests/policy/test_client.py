"""Who a client is, and whom we do not talk to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.values import disposition
from postoffice.interfaces import Turned
from postoffice.mail.client import Client
from postoffice.policy.access import Denied
from postoffice.policy.client import Clients, ClientSettings
from tests.doubles import StaticResolver
from tests.server.support import Access

OWN = "198.51.100.1"
FRIEND = "192.0.2.9"
NAMELESS = "192.0.2.10"
LIAR = "192.0.2.11"
LOST = "192.0.2.12"
# Its address has a name that does not lead back to it.
FORGED = Client(LIAR, claimed="bank.example")
MX: Mapping[str, Sequence[tuple[int, str]]] = {
    "friend.example": [(10, "far.example"), (20, "mx.example.org")],
    "nullish.example": [(0, "")],
    "loop.example": [(10, "localhost")],
    "broken.example": [(10, "broken.test")],
    "far.example": [],
}
ADDRESSES = {
    "friend.example": [FRIEND],
    "mx.example.org": [OWN],
    "far.example": ["203.0.113.1"],
    "bank.example": ["203.0.113.2"],
    "own.example": [OWN],
    "nullish.example": ["192.0.2.20"],
    "loop.example": ["192.0.2.21"],
    "broken.example": ["192.0.2.22"],
    "implicit.example": ["192.0.2.23"],
}
REVERSE = {
    FRIEND: "friend.example",
    LIAR: "bank.example",
    OWN: "own.example",
    "192.0.2.20": "nullish.example",
    "192.0.2.21": "loop.example",
    "192.0.2.22": "broken.example",
    "192.0.2.23": "implicit.example",
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.resolver = StaticResolver(MX, ADDRESSES, REVERSE, [LOST, "broken.test"])
        self.access = Access()
        self.set()

    def set(self, forbidden: str = "bounce", **settings: object) -> None:
        given = ClientSettings("mx.example.org", forbidden=disposition(forbidden), **settings)  # type: ignore[arg-type]
        self.clients = Clients(
            given, lambda: frozenset({OWN, "127.0.0.1", "::1"}), self.resolver, self.access
        )

    def met(self, ip: str) -> Client:
        return self.successResultOf(Deferred.fromCoroutine(self.clients.introduce(Client(ip))))

    def turned(self, ip: str) -> Turned:
        failure = self.failureResultOf(Deferred.fromCoroutine(self.clients.introduce(Client(ip))), Turned)
        turned: Turned = failure.value
        return turned


class Names(Case):
    def test_confirmed_and_not(self) -> None:
        self.assertEqual(self.met(FRIEND), Client(FRIEND, name="friend.example"))
        self.assertEqual(self.met(NAMELESS), Client(NAMELESS, nameless=True))
        self.assertEqual(self.met(LIAR), FORGED)
        self.assertEqual(self.met(LOST), Client(LOST))

    def test_with_dnscheck_who_lies_has_no_name(self) -> None:
        self.set(dnscheck=True)
        self.assertEqual(self.met(LIAR), evolve(FORGED, nameless=True))
        self.assertEqual(self.met(FRIEND), Client(FRIEND, name="friend.example"))

    def test_this_machine_is_not_looked_up(self) -> None:
        self.set(paranoid=True, localmx=True, dnscheck=True)
        self.assertEqual(
            self.met("127.0.0.1"), Client("127.0.0.1", name="localhost", here=True, may_relay=True)
        )
        self.assertEqual(self.met("127.9.9.9").name, "localhost")
        self.assertEqual(self.met("::1").name, "localhost")
        self.assertEqual(self.met(OWN), Client(OWN, here=True, may_relay=True))
        self.assertEqual(self.resolver.asked, [])


class Relaying(Case):
    def test_C1_trusted_by_address_and_by_confirmed_name(self) -> None:
        for trusted in (FRIEND, "friend.example"):
            self.set(trusted=frozenset({trusted}))
            self.assertTrue(self.met(FRIEND).may_relay)
            self.assertFalse(self.met(NAMELESS).may_relay)
        self.set(trusted=frozenset({"bank.example"}))
        self.assertFalse(self.met(LIAR).may_relay)

    def test_C1_localmx_asks_for_an_explicit_MX_that_is_ours(self) -> None:
        self.assertFalse(self.met(FRIEND).may_relay)
        self.set(localmx=True)
        self.assertTrue(self.met(FRIEND).may_relay)
        for ip in ("192.0.2.20", "192.0.2.21", "192.0.2.22", "192.0.2.23", NAMELESS, LIAR, LOST):
            self.assertFalse(self.met(ip).may_relay, ip)


class Denying(Case):
    def test_with_a_reason_that_is_final(self) -> None:
        for forbidden in ("bounce", "accept", "folder:junk"):
            self.set(forbidden)
            self.access.denied = {FRIEND: Denied("you sent us spam", True)}
            turned = self.turned(FRIEND)
            self.assertEqual(
                str(turned.reply),
                "521 5.7.1 mx.example.org does not accept mail from friend.example: you sent us spam",
            )
            self.assertFalse(turned.stay)

    def test_bounce(self) -> None:
        self.access.denied = {FRIEND: Denied("you sent\r\nus spam", False), NAMELESS: Denied("", False)}
        turned = self.turned(FRIEND)
        self.assertEqual(
            str(turned.reply),
            "421 4.7.1 mx.example.org does not accept mail from friend.example: you sent?us spam",
        )
        self.assertTrue(turned.stay)
        self.assertIn(
            "[192.0.2.10]: your host is not welcome here; ask postmaster@mx", str(self.turned(NAMELESS))
        )
        self.set("bounce:too much spam")
        self.assertIn("[192.0.2.10]: too much spam", str(self.turned(NAMELESS)))
        self.assertEqual(self.met(LIAR), FORGED)

    def test_marked(self) -> None:
        self.access.denied = {FRIEND: Denied("you sent us spam", False)}
        for forbidden in ("accept", "folder:~/junk"):
            self.set(forbidden)
            self.assertEqual(self.met(FRIEND).marked, "you sent us spam")
            self.assertEqual(self.met(NAMELESS).marked, "")

    def test_this_machine_can_be_denied(self) -> None:
        self.access.denied = {"mx.example.org": Denied("", False)}
        self.assertEqual(self.turned(OWN).reply.code, 421)
        self.assertTrue(self.met("127.0.0.1").may_relay)

    def test_a_name_that_cannot_be_looked_up_denies_nobody_for_good(self) -> None:
        self.access.denied = {"UNKNOWN": Denied("no name", True)}
        self.assertEqual(self.turned(NAMELESS).reply.code, 521)
        self.assertEqual(str(self.turned(LOST).reply)[:9], "451 4.4.3")
        self.access.denied = {LOST: Denied("spam", True)}
        self.assertEqual(self.turned(LOST).reply.code, 521)

    def test_access_files_that_cannot_be_read(self) -> None:
        self.access.broken = True
        turned = self.turned(FRIEND)
        self.assertEqual(str(turned.reply)[:9], "451 4.3.0")
        self.assertIn("/etc/hosts.deny", turned.why)


class Paranoid(Case):
    def test_bounce(self) -> None:
        self.set(paranoid=True)
        turned = self.turned(NAMELESS)
        self.assertIn(
            "421 4.7.25 mx.example.org does not accept mail from [192.0.2.10]: no host", str(turned)
        )
        self.assertFalse(turned.stay)
        self.assertEqual(self.met(LIAR), FORGED)
        self.assertEqual(str(self.turned(LOST).reply)[:9], "451 4.4.3")
        self.set(paranoid=True, dnscheck=True)
        self.assertEqual(self.turned(LIAR).reply.code, 421)

    def test_marked(self) -> None:
        self.set("accept", paranoid=True)
        self.assertIn("no host name", self.met(NAMELESS).marked)
        self.access.denied = {NAMELESS: Denied("spam", False)}
        self.assertEqual(self.met(NAMELESS).marked, "spam")

    def test_not_asked_of_trusted_hosts(self) -> None:
        self.set(paranoid=True, trusted=frozenset({NAMELESS, LOST}))
        self.assertTrue(self.met(NAMELESS).may_relay)
        self.assertTrue(self.met(LOST).may_relay)
