"""TLS for the doors: certificates, chosen by the name a client asks for, and read again when they change.

The doors ask `Certificates` for the server side of each encrypted connection. Certificate and key of a pair
are PEM files; the certificate's issuers may follow it. TLS 1.2 and 1.3 only. Sessions are resumed by tickets,
whose keys are in memory alone and changed daily (RFC 5077 section 5.5). A client that says which protocols it
can speak (ALPN) and does not name SMTP was sent here by somebody else, and is cut off.

When things fail: what was never read raises `Unusable`, which names the file. Later, what was read stays in
use, with a warning, until the files change again: so it is when an account that is not root cannot read them.
Sessions in progress keep what they began with. RFC 3207, RFC 8314, RFC 6066 section 3, RFC 7301.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from postoffice.interfaces import IEncryption
from postoffice.mail.reply import printable
from postoffice.watched import Watch, read

# Seconds between two looks at the files, and after which tickets are given under new keys.
PERIOD = 60.0
KEY_LIFE = 86400.0
# Seconds for which a session can be resumed.
TICKET_LIFE = 7200

PROTOCOL = b"smtp"
# What every client of the last ten years can do, with forward secrecy and authenticated encryption; those of
# TLS 1.3 are all good.
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK"

_Key = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
_Identity = tuple[int, int, int, bool] | None


class Unusable(Exception):
    """A certificate cannot be used; the message names the file, `path`, and what is wrong with it."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path


@frozen
class Pair:
    """The paths of a certificate and of its key."""

    certificate: str
    key: str


