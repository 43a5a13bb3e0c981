"""Macros and what filters are told of a client: each value as real filters depend on it."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.client import Client, Tls
from postoffice.mail.reply import Reply
from postoffice.milter.facts import Facts, Place
from postoffice.milter.negotiation import MACRO_LISTS

CLIENT = Client("192.0.2.9", 1234, "client.example", "me.example", "ESMTP")
PLACE = Place("mx.example.org", "192.0.2.1", 25, "Postoffice 1.2")


def facts(client: Client = CLIENT, place: Place = PLACE) -> Facts:
    return Facts(client, place, lambda: 0.0, letter_id="QID23456")


class Macros(SynchronousTestCase):
    def check(self, given: Facts, **values: str | None) -> None:
        for name, value in values.items():
            self.assertEqual(given.value(name), value, name)

    def test_who_we_are(self) -> None:
        self.check(
            facts(),
            j="mx.example.org",
            v="Postoffice 1.2",
            Z="1.2",
            daemon_name="mx.example.org",
            daemon_addr="192.0.2.1",
            daemon_port="25",
            if_addr="192.0.2.1",
            if_name="mx.example.org",
        )
        self.assertIn("1970", facts().value("b") or "")
        for loopback in ("127.0.0.1", "::1"):
            self.check(facts(place=evolve(PLACE, address=loopback)), if_addr=None, if_name=None)
        self.check(facts(place=evolve(PLACE, address="2001:db8::1")), daemon_addr="IPv6:2001:db8::1")

    def test_a_client_with_a_name(self) -> None:
        self.assertEqual(facts().peer, ("client.example", "4", 1234, "192.0.2.9"))
        self.check(
            facts(),
            _="client.example [192.0.2.9]",
            client_addr="192.0.2.9",
            client_name="client.example",
            client_port="1234",
            client_ptr="client.example",
            client_resolve="OK",
            s="me.example",
            r="ESMTP",
        )

    def test_a_client_without_a_name(self) -> None:
        unknown = evolve(CLIENT, name=None)
        without = {"_": "[192.0.2.9]", "client_name": "unknown", "client_ptr": "unknown"}
        for client, word in ((unknown, "TEMP"), (evolve(unknown, nameless=True), "FAIL")):
            self.assertEqual(facts(client).peer, ("[192.0.2.9]", "4", 1234, "192.0.2.9"))
            self.check(facts(client), **without, client_resolve=word)

    def test_a_name_that_does_not_lead_back_is_told_as_such(self) -> None:
        for nameless in (False, True):
            client = evolve(CLIENT, name=None, claimed="bank.example", nameless=nameless)
            self.assertEqual(facts(client).peer, ("[192.0.2.9]", "4", 1234, "192.0.2.9"))
            self.check(
                facts(client),
                _="bank.example [192.0.2.9] (may be forged)",
                client_name="unknown",
                client_ptr="bank.example",
                client_resolve="FORGED",
            )

    def test_this_machine_at_an_address_that_nobody_looks_up(self) -> None:
        given = facts(evolve(CLIENT, name=None, here=True))
        self.assertEqual(given.peer[0], "mx.example.org")
        self.check(given, _="mx.example.org [192.0.2.9]", client_name="mx.example.org", client_resolve="OK")

    def test_how_many_connections_its_address_has(self) -> None:
        given = facts()
        self.check(given, client_connections=None, client_rate=None)
        given.connections, given.rate = 3, 12
        self.check(given, client_connections="3", client_rate="12")

    def test_a_client_of_ipv6(self) -> None:
        client = evolve(CLIENT, ip="2001:db8::9", name=None)
        self.assertEqual(facts(client).peer, ("[2001:db8::9]", "6", 1234, "2001:db8::9"))
        self.check(facts(client), _="[IPv6:2001:db8::9]", client_addr="IPv6:2001:db8::9")

    def test_a_command_of_this_machine(self) -> None:
        local = facts(Client("", name="localhost", user="joe", protocol="LOCAL"))
        self.assertEqual(local.peer, ("localhost", "4", 0, "127.0.0.1"))
        self.assertEqual(local.greeting, "mx.example.org")
        self.check(
            local, _="localhost [127.0.0.1]", client_name="localhost", client_resolve="OK", s="mx.example.org"
        )

    def test_encryption_is_told_only_where_it_is(self) -> None:
        names = ("tls_version", "cipher", "cipher_bits", "tls_sni")
        self.check(facts(), verify="NONE", **dict.fromkeys(names))
        client = evolve(CLIENT, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "mx.example.org"))
        values = ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "256", "mx.example.org")
        self.check(facts(client), r="ESMTPS", **dict(zip(names, values, strict=True)))

    def test_nobody_is_asked_for_a_certificate(self) -> None:
        client = evolve(CLIENT, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, None))
        self.check(facts(client), verify="NO", cert_subject=None, cert_issuer=None, tls_sni=None)

    def test_log_ins_are_told_only_where_they_were(self) -> None:
        self.check(facts(), auth_type=None, auth_authen=None, auth_ssf=None)
        client = evolve(CLIENT, login="alice@example.org", mechanism="LOGIN")
        self.check(
            facts(client), auth_type="LOGIN", auth_authen="alice@example.org", auth_ssf="0", r="ESMTPA"
        )
        client = evolve(client, mechanism="", tls=Tls("TLSv1.3", "X", 128))
        self.check(facts(client), auth_type="PLAIN", auth_ssf="128")

    def test_the_sender(self) -> None:
        given = facts()
        self.check(given, mail_addr="", mail_host="mx.example.org", mail_mailer="local", auth_author=None)
        given.sender, given.ours = Address("a b", "Example.net"), (False, False)
        self.check(given, mail_addr='"a b"@Example.net', mail_host="Example.net", mail_mailer="esmtp")
        given.ours = (True, False)
        self.check(given, mail_mailer="local", i="QID23456", addr_type="e s")
        self.check(given, envid=None, dsn_ret=None, dsn_notify=None)
        given.parameters = [b"SIZE=9", b"auth=a@b", b"ENVID=QQ+2B", b"Ret=HDRS"]
        self.check(given, auth_author="a@b", envid="QQ+2B", dsn_ret="HDRS")

    def test_recipients(self) -> None:
        given = facts()
        self.check(given, rcpt_addr=None, rcpt_host=None, rcpt_mailer=None)
        given.recipient, given.ours = Address("b", "example.org"), (False, True)
        self.check(given, rcpt_addr="b@example.org", rcpt_host="example.org", rcpt_mailer="local")
        given.refused = Reply(550, (1, 1), "No such user here")
        self.check(
            given,
            rcpt_addr="Recipient address rejected: No such user here",
            rcpt_host="5.1.1",
            rcpt_mailer="error",
        )
        given.arguments, given.bad_recipients = [b"<b@example.org>", b"NOTIFY=NEVER"], 2
        self.check(given, addr_type="e r", dsn_notify="NEVER", nbadrcpts="2")

    def test_the_letter(self) -> None:
        given = facts()
        given.recipients, given.message_id, given.size = 2, "<x@y>", 100
        self.check(given, nrcpts="2", msg_id="<x@y>", msg_size="100")
        given.forget_letter()
        self.check(given, i=None, msg_id=None, msg_size=None, nrcpts="0", nbadrcpts="0", addr_type=None)

    def test_what_nobody_knows(self) -> None:
        self.check(facts(), nonsense=None)

    def test_nothing_that_can_change_is_told_at_the_end_of_the_header(self) -> None:
        self.assertEqual(MACRO_LISTS[b"N"], ("i",))
