"""TLS with a running service: other people's clients, attacks in raw bytes, certificates renewed."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from postoffice.services.tls import Pair
from tests.certificates import START, Authority, authority, make_pair
from tests.live.milter import SocketMilter
from tests.live.office import DOMAIN, NAME, OfficeCase, furnish, settings, stored
from tests.live.raw import PATIENCE, Wire
from tests.live.test_trouble import Rooted
from tests.peers import HOST, NOBODY, Postoffice, free_port, passable
from tests.support import need, need_root, program

OTHER = "mail.other.test"
ALICE = f"alice@{DOMAIN}".encode()
STARTTLS = b"STARTTLS"


def context(issuer: Authority | None = None) -> ssl.SSLContext:
    """What a client trusts: certificates of `issuer` for the name it asks for, or anybody."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if issuer is None:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    else:
        assert issuer.certificate is not None
        made.load_verify_locations(cadata=issuer.certificate.public_bytes(Encoding.DER))
    return made


class TlsCase(OfficeCase):
    """An office with certificates for two names, by an authority of ours."""

    def setUp(self) -> None:
        super().setUp()
        self.issuer = authority()
        self.pair = make_pair(self.directory, NAME, kind="rsa", issuer=self.issuer, file="one")
        self.other = make_pair(self.directory, OTHER, issuer=self.issuer, file="two")
        self.smtps = free_port()

    def secured(self, *lines: str, pairs: Sequence[Pair] = ()) -> Postoffice:
        """A running office that speaks TLS, on `self.smtps` from the beginning."""
        named = [
            line
            for pair in pairs or (self.pair, self.other)
            for line in (f"tls-cert={pair.certificate}", f"tls-key={pair.key}")
        ]
        return self.office(f"smtps={HOST}:{self.smtps}", *named, *lines)

    @contextmanager
    def inside(
        self, office: Postoffice, trust: ssl.SSLContext | None = None, name: str = NAME
    ) -> Iterator[Wire]:
        """An encrypted session, by STARTTLS."""
        with Wire(office.port) as wire:
            wire.reply()
            self.assertEqual(wire.ask(STARTTLS)[:4], b"220 ")
            self.encrypt(wire, trust, name)
            yield wire

    def encrypt(self, wire: Wire, trust: ssl.SSLContext | None = None, name: str = NAME) -> None:
        wire.socket = (trust or context(self.issuer)).wrap_socket(wire.socket, server_hostname=name)

    def letter(self, wire: Wire, subject: bytes) -> bytes:
        """Hand in a letter; the last reply."""
        wire.send(b"MAIL FROM:<s@far.test>\r\nRCPT TO:<%b>\r\nDATA\r\n" % ALICE)
        self.assertEqual(wire.replies(3), [250, 250, 354])
        wire.send(b"Subject: %b\r\n\r\n%b.\r\n" % (subject, b"a line of a letter\r\n" * 5000))
        return wire.reply()


class Filtered(TlsCase):
    def test_filters_are_told_of_the_encrypted_session_alone(self) -> None:
        milter = SocketMilter(str(self.directory / "filter"), {})
        self.addCleanup(milter.stop)
        office = self.secured(f"filter={milter.path}")
        letter = b"MAIL FROM:<a@far.test>", b"RCPT TO:<" + ALICE + b">"
        with Wire(office.port) as wire:
            wire.reply()
            for line in (b"EHLO before.far.test", *letter, b"RSET"):
                self.assertEqual(wire.ask(line)[:3], b"250")
            self.assertEqual(wire.ask(STARTTLS)[:4], b"220 ")
            self.encrypt(wire)
            for line in (b"EHLO behind.far.test", *letter):
                self.assertEqual(wire.ask(line)[:3], b"250")
            self.assertEqual(wire.ask(b"DATA")[:3], b"354")
            self.assertEqual(wire.ask(b"Subject: s\r\n\r\ntext\r\n.")[:3], b"250")
        self.eventually("delivered", lambda: stored(office), office)
        told = milter.connections[-1]
        self.assertRegex(told.commands, "^OCHMRAHMRTL+NBE")
        self.assertEqual(told.data(b"H"), [b"before.far.test\0", b"behind.far.test\0"])
        self.assertEqual(told.macros[b"M"]["i"], stored(office)[0].split(b" id ")[1].split()[0].decode())
        self.assertEqual(told.macros[b"H"]["{tls_version}"], "TLSv1.3")


