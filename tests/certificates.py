"""Certificates made at test time, and the client side of a TLS session without a socket."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.testing import StringTransport

from postoffice.services.tls import Pair

NAME = "mx.example.org"
START = datetime(2026, 1, 1, tzinfo=UTC)
"""When the certificates begin to be valid where nothing else is said."""

NOW = START.timestamp() + 86400.0


@define
class Authority:
    """Somebody who signs: itself where `issuer` is None."""

    name: x509.Name
    key: Any
    certificate: x509.Certificate | None = None


def authority(name: str = "A test authority") -> Authority:
    """An issuer of certificates, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = Authority(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key)
    who.certificate = _sign(who.name, who, key, (), START, 10000, ca=True)
    return who


def _sign(
    subject: x509.Name,
    issuer: Authority,
    key: Any,
    names: tuple[str, ...],
    start: datetime,
    days: float,
    ca: bool = False,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), False
        )
    algorithm = None if isinstance(issuer.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer.key, algorithm)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_pair(
    directory: Path,
    *names: str,
    kind: str = "ec",
    start: datetime = START,
    days: float = 10000,
    common: str = "",
    issuer: Authority | None = None,
    file: str = "",
) -> Pair:
    """A certificate for `names` and its key, in `<file>.crt` and `<file>.key` of `directory`."""
    key = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common or (names or (NAME,))[0])])
    certificate = _sign(subject, issuer or Authority(subject, key), key, names, start, days)
    chain = [certificate, *([issuer.certificate] if issuer and issuer.certificate else [])]
    stem = directory / (file or (names or (common,))[0].replace("*", "any"))
    pair = Pair(f"{stem}.crt", f"{stem}.key")
    Path(pair.certificate).write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    Path(pair.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair


class TlsClient:
    """The client side of one TLS session: `take` what the server sent, `give` what goes to it."""

    def __init__(
        self,
        name: str | None = None,
        alpn: tuple[bytes, ...] = (),
        version: int | None = None,
        ciphers: bytes | None = None,
    ) -> None:
        self.context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if version is not None:
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
        if ciphers is not None:
            context.set_cipher_list(ciphers)
        if alpn:
            context.set_alpn_protos(list(alpn))
        self.name = name
        self._begin()

    def _begin(self) -> None:
        self.connection = SSL.Connection(self.context, None)
        self.connection.set_connect_state()
        if self.name is not None:
            self.connection.set_tlsext_host_name(self.name.encode())
        self.done = False
        self.plain = b""

    def again(self) -> Self:
        """Begin anew, with the ticket of the session before."""
        ticket = self.connection.get_session()
        # OpenSSL forgets the ticket of a session that nobody said goodbye in.
        self.connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        self._begin()
        if ticket is not None:
            self.connection.set_session(ticket)
        return self

    def give(self) -> bytes:
        """What goes to the server now."""
        if not self.done:
            try:
                self.connection.do_handshake()
                self.done = True
            except SSL.WantReadError:
                pass
        data = b""
        while True:
            try:
                data += self.connection.bio_read(1 << 16)
            except SSL.WantReadError:
                return data

    def take(self, data: bytes) -> None:
        """What came from the server; what it says inside is added to `plain`. Errors: `SSL.Error`."""
        if data:
            self.connection.bio_write(data)
        if not self.done:
            return
        while True:
            try:
                self.plain += self.connection.recv(1 << 16)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return

    def say(self, data: bytes) -> None:
        """Encrypt; it goes with the next `give`."""
        self.connection.send(data)

    def heard(self) -> bytes:
        """What the server said inside since it was asked last."""
        plain, self.plain = self.plain, b""
        return plain

    @property
    def resumed(self) -> bool:
        return bool(lib.SSL_session_reused(self.connection._ssl))

    @property
    def subject(self) -> str:
        """The common name in the certificate the server showed."""
        certificate = self.connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def converse(client: TlsClient, transport: StringTransport) -> None:
    """Carry what client and server have for each other to and fro, until they have no more to say.

    `transport.protocol` is the server, as it is with a connection.
    """
    while True:
        data = client.give()
        if data and not transport.disconnected:
            transport.protocol.dataReceived(data)
        answer = transport.value()
        transport.clear()
        if answer:
            client.take(answer)
        elif not data:
            return
