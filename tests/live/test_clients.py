"""Other people's mail programs hand letters in, and other people's servers relay to us."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message

from cryptography.hazmat.primitives.serialization import Encoding

from tests.certificates import authority, make_pair
from tests.live.clients import CLIENTS, Account, Send, Way, by_curl, by_openssl, by_smtplib, run
from tests.live.office import DOMAIN, NAME, OfficeCase, stored
from tests.live.test_road import HEADER, lines_of
from tests.peers import HOST, Exim, Postfix, Postoffice, free_port, smtp_source
from tests.support import program

SENDER = "sender@far.test"
ALICE = f"alice@{DOMAIN}"
BOB = f"bob@{DOMAIN}"
USER = f"user@{DOMAIN}"
PASSWORD = "a pass word/%:="
LETTER = HEADER + "Grüße,\n.\n..\n.dot\nFrom here\n\nend\n".encode()


def hashed(password: str) -> str:
    """As htpasswd would write it."""
    return run([program("openssl"), "passwd", "-apr1", "-stdin"], f"{password}\n".encode()).strip()


def trace(letter: Message) -> str:
    """Our own Received line, in one line."""
    return " ".join(letter.get_all("Received", [])[0].split())


class Secure(OfficeCase):
    """Offices with a certificate, on a door of every kind."""

    def certified(self, *lines: str, users: Sequence[str] = (), name: str = "office") -> Postoffice:
        """An office with a certificate for its name and address, signed by one whom `self.trust` names."""
        signer = authority()
        assert signer.certificate is not None
        self.trust = self.directory / "trust.pem"
        self.trust.write_bytes(signer.certificate.public_bytes(Encoding.PEM))
        start = datetime.now(UTC) - timedelta(days=1)
        pair = make_pair(self.directory, NAME, HOST, issuer=signer, start=start)
        self.smtps, self.msp = free_port(), free_port()
        return self.office(
            f"msp={HOST}:{self.msp}",
            f"smtps={HOST}:{self.smtps}",
            f"tls-cert={pair.certificate}",
            f"tls-key={pair.key}",
            *lines,
            users={DOMAIN: users or [f"alice:{hashed(PASSWORD)}"]},
            name=name,
        )


class Submitting(Secure):
    """Every program, every way it can go."""

    def submits(self, name: str, send: Send) -> None:
        """The letter of a program arrives as it was sent, with a trace of the way it came."""
        office = self.certified()
        known: set[bytes] = set()
        for way, keyword in self.ways(office):
            sender = way.account.name if way.account else SENDER
            sent = send(way, sender, [ALICE], LETTER, self.directory)
            self.eventually(f"{name}: {way}", lambda known=known: set(stored(office)) - known, office)
            (found,) = set(stored(office)) - known
            known.add(found)
            self.assertEqual(found.partition(b"\n\n")[2], sent.partition(b"\n\n")[2])
            letter = message_from_bytes(found)
            self.assertIn(f" by {NAME} (Postoffice) with {keyword} id ", trace(letter), way)
            self.assertEqual("(using TLSv1.3 with cipher " in trace(letter), bool(way.tls), trace(letter))
            self.assertIn(f" for <{ALICE}>;", trace(letter))
            self.assertEqual(letter["Subject"], "a test")
        self.assertNotIn("Traceback", office.log())

    def test_openssl(self) -> None:
        office = self.certified()
        for count, way in enumerate(
            (Way(office.port, "starttls", self.trust), Way(self.smtps, "smtps", self.trust)), 1
        ):
            by_openssl(way, SENDER, [ALICE], LETTER, self.directory)
            self.eventually(f"{way}", lambda count=count: len(stored(office)) == count, office)
        for letter in stored(office):
            self.assertEqual(letter.partition(b"\n\n")[2], LETTER.partition(b"\n\n")[2])
            self.assertIn(" with ESMTPS id ", trace(message_from_bytes(letter)))

    def test_smtp_source_with_a_small_window(self) -> None:
        names = ["user", *(f"{number}user" for number in range(2, 21))]
        office = self.office(users={DOMAIN: names})
        done = smtp_source(
            office.port,
            sessions=5,
            messages=10,
            length=1 << 18,
            recipient=USER,
            arguments=["-T", "512", "-r", str(len(names))],
        )
        self.assertEqual((done.status, done.stderr), (0, ""))
        for name in names:
            self.eventually(f"ten for {name}", lambda name=name: len(stored(office, name)) == 10, office)

    def ways(self, office: Postoffice) -> list[tuple[Way, str]]:
        """Where programs go, and the keyword that stands in the trace of each."""
        by_login = Account(ALICE, PASSWORD, "LOGIN")
        in_plain = Account(ALICE, PASSWORD, "PLAIN")
        return [
            (Way(office.port), "ESMTP"),
            (Way(office.port, "starttls", self.trust), "ESMTPS"),
            (Way(self.smtps, "smtps", self.trust), "ESMTPS"),
            # This machine need not hide from itself.
            (Way(self.msp, account=by_login), "ESMTPA"),
            (Way(self.msp, "starttls", self.trust, by_login), "ESMTPSA"),
            (Way(self.msp, "starttls", self.trust, in_plain), "ESMTPSA"),
            (Way(self.smtps, "smtps", self.trust, by_login), "ESMTPSA"),
            (Way(self.smtps, "smtps", self.trust, in_plain), "ESMTPSA"),
        ]


def _method(name: str, send: Send) -> Callable[[Submitting], None]:
    def test(self: Submitting) -> None:
        self.submits(name, send)

    return test


for _name, _send in CLIENTS.items():
    setattr(Submitting, f"test_{_name.replace(' ', '_').replace('-', '_')}", _method(_name, _send))


class Relayed(Secure):
    """Servers that hand on to us what they were given, as MX hosts and submitting servers do."""

    LETTERS = (LETTER, HEADER + b"x\n", HEADER + lines_of(1 << 20, 3))

    def relays(self, office: Postoffice, port: int, log: Callable[[], str], sender: str) -> list[Message]:
        """Letters that go to a server on `port` arrive whole, once, and leave nothing behind."""
        file = self.directory / "letter"
        for letter in self.LETTERS:
            file.write_bytes(letter)
            # Two sessions at once, and two recipients of each letter.
            done = smtp_source(
                port,
                sessions=2,
                messages=4,
                length=None,
                sender=sender,
                recipient=USER,
                arguments=["-r", "2", "-F", str(file)],
            )
            self.assertEqual((done.status, done.stderr), (0, ""), log())
        self.eventually("all letters", lambda: len(stored(office, "user")) >= 12, office)
        self.eventually("all copies", lambda: len(stored(office, "2user")) >= 12, office)
        letters = stored(office, "user")
        for kind in self.LETTERS:
            body = kind.partition(b"\n\n")[2]
            whole = [one for one in letters if one.rstrip(b"\n").endswith(b"\n\n" + body.rstrip(b"\n"))]
            self.assertEqual(len(whole), 4)
        self.assertEqual((len(letters), len(stored(office, "2user"))), (12, 12))
        self.assertNotIn("Traceback", office.log())
        return list(map(message_from_bytes, letters))

    USERS = ("user", "2user")
    """Whom smtp-source makes up."""

    def by_postfix(
        self, office: Postoffice, port: int, keyword: str, sender: str = SENDER, **settings: str
    ) -> None:
        """Letters through a Postfix that goes to `port`."""
        postfix = Postfix(
            self.directory / "postfix",
            deliver=f"{HOST}:{port}",
            settings={"smtp_tls_CAfile": str(self.trust), "smtp_tls_loglevel": "1"} | settings,
        )
        self.addCleanup(postfix.stop)
        for letter in self.relays(office, postfix.port, postfix.log, sender):
            self.assertTrue(trace(letter).startswith("from postfix.test "), trace(letter))
            self.assertIn(f" with {keyword} id ", trace(letter))
        self.eventually("an empty queue", lambda: postfix.queued() == 0, office)
        self.assertNotIn("status=deferred", postfix.log())
        self.assertEqual("Verified TLS connection established" in postfix.log(), keyword != "ESMTP")

    def test_postfix(self) -> None:
        office = self.certified(users=self.USERS)
        self.by_postfix(office, office.port, "ESMTP")

    def test_postfix_starttls(self) -> None:
        office = self.certified(users=self.USERS)
        self.by_postfix(
            office,
            office.port,
            "ESMTPS",
            smtp_tls_security_level="secure",
            smtp_tls_secure_cert_match=NAME,
        )

    def test_postfix_auth(self) -> None:
        office = self.certified(users=(f"user:{hashed(PASSWORD)}", "2user"))
        accounts = self.directory / "accounts"
        accounts.write_text(f"[{HOST}]:{self.msp} {USER}:{PASSWORD}\n")
        self.by_postfix(
            office,
            self.msp,
            "ESMTPSA",
            sender=USER,
            smtp_sasl_auth_enable="yes",
            smtp_sasl_password_maps=f"texthash:{accounts}",
            smtp_sasl_security_options="noanonymous",
            smtp_tls_security_level="secure",
            smtp_tls_secure_cert_match=NAME,
        )

    def test_postfix_smtps(self) -> None:
        office = self.certified(users=self.USERS)
        self.by_postfix(
            office,
            self.smtps,
            "ESMTPS",
            smtp_tls_wrappermode="yes",
            smtp_tls_security_level="secure",
            smtp_tls_secure_cert_match=NAME,
        )

    def by_exim(
        self,
        office: Postoffice,
        port: int,
        keyword: str,
        transport: Sequence[str],
        sender: str = SENDER,
        rest: Sequence[str] = (),
    ) -> None:
        """Letters through an Exim that goes to `port`."""
        exim = Exim(self.directory / "exim", port, transport=transport, rest=rest)
        self.addCleanup(exim.stop)
        for letter in self.relays(office, exim.port, exim.log, sender):
            self.assertTrue(trace(letter).startswith("from exim.test "), trace(letter))
            self.assertIn(f" with {keyword} id ", trace(letter))
        self.eventually("an empty queue", lambda: exim.queued() == 0, office)
        self.assertNotIn(" == ", exim.log(), "nothing was postponed")
        self.assertEqual(exim.log().count(" K C="), 24, "everything came in chunks")

    def test_exim(self) -> None:
        office = self.certified(users=self.USERS)
        self.by_exim(office, office.port, "ESMTP", ["hosts_avoid_tls = *"])

    def test_exim_starttls(self) -> None:
        office = self.certified(users=self.USERS)
        self.by_exim(office, office.port, "ESMTPS", self.verified())

    def test_exim_smtps(self) -> None:
        office = self.certified(users=self.USERS)
        self.by_exim(office, self.smtps, "ESMTPS", ["protocol = smtps", *self.verified()])

    def exim_logs_in(self, mechanism: str, send: str) -> None:
        """Exim logs in as `user` before it sends; what it sends is separated by colons."""
        office = self.certified(users=(f"user:{hashed(PASSWORD)}", "2user"))
        self.by_exim(
            office,
            self.msp,
            "ESMTPSA",
            ["hosts_require_auth = *", *self.verified()],
            sender=USER,
            rest=(
                "begin authenticators",
                "ours:",
                "  driver = plaintext",
                f"  public_name = {mechanism}",
                f"  client_send = {send}",
            ),
        )

    def test_exim_auth_plain(self) -> None:
        self.exim_logs_in("PLAIN", f"^{USER}^{PASSWORD.replace(':', '::')}")

    def test_exim_auth_login(self) -> None:
        self.exim_logs_in("LOGIN", f": {USER} : {PASSWORD.replace(':', '::')}")

    def verified(self) -> tuple[str, ...]:
        """Lines of a transport that goes on only with a certificate it can verify."""
        return (
            "hosts_require_tls = *",
            f"tls_verify_certificates = {self.trust}",
            "tls_verify_hosts = *",
            f"tls_sni = {NAME}",
        )


class International(Secure):
    """Addresses beyond ASCII, from clients and through servers that know SMTPUTF8."""

    SENDER = "grüße@fär.test"
    LETTER = HEADER.replace(b"a test", "für Ülrike".encode()) + "Grüße\n".encode()

    def sent(self, port: int, send: Send = by_smtplib) -> None:
        """A letter as a client sends it."""
        send(Way(port), self.SENDER, [ALICE], self.LETTER, self.directory)

    def arrives(self, office: Postoffice) -> None:
        """The one letter is there, and says how it came."""
        self.eventually("the letter", lambda: len(stored(office)) == 1, office)
        (letter,) = stored(office)
        self.assertEqual(letter.partition(b"\n\n")[2], self.LETTER.partition(b"\n\n")[2])
        self.assertIn("Subject: für Ülrike\n".encode(), letter)
        self.assertIn("Return-Path: <grüße@xn--fr-via.test>\n".encode(), letter)
        self.assertIn(b" with UTF8SMTP", letter)

    def test_smtplib(self) -> None:
        office = self.certified()
        self.sent(office.port)
        self.arrives(office)

    def test_curl(self) -> None:
        office = self.certified()
        self.sent(office.port, by_curl)
        self.arrives(office)

    def test_postfix(self) -> None:
        office = self.certified()
        postfix = Postfix(
            self.directory / "postfix", deliver=f"{HOST}:{office.port}", settings={"smtputf8_enable": "yes"}
        )
        self.addCleanup(postfix.stop)
        self.sent(postfix.port)
        self.arrives(office)

    def test_exim(self) -> None:
        office = self.certified()
        exim = Exim(self.directory / "exim", office.port, main=["smtputf8_advertise_hosts = *"])
        self.addCleanup(exim.stop)
        self.sent(exim.port)
        self.arrives(office)


class Reports(Secure):
    """Senders ask for a report through a server of their own, which leaves it to us to make it (RFC 3461)."""

    def reported(self, port: int, office: Postoffice) -> None:
        """Bob sends to Alice through the server at `port` and hears from us, and once, that she has it."""
        with smtplib.SMTP(HOST, port, local_hostname="lib.far.test", timeout=60) as client:
            asked = ["RET=HDRS", "ENVID=an+2Bid"], ["NOTIFY=SUCCESS", f"ORCPT=rfc822;{ALICE}"]
            client.sendmail(BOB, [ALICE], LETTER, *asked)
        self.eventually("the letter", lambda: len(stored(office)) == 1, office)
        self.eventually("the report", lambda: len(stored(office, "bob")) == 1, office)
        (report,) = map(message_from_bytes, stored(office, "bob"))
        self.assertEqual(report.get_content_type(), "multipart/report")
        status = report.get_payload(1).as_string()  # type: ignore[union-attr]
        for line in (
            f"Reporting-MTA: dns; {NAME}",
            "Original-Envelope-Id: an+id",
            f"Original-Recipient: rfc822; {ALICE}",
            "Action: delivered",
        ):
            self.assertIn(line, status)
        self.assertNotIn("dot", report.get_payload(2).as_string(), "headers were asked for")  # type: ignore[union-attr]

    def test_postfix(self) -> None:
        office = self.certified(users=("alice", "bob"))
        postfix = Postfix(self.directory / "postfix", deliver=f"{HOST}:{office.port}")
        self.addCleanup(postfix.stop)
        self.reported(postfix.port, office)

    def test_exim(self) -> None:
        office = self.certified(users=("alice", "bob"))
        exim = Exim(self.directory / "exim", office.port, main=["dsn_advertise_hosts = *"])
        self.addCleanup(exim.stop)
        self.reported(exim.port, office)