class Conversing(TlsCase):
    def test_a_letter_either_way(self) -> None:
        office = self.secured()
        with self.inside(office) as wire:
            self.assertNotIn(b"STARTTLS", wire.ask(b"EHLO me.test"))
            self.assertEqual(self.letter(wire, b"half-way")[:4], b"250 ")
        with Wire(self.smtps) as wire:
            self.encrypt(wire)
            self.assertEqual(wire.reply()[:4], b"220 ")
            wire.ask(b"EHLO me.test")
            self.assertEqual(self.letter(wire, b"from the beginning")[:4], b"250 ")
        self.eventually("both letters", lambda: len(stored(office)) == 2, office)
        for letter in stored(office):
            self.assertIn(b"(using TLSv1.3 with cipher TLS_", letter)
            self.assertIn(b" with ESMTPS id ", letter)
            self.assertEqual(letter.count(b"a line of a letter\n"), 5000)
        told = "> using TLSv1.3 with cipher TLS_"
        self.eventually("both lines", lambda: office.log().count(told) == 2, office)

    def test_the_certificate_of_the_name(self) -> None:
        office = self.secured()
        for name in (NAME, OTHER):
            with self.inside(office, name=name) as wire:
                self.assertEqual(wire.ask(b"NOOP")[:4], b"250 ")

    def test_a_client_that_answers_no_goodbye_is_let_go(self) -> None:
        office = self.secured()
        with self.inside(office) as wire:
            self.assertEqual(wire.ask(b"QUIT")[:4], b"221 ")
            self.assertEqual(wire.reply(), b"")


class Injecting(TlsCase):
    """Checklist B1: whoever is in between adds plain text to what the client says."""

    def setUp(self) -> None:
        super().setUp()
        self.service = self.secured()

    def plain(self) -> Wire:
        wire = Wire(self.service.port)
        self.addCleanup(wire.socket.close)
        wire.reply()
        wire.ask(b"EHLO me.test")
        return wire

    def test_B1_T1_T2_T3_what_stands_behind_it_closes(self) -> None:
        for behind in (b"NOOP\r\n", b"MAIL FROM:<x@far.test>\r\n", b"DAT", b"\r\n", b"\0"):
            wire = self.plain()
            wire.send(b"STARTTLS\r\n" + behind)
            self.assertEqual(wire.reply()[:4], b"554 ")
            self.assertEqual(wire.reply(), b"")

    def test_B1_T4_not_in_a_transaction(self) -> None:
        wire = self.plain()
        wire.ask(b"MAIL FROM:<x@far.test>")
        self.assertEqual(wire.ask(STARTTLS)[:4], b"503 ")
        wire.ask(b"RSET")
        wire.ask(STARTTLS)
        self.encrypt(wire)
        self.assertEqual(wire.ask(b"RCPT TO:<%b>" % ALICE)[:4], b"503 ")

    def test_B1_T5_bytes_before_the_handshake_close(self) -> None:
        for injected in (b"NOOP\r\n", b"MAIL FROM:<x@far.test>\r\n"):
            wire = self.plain()
            self.assertEqual(wire.ask(STARTTLS)[:4], b"220 ")
            wire.send(injected)
            with self.assertRaises(OSError):
                self.encrypt(wire)
        self.eventually(
            "both reasons", lambda: self.service.log().count("TLS handshake with") == 2, self.service
        )

    def test_B1_T6_not_a_second_time(self) -> None:
        with self.inside(self.service) as wire:
            wire.ask(b"EHLO me.test")
            self.assertEqual(wire.ask(STARTTLS)[:4], b"503 ")
            self.assertEqual(wire.ask(b"NOOP")[:4], b"250 ")

    def test_B4_plain_text_where_there_is_tls(self) -> None:
        for said in (b"EHLO me.test\r\n", b"GET / HTTP/1.1\r\nHost: secret.test\r\n\r\n"):
            with Wire(self.smtps) as wire:
                wire.send(said)
                heard = b""
                while data := wire.socket.recv(1000):
                    heard += data
                self.assertLess(len(heard), 8)
                self.assertNotIn(b"secret", heard)

    def test_B4_tls_where_there_is_plain_text(self) -> None:
        with Wire(self.service.port) as wire:
            wire.reply()
            with self.assertRaises(OSError):
                self.encrypt(wire)
        self.assertNotIn("TLS handshake with", self.service.log())


