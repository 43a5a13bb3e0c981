"""Whom a letter may be from."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import WrongNumber
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Mailbox
from postoffice.mail.reply import Refusal
from postoffice.policy.sender import Senders, SenderSettings
from tests.doubles import StaticDirectory, StaticResolver

STRANGER = Client("192.0.2.9")
FRIEND = Client("127.0.0.1", here=True, may_relay=True)
USER = Client("192.0.2.9", login="ann", may_relay=True)
OUR_DOMAINS = ["mx.example.org", "virtual.example", "later.example"]


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        mailbox = Mailbox("mbox", "/var/mail/ann", "ann")
        self.directory = StaticDirectory(
            OUR_DOMAINS, {"ann": mailbox}, ["virtual.example", "later.example"], ["later.example"]
        )
        self.resolver = StaticResolver(
            {"mx.example": [(10, "a.example")], "null.example": [(0, "")], "empty.example": []},
            {"a.example": ["203.0.113.1"]},
            failing=["lost.example"],
        )
        self.set()

    def set(self, **settings: bool) -> None:
        self.senders = Senders(SenderSettings(**settings), self.directory, self.resolver)

    def judged(self, client: Client, sender: str) -> str:
        """`fine`, or the refusal."""
        local, _, domain = sender.rpartition("@") if "@" in sender else (sender, "", "")
        address = Address(local, domain) if sender else None
        done = Deferred.fromCoroutine(self.senders.check(client, address))
        if not done.called:
            self.fail("waits")
        results: list[object] = []
        done.addBoth(results.append)
        if results == [None]:
            return "fine"
        error = results[0].value  # type: ignore[attr-defined]
        assert isinstance(error, Refusal)
        return f"{'wrong number ' if isinstance(error, WrongNumber) else ''}{error.reply}"


class Elsewhere(Case):
    def test_C5_the_domain_must_take_mail(self) -> None:
        for client in (STRANGER, FRIEND):
            for sender in ("x@mx.example", "x@a.example", "x@[192.0.2.1]"):
                self.assertEqual(self.judged(client, sender), "fine", sender)
            for sender in ("x@gone.example", "x@empty.example"):
                self.assertRegex(self.judged(client, sender), r"^553 5\.1\.8 The sender's domain \w+\.ex")
            self.assertRegex(self.judged(client, "x@null.example"), r"^550 5\.7\.27 ")
            self.assertRegex(self.judged(client, "x@lost.example"), r"^451 4\.4\.3 ")

    def test_unless_verify_from_is_off(self) -> None:
        self.set(verify_from=False)
        for sender in ("x@gone.example", "x@null.example", "x@lost.example", "nobody@mx.example.org"):
            self.assertEqual(self.judged(STRANGER, sender), "fine")
        self.assertEqual(self.resolver.asked, [])


class Ours(Case):
    def test_C5_only_our_own_people_speak_for_users_of_the_system(self) -> None:
        for sender in ("ann", "ann@mx.example.org", "ann@MX.Example.ORG"):
            self.assertRegex(self.judged(STRANGER, sender), r"^553 5\.1\.8 That sender is one of our users")
            self.assertEqual(self.judged(FRIEND, sender), "fine")

    def test_users_of_virtual_domains_may_be_anywhere(self) -> None:
        self.assertEqual(self.judged(STRANGER, "ann@virtual.example"), "fine")

    def test_a_sender_who_does_not_exist_is_a_wrong_number(self) -> None:
        for client, sender in ((FRIEND, "bob"), (STRANGER, "bob@virtual.example")):
            self.assertRegex(self.judged(client, sender), r"^wrong number 553 5\.1\.8 There is no such user")

    def test_one_who_cannot_be_looked_up_is_none(self) -> None:
        self.assertRegex(self.judged(STRANGER, "ann@later.example"), r"^451 4\.3\.0 ")

    def test_who_is_logged_in_is_judged_elsewhere(self) -> None:
        for sender in ("ann", "bob", "bob@virtual.example", "x@gone.example"):
            self.assertEqual(self.judged(USER, sender), "fine")


class Null(Case):
    def test_nodaemon(self) -> None:
        self.assertEqual(self.judged(STRANGER, ""), "fine")
        self.set(nodaemon=True)
        for client in (STRANGER, FRIEND, USER):
            self.assertRegex(self.judged(client, ""), r"^550 5\.7\.1 ")