@frozen(eq=False)
class _Credential:
    """What a pair holds: the certificate with its issuers, its key, and the names it is good for."""

    chain: Sequence[x509.Certificate]
    key: _Key
    names: frozenset[bytes]

    @classmethod
    def load(cls, pair: Pair) -> _Credential:
        """Errors: `Unusable`."""
        try:
            chain = x509.load_pem_x509_certificates(_read(pair.certificate))
            names = _names(chain[0])
        except ValueError:
            raise Unusable(pair.certificate, "this is not a certificate in PEM form") from None
        try:
            key = load_pem_private_key(_read(pair.key), None)
        except TypeError:
            raise Unusable(pair.key, "the key is encrypted, and there is nobody to ask how") from None
        except (ValueError, UnsupportedAlgorithm):
            raise Unusable(pair.key, "this is not a private key in PEM form") from None
        if not isinstance(key, _Key):
            raise Unusable(pair.key, "TLS needs a key for RSA, ECDSA or Ed25519")
        if _public(key) != _public(chain[0]):
            raise Unusable(pair.key, f"this is not the key of the first certificate in {pair.certificate}")
        credential = cls(chain, key, names)
        try:
            credential.context()
        except SSL.Error as error:
            raise Unusable(pair.certificate, _reason(error)) from None
        return credential

    def context(self) -> SSL.Context:
        """What a connection is made from. Tickets are given under keys of its own."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_cipher_list(CIPHERS)
        # An idle session is not to hold on to buffers of 16 KiB each way.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # All that is needed to resume a session is in the client's ticket.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(PROTOCOL)
        context.set_timeout(TICKET_LIFE)
        context.set_alpn_select_callback(_choose_protocol)
        context.use_certificate(self.chain[0])
        for issuer in self.chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(self.key)
        return context

    def complaint(self, now: float) -> str:
        """What clients that look at the dates will say; empty if nothing."""
        when = datetime.fromtimestamp(now, UTC)
        first, last = self.chain[0].not_valid_before_utc, self.chain[0].not_valid_after_utc
        if when > last:
            return f"the certificate expired on {last:%Y-%m-%d}"
        return f"the certificate is not valid before {first:%Y-%m-%d}" if when < first else ""


class _Contexts:
    """One context for each certificate, made at the same time. The first serves whoever asks for no other."""

    def __init__(self, credentials: Sequence[_Credential]) -> None:
        contexts = [credential.context() for credential in credentials]
        self._by_name: dict[bytes, SSL.Context] = {}
        for credential, context in zip(credentials, contexts, strict=True):
            for name in credential.names:
                self._by_name.setdefault(name, context)
        self._first = contexts[0]
        self._first.set_tlsext_servername_callback(self._choose)

    def connection(self) -> SSL.Connection:
        """The server side of a new connection."""
        return SSL.Connection(self._first, None)

    def _choose(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").lower().rstrip(b".")
        # A wildcard stands for one label (RFC 6125 section 6.4.3).
        context = self._by_name.get(name) or self._by_name.get(b"*." + name.partition(b".")[2])
        if context is not None and context is not self._first:
            connection.set_context(context)


@frozen
class Loaded:
    """A pair as it was read: what tells its files from others, and what was in them."""

    identities: tuple[_Identity, _Identity]
    credential: _Credential


@implementer(IEncryption)
class Certificates:
    """The certificates of the service, none before the first `take`; root may have to `read` them."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._loaded: dict[Pair, Loaded] = {}
        self._contexts: _Contexts | None = None
        self._made = 0.0
        self._look = 0.0

    @property
    def offered(self) -> bool:
        """Whether there is any, and so TLS."""
        return self._contexts is not None

    def read(self, pairs: Iterable[Pair]) -> dict[Pair, Loaded]:
        """What these pairs hold now; of one that is in use already, what it held if it cannot be used now.

        Errors: `Unusable`, for one that is not in use.
        """
        return {pair: self._again(pair) if pair in self._loaded else _load(pair) for pair in pairs}

    def take(self, loaded: dict[Pair, Loaded]) -> None:
        """Use what was read for the sessions to come."""
        now = self._watch.seconds()
        before, self._loaded = self._loaded, loaded
        self._look = now + PERIOD
        credentials = [one.credential for one in loaded.values()]
        same = credentials == [one.credential for one in before.values()]
        if same and self._made <= now < self._made + KEY_LIFE:
            return
        self._made = now
        for pair, one in loaded.items():
            complaint = one.credential.complaint(now)
            if complaint:
                self._watch.warn(f"{pair.certificate}: {complaint}")
        self._contexts = _Contexts(credentials) if credentials else None

    def refresh(self) -> None:
        """Read again what changed; what cannot be used any more stays in use as it was, with a warning."""
        self.take(self.read(self._loaded))

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """The server side of a new connection, with certificates at most a minute old."""
        # The clock may have been set back.
        if not self._look - PERIOD <= self._watch.seconds() < self._look:
            self.refresh()
        assert self._contexts is not None, "nobody is offered TLS where there is no certificate"
        return self._contexts.connection()

    def _again(self, pair: Pair) -> Loaded:
        before = self._loaded[pair]
        identities = _identities(pair)
        if identities == before.identities:
            return before
        try:
            return Loaded(identities, _Credential.load(pair))
        except Unusable as error:
            self._watch.warn(f"{error}; the certificate that was read before stays in use")
            return Loaded(identities, before.credential)


def _load(pair: Pair) -> Loaded:
    # In this order: what changes between the two is seen at the next look.
    return Loaded(_identities(pair), _Credential.load(pair))


class _WrongProtocol(SSL.Error):
    """The client speaks another protocol than SMTP; OpenSSL sends the alert no_application_protocol."""


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if PROTOCOL in offered:
        return PROTOCOL
    spoken = ", ".join(name.decode("latin-1") for name in offered)
    raise _WrongProtocol([("", "", f"the client speaks {printable(spoken, 80)}, not smtp")])


def _read(path: str) -> bytes:
    try:
        return read(path)[1]
    except OSError as error:
        raise Unusable(path, error.strerror or str(error)) from None


def _names(certificate: x509.Certificate) -> frozenset[bytes]:
    """The DNS names of a certificate; its common name only where there are none."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names: list[Any] = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [attribute.value for attribute in common]
    return frozenset(str(name).lower().encode("ascii", "replace") for name in names)


def _public(holder: Any) -> bytes:
    data: bytes = holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


def _reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args else None
    return str(queue[-1][2]) if queue else "it cannot be used for TLS"


def _identities(pair: Pair) -> tuple[_Identity, _Identity]:
    return _identity(pair.certificate), _identity(pair.key)


def _identity(path: str) -> _Identity:
    """What differs when a file was changed, replaced, or is not ours to read any more."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_size, os.access(path, os.R_OK)
