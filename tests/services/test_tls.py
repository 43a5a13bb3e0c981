"""Certificates: which is shown, what is refused, and how they are changed under way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.tls import KEY_LIFE, PERIOD, Certificates, Pair, Unusable
from postoffice.watched import Watch
from tests.certificates import NAME, NOW, START, TlsClient, authority, converse, make_pair


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class CertificateCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.warnings: list[str] = []

    def certificates(self, *pairs: Pair) -> Certificates:
        certificates = Certificates(Watch(self.clock.seconds, self.warnings.append))
        certificates.take(certificates.read(pairs))
        return certificates

    def session(self, certificates: Certificates, client: TlsClient | None = None) -> TlsClient:
        """A session that was agreed on, and was used in both directions. Errors: `SSL.Error`."""
        client = client or TlsClient(NAME)
        factory = TLSMemoryBIOFactory(certificates, False, Factory.forProtocol(Echo), self.clock)
        protocol: Any = factory.buildProtocol(None)
        transport = StringTransport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        converse(client, transport)
        client.say(b"hello")
        converse(client, transport)
        self.clock.advance(0)
        converse(client, transport)
        self.assertEqual(client.heard(), b"hello")
        return client


class Choosing(CertificateCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = make_pair(self.directory, NAME, "192.0.2.1")
        self.wild = make_pair(self.directory, "*.example.net", common="wild")
        self.third = make_pair(self.directory, "MX.example.net", kind="rsa", common="third")
        self.all = self.certificates(self.first, self.wild, self.third)

    def shown(self, name: str | None) -> str:
        return self.session(self.all, TlsClient(name)).subject

    def test_by_the_name_that_is_asked_for(self) -> None:
        self.assertEqual(self.shown(NAME), NAME)
        self.assertEqual(self.shown("mx.example.net"), "third")
        self.assertEqual(self.shown("Mx.Example.NET"), "third")

    def test_a_wildcard_stands_for_one_label(self) -> None:
        self.assertEqual(self.shown("mail.example.net"), "wild")
        self.assertEqual(self.shown("a.mail.example.net"), NAME)
        self.assertEqual(self.shown("example.net"), NAME)

    def test_the_first_for_whoever_asks_for_another_or_none(self) -> None:
        self.assertEqual(self.shown("mx.example.com"), NAME)
        self.assertEqual(self.shown(None), NAME)

    def test_the_first_of_two_for_a_name(self) -> None:
        again = make_pair(self.directory, NAME, common="again", file="again")
        both = self.certificates(self.wild, self.first, again)
        self.assertEqual(self.session(both, TlsClient(NAME)).subject, NAME)

    def test_the_common_name_where_there_is_no_other(self) -> None:
        old = make_pair(self.directory, common="old.example.org")
        both = self.certificates(self.first, old)
        self.assertEqual(self.session(both, TlsClient("old.example.org")).subject, "old.example.org")

    def test_issuers_are_shown_with_it(self) -> None:
        issuer = authority()
        pair = make_pair(self.directory, "chain.example.org", issuer=issuer)
        client = self.session(self.certificates(pair))
        chain = client.connection.get_peer_cert_chain(as_cryptography=True)
        self.assertEqual([one.issuer for one in chain or ()], [issuer.name, issuer.name])


class Agreeing(CertificateCase):
    def setUp(self) -> None:
        super().setUp()
        self.one = self.certificates(make_pair(self.directory, NAME, kind="rsa"))

    def test_tls_1_2_and_1_3(self) -> None:
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            client = self.session(self.one, TlsClient(NAME, version=version))
            self.assertEqual(client.connection.get_protocol_version_name(), name)

    def test_only_ciphers_with_forward_secrecy(self) -> None:
        for ciphers in (b"AES128-GCM-SHA256", b"ECDHE-RSA-AES128-SHA256:@SECLEVEL=0"):
            client = TlsClient(NAME, version=SSL.TLS1_2_VERSION, ciphers=ciphers)
            self.assertRaises(SSL.Error, self.session, self.one, client)

    def test_keys_of_every_usual_kind(self) -> None:
        for kind in ("ec", "rsa", "ed25519"):
            self.session(self.certificates(make_pair(self.directory, NAME, kind=kind)))

    def test_B4_a_client_that_speaks_no_smtp_is_cut_off(self) -> None:
        error = self.assertRaises(
            SSL.Error, self.session, self.one, TlsClient(NAME, alpn=(b"h2", b"http/1.1"))
        )
        self.assertIn("no application protocol", str(error))

    def test_a_client_that_speaks_smtp(self) -> None:
        client = self.session(self.one, TlsClient(NAME, alpn=(b"h2", b"smtp")))
        self.assertEqual(client.connection.get_alpn_proto_negotiated(), b"smtp")

    def test_the_client_cannot_renegotiate(self) -> None:
        client = self.session(self.one, TlsClient(NAME, version=SSL.TLS1_2_VERSION))
        client.connection.renegotiate()
        self.assertRaises(SSL.Error, client.connection.do_handshake)


class Resuming(CertificateCase):
    def setUp(self) -> None:
        super().setUp()
        self.all = self.certificates(
            make_pair(self.directory, NAME), make_pair(self.directory, "other.example.org")
        )

    def again(self, version: int, name: str = NAME, before: float = 0.0) -> bool:
        """Whether a session is resumed, by its ticket, `before` seconds later."""
        client = self.session(self.all, TlsClient(name, version=version))
        self.assertFalse(client.resumed)
        self.clock.advance(before)
        return self.session(self.all, client.again()).resumed

    def test_by_a_ticket(self) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertTrue(self.again(version))
            self.assertTrue(self.again(version, "other.example.org"))

    def test_not_by_one_of_yesterday(self) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertTrue(self.again(version, before=PERIOD))
            self.assertFalse(self.again(version, before=KEY_LIFE))


class Unfit(CertificateCase):
    def setUp(self) -> None:
        super().setUp()
        self.pair = make_pair(self.directory, NAME)

    def refused(self, pair: Pair) -> str:
        error = self.assertRaises(Unusable, self.certificates, pair)
        return str(error)

    def test_what_is_not_there(self) -> None:
        self.assertEqual(
            self.refused(Pair("/nowhere/x.crt", self.pair.key)), "/nowhere/x.crt: No such file or directory"
        )
        self.assertEqual(
            self.refused(Pair(self.pair.certificate, "/nowhere/x.key")),
            "/nowhere/x.key: No such file or directory",
        )

    def test_what_is_no_file(self) -> None:
        self.assertIn("not a regular file", self.refused(Pair(str(self.directory), self.pair.key)))

    def test_what_is_neither_certificate_nor_key(self) -> None:
        self.assertEqual(
            self.refused(Pair(self.pair.key, self.pair.key)),
            f"{self.pair.key}: this is not a certificate in PEM form",
        )
        self.assertEqual(
            self.refused(Pair(self.pair.certificate, self.pair.certificate)),
            f"{self.pair.certificate}: this is not a private key in PEM form",
        )
        Path(self.pair.certificate).write_text(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        )
        self.assertIn(self.pair.certificate, self.refused(self.pair))

    def test_the_key_of_another(self) -> None:
        other = make_pair(self.directory, "other.example.org")
        told = self.refused(Pair(self.pair.certificate, other.key))
        self.assertIn(other.key, told)
        self.assertIn(self.pair.certificate, told)

    def test_a_key_under_a_passphrase(self) -> None:
        key = load_pem_private_key(Path(self.pair.key).read_bytes(), None)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        Path(self.pair.key).write_bytes(secret)
        self.assertIn(f"{self.pair.key}: the key is encrypted", self.refused(self.pair))

    def test_dates_are_a_warning_only(self) -> None:
        old = make_pair(self.directory, "old.example.org", days=0.5)
        future = make_pair(self.directory, "new.example.org", start=START.replace(year=2027))
        self.session(self.certificates(old, future))
        self.assertEqual(
            self.warnings,
            [
                f"{old.certificate}: the certificate expired on 2026-01-01",
                f"{future.certificate}: the certificate is not valid before 2027-01-01",
            ],
        )


class Changing(CertificateCase):
    def setUp(self) -> None:
        super().setUp()
        self.pair = make_pair(self.directory, NAME, common="first", file="pair")
        self.other = make_pair(self.directory, "other.example.org")
        self.all = self.certificates(self.pair, self.other)

    def renew(self, common: str) -> None:
        make_pair(self.directory, NAME, common=common, file="pair")

    def shown(self, name: str = NAME) -> str:
        return self.session(self.all, TlsClient(name)).subject

    def test_a_new_one_is_seen_within_a_minute(self) -> None:
        self.renew("second")
        self.assertEqual(self.shown(), "first")
        self.clock.advance(PERIOD)
        self.assertEqual(self.shown(), "second")

    def test_a_new_one_is_seen_when_asked(self) -> None:
        self.renew("second")
        self.all.refresh()
        self.assertEqual(self.shown(), "second")

    def test_after_the_clock_was_set_back(self) -> None:
        back = Clock()
        self.all._watch = Watch(back.seconds, self.warnings.append)
        self.renew("second")
        self.assertEqual(self.shown(), "second")

    def test_sessions_under_way_go_on(self) -> None:
        factory = TLSMemoryBIOFactory(self.all, False, Factory.forProtocol(Echo), self.clock)
        protocol: Any = factory.buildProtocol(None)
        transport, client = StringTransport(), TlsClient(NAME)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        converse(client, transport)
        self.renew("second")
        self.all.refresh()
        client.say(b"still here")
        converse(client, transport)
        self.clock.advance(0)
        converse(client, transport)
        self.assertEqual(client.heard(), b"still here")
        self.assertEqual(client.subject, "first")

    def test_B5_what_is_unfit_leaves_the_old_in_use(self) -> None:
        for damage, word in (
            (lambda: Path(self.pair.certificate).write_text("nonsense"), "not a certificate"),
            (lambda: os.replace(self.other.key, self.pair.key), "not the key"),
            (lambda: os.unlink(self.pair.key), "No such file"),
        ):
            self.renew("renewed")
            self.clock.advance(PERIOD)
            self.assertEqual(self.shown(), "renewed")
            self.warnings.clear()
            damage()
            for _ in range(3):
                self.clock.advance(PERIOD)
                self.assertEqual(self.shown(), "renewed")
            [told] = [text for text in self.warnings if str(self.directory / "pair") in text]
            self.assertIn(word, told)
            self.assertIn("stays in use", told)

    def test_B5_what_may_not_be_read_any_more_is_told(self) -> None:
        allowed = os.access
        self.patch(os, "access", lambda path, mode: path != self.pair.key and allowed(path, mode))
        os.unlink(self.pair.key)
        self.all.refresh()
        self.assertEqual(len(self.warnings), 1)
        self.assertEqual(self.shown(), "first")

    def test_one_that_is_unfit_does_not_hold_up_another(self) -> None:
        Path(self.pair.certificate).write_text("nonsense")
        make_pair(self.directory, "other.example.org", common="renewed", file="other.example.org")
        self.all.refresh()
        self.assertEqual(self.shown(), "first")
        self.assertEqual(self.shown("other.example.org"), "renewed")


class Nothing(CertificateCase):
    def test_no_pair_no_tls(self) -> None:
        self.assertFalse(self.certificates().offered)
        self.assertTrue(self.certificates(make_pair(self.directory, NAME)).offered)