class OpenSSL(TlsCase):
    """The client everybody tries a server with."""

    def setUp(self) -> None:
        super().setUp()
        need("openssl")
        self.service = self.secured()

    def s_client(self, *words: str, port: int = 0, data: bytes = b"QUIT\r\n") -> str:
        """What it prints; it says `data` when the handshake is over."""
        done = subprocess.run(
            [program("openssl"), "s_client", "-connect", f"{HOST}:{port or self.smtps}", "-ign_eof", *words],
            input=data,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return (done.stdout + done.stderr).decode(errors="replace")

    def test_versions(self) -> None:
        for version in ("-tls1_2", "-tls1_3"):
            for words, port in ((("-starttls", "smtp"), self.service.port), ((), self.smtps)):
                said = self.s_client(version, *words, port=port)
                self.assertIn(f"New, TLSv{version[4:].replace('_', '.')}, Cipher is ", said)
                self.assertIn("221 2.0.0", said)
        for version in ("-tls1", "-tls1_1"):
            said = self.s_client(version, "-cipher", "DEFAULT:@SECLEVEL=0")
            self.assertIn("alert protocol version", said)
            self.assertIn("Cipher is (NONE)", said)

    def test_ciphers_without_forward_secrecy(self) -> None:
        for ciphers in ("AES128-GCM-SHA256", "AES256-SHA", "NULL-SHA256:@SECLEVEL=0", "aNULL:@SECLEVEL=0"):
            self.assertIn("alert handshake failure", self.s_client("-tls1_2", "-cipher", ciphers))

    def test_a_session_is_resumed_by_its_ticket(self) -> None:
        ticket = str(self.directory / "ticket")
        for version in ("-tls1_2", "-tls1_3"):
            self.assertIn("New, TLS", self.s_client(version, "-sess_out", ticket))
            for words, port in ((("-starttls", "smtp"), self.service.port), ((), self.smtps)):
                said = self.s_client(version, "-sess_in", ticket, *words, port=port)
                self.assertIn("Reused, TLS", said)
                self.assertIn("221 2.0.0", said)

    def test_B4_other_protocols(self) -> None:
        for offered in ("h2", "http/1.1", "h2,http/1.1,imap"):
            said = self.s_client("-alpn", offered)
            self.assertIn("alert no application protocol", said)
            self.assertNotIn("220 ", said)
        self.assertIn("ALPN protocol: smtp", self.s_client("-alpn", "http/1.1,smtp"))
        self.eventually(
            "the reason",
            lambda: "failed: the client speaks h2, http/1.1, imap, not smtp" in self.service.log(),
            self.service,
        )

    def test_names(self) -> None:
        for asked, shown in ((NAME, NAME), (OTHER, OTHER), ("mail.nowhere.test", NAME)):
            self.assertIn(f"subject=CN = {shown}", self.s_client("-servername", asked))
        self.assertIn(f"subject=CN = {NAME}", self.s_client("-noservername"))
        self.assertIn(f"issuer=CN = {self.issuer.name.rfc4514_string()[3:]}", self.s_client())

    def test_no_renegotiation(self) -> None:
        """`R` on a line of its own asks for it."""
        done = subprocess.run(
            [program("openssl"), "s_client", "-connect", f"{HOST}:{self.smtps}", "-tls1_2"],
            input=b"R\n",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertIn(b"no renegotiation", done.stderr)


class Renewing(TlsCase):
    """Checklist B5: certificates are changed, and changed for the worse, while clients come and stay."""

    def renew(self, office: Postoffice, mode: int = 0o644) -> None:
        """Another certificate for the same name, by another authority; the key gets a mode."""
        self.issuer = authority("Another authority")
        pair = make_pair(self.directory, NAME, issuer=self.issuer, file="new")
        # Whoever renews may do it in this order, with time between the two.
        os.chmod(pair.key, mode)
        os.replace(pair.certificate, self.pair.certificate)
        os.replace(pair.key, self.pair.key)
        self.reload(office)

    def reload(self, office: Postoffice) -> None:
        before = office.log().count("configuration read again")
        os.kill(office.pid, signal.SIGHUP)
        self.eventually("reload", lambda: office.log().count("configuration read again") > before, office)

    def test_B5_swapped_under_load(self) -> None:
        office = self.secured(pairs=[self.pair])
        first, anybody = self.issuer, context()
        failures: list[str] = []
        enough = threading.Event()

        def come_and_go() -> None:
            while not enough.is_set():
                try:
                    with self.inside(office, anybody) as wire:
                        if self.letter(wire, b"under load")[:4] != b"250 ":
                            failures.append("refused")
                except Exception as error:
                    failures.append(repr(error))

        with self.inside(office, context(first)) as stays:
            threads = [threading.Thread(target=come_and_go) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(3):
                    good = Path(self.pair.certificate).read_bytes()
                    Path(self.pair.certificate).write_bytes(b"nonsense")
                    self.reload(office)
                    with self.inside(office, context(self.issuer)) as wire:
                        wire.ask(b"NOOP")
                    Path(self.pair.certificate).write_bytes(good)
                    self.renew(office)
                    with self.inside(office, context(self.issuer)) as wire:
                        wire.ask(b"NOOP")
            finally:
                enough.set()
                for thread in threads:
                    thread.join()
            self.assertEqual(failures, [])
            self.assertEqual(self.letter(stays, b"stayed")[:4], b"250 ")
        self.assertEqual(office.log().count("this is not a certificate in PEM form; the certificate"), 3)
        self.assertNotIn(" error ", office.log())

    def test_B5_a_key_that_only_root_reads(self) -> None:
        need_root()
        home = passable(self.directory / "office")
        furnish(home)
        nobody = pwd.getpwnam(NOBODY)
        os.chown(home / "mail", nobody.pw_uid, nobody.pw_gid)
        os.chmod(self.pair.key, 0o600)
        lines = [line.replace(f"{home}/control", f"{home}/run/control") for line in settings(home)]
        named = (f"tls-cert={self.pair.certificate}", f"tls-key={self.pair.key}", f"user={NOBODY}")
        office = Rooted([*lines, *named], home)
        self.addCleanup(office.stop)
        told = (
            f"warning {self.pair.key}: Permission denied; the certificate that was read before stays in use"
        )
        self.eventually("the warning", lambda: told in office.log(), office)
        first = context(self.issuer)
        self.renew(office, 0o600)
        with self.inside(office, first) as wire:
            wire.ask(b"EHLO me.test")
            self.assertEqual(self.letter(wire, b"x")[:4], b"250 ")


class Starting(TlsCase):
    """A certificate that is unfit: one line that names the file, and exit status 78."""

    def setUp(self) -> None:
        super().setUp()
        furnish(self.directory / "bad")

    def ask(self, mode: str, *lines: str) -> subprocess.CompletedProcess[str]:
        """Start in this mode with a configuration of these lines."""
        home = passable(self.directory / "bad")
        config = home / "postoffice.cf"
        config.write_text("\n".join([*settings(home), f"user={NOBODY}", *lines, ""]))
        return subprocess.run(
            [sys.executable, "-m", "postoffice.commands.postoffice", mode, "-C", str(config)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd="/",
            check=False,
        )

    def refused(self, *lines: str) -> str:
        checked, started = self.ask("-bt", *lines), self.ask("-bD", *lines)
        for done in (checked, started):
            self.assertEqual(done.returncode, os.EX_CONFIG, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertFalse((self.directory / "bad/spool").exists(), "nothing was made")
        self.assertIn(checked.stderr.removeprefix("postoffice: "), started.stderr)
        return started.stderr

    def test_exit_status_and_file(self) -> None:
        need_root()
        self.assertIn(
            ": tls-cert: /no/such.crt: No such file",
            self.refused("tls-cert=/no/such.crt", f"tls-key={self.pair.key}"),
        )
        self.assertIn(
            f": tls-key: {self.other.key}: this is not the key of the first certificate in "
            f"{self.pair.certificate}",
            self.refused(f"tls-cert={self.pair.certificate}", f"tls-key={self.other.key}"),
        )

    def test_one_that_expired_is_a_warning(self) -> None:
        old = make_pair(self.directory, NAME, issuer=self.issuer, days=1, start=START, file="old")
        office = self.secured(pairs=[old])
        warning = f"warning {old.certificate}: the certificate expired on 2026-01-02"
        self.eventually("the warning", lambda: warning in office.log(), office)
        with self.inside(office, context()) as wire:
            self.assertEqual(wire.ask(b"NOOP")[:4], b"250 ")
        checked = self.ask("-bt", f"tls-cert={old.certificate}", f"tls-key={old.key}")
        told = f"# warning: {old.certificate}: the certificate expired on 2026-01-02\n"
        self.assertIn(told, checked.stdout, checked.stderr)


class Waiting(TlsCase):
    def test_a_client_that_never_says_hello(self) -> None:
        """It holds a place until the time for a handshake is over; `timeout` shortens that."""
        office = self.secured("timeout=1")
        with socket.create_connection((HOST, self.smtps), PATIENCE) as silent:
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(silent.recv(100), b"")
        self.eventually("the reason", lambda: "failed: the handshake took too long" in office.log(), office)
