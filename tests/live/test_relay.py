"""Letters for other hosts: to smtp-sink and Postfix, by `relay-host` and by MX, refused there and put off."""

from __future__ import annotations

import random
import smtplib
import socket
import subprocess
from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from tests.live.office import DOMAIN, OfficeCase, run, stored
from tests.live.raw import Elsewhere
from tests.live.test_dns_live import HEAD, NSD
from tests.live.test_nothing_lost import make_letter, whole
from tests.peers import HOST, Postfix, Postoffice, SmtpSink, passable, wait_until
from tests.support import need, need_root, program

ALICE = f"alice@{DOMAIN}"
FAR = "192.0.2.7"
OWN = "192.0.2.9"
STRANGER = "198.51.100.1"
LETTER = (
    b"From: alice@here.test\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n.\r\n..dots\r\n"
    + b"x" * 998
    + b"\r\nend\r\n"
)
ZONE = f"""$ORIGIN test.
{HEAD}
ns A 127.0.0.1
mx1 A {FAR}
here-too A 127.0.0.1
one MX 10 mx1
second MX 5 nowhere
second MX 10 mx1
ours MX 5 here-too
ours MX 10 mx1
no-mx A {FAR}
null MX 0 .
own A {OWN}
best MX 10 own
best MX 20 mx1
equal MX 10 own
equal MX 10 mx1
alone A {OWN}
others-down MX 10 nowhere
others-down MX 20 own
backup MX 10 mx1
backup MX 20 own
"""


def hand_in(office: Postoffice, recipients: Sequence[str], letter: bytes = LETTER) -> None:
    """A letter of Alice's, by smtplib."""
    with smtplib.SMTP(HOST, office.port, timeout=30) as client:
        client.sendmail(ALICE, recipients, letter, ["BODY=8BITMIME"])


class EverywhereSink(SmtpSink):
    """smtp-sink on every address of its network."""

    def command(self) -> Sequence[str | Path]:
        *words, _, backlog = super().command()
        return [*words, f"inet:0.0.0.0:{self.port}", backlog]


class RelayCase(OfficeCase):
    """Another host to send to, and a reader of bounces."""

    def sink(self, **more: object) -> SmtpSink:
        """An smtp-sink that keeps its letters."""
        sink = SmtpSink(self.directory / "sink", dump="files", **more)  # type: ignore[arg-type]
        self.addCleanup(sink.stop)
        return sink

    def bounce(self, office: Postoffice) -> tuple[Message, Message, Message, Message]:
        """The one letter in Alice's mailbox: a report, and its three parts."""
        self.eventually("a bounce", lambda: stored(office), office)
        (found,) = stored(office)
        report = message_from_bytes(found)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        self.assertEqual(report["Return-Path"], "<>")
        self.assertEqual((report["To"], report.defects), (ALICE, []))
        parts = report.get_payload()
        assert isinstance(parts, list)
        text, status, original = parts
        self.assertEqual(
            [part.get_content_type() for part in parts],
            ["text/plain", "message/delivery-status", "text/rfc822-headers"],
        )
        return report, text, status, original

    def recipients_of(self, status: Message) -> list[Message]:
        """The blocks of a delivery status that are about recipients."""
        about, *recipients = status.get_payload()
        assert isinstance(about, Message)
        self.assertEqual(about["Reporting-MTA"], "dns; mail.here.test")
        return [block for block in recipients if isinstance(block, Message)]


class Relay(RelayCase):
    """By `relay-host`."""

    def test_sink_byte_for_byte(self) -> None:
        sink = self.sink()
        office = self.office(f"relay-host=[{HOST}]:{sink.port}")
        hand_in(office, ["far@far.test"])
        hand_in(office, ["far@far.test"], make_letter("large", random.Random(1), large=True))
        self.eventually("both", lambda: "large" in whole(sink.letters()) and sink.count() == 2, office)
        (plain,) = [letter for letter in sink.letters() if b"X-Name" not in letter]
        self.assertIn(b"X-Mail-Args: <alice@here.test>", plain)
        self.assertIn(b"X-Rcpt-Args: <far@far.test>", plain)
        self.assertTrue(plain.rstrip(b"\n").endswith(LETTER.replace(b"\r\n", b"\n").rstrip(b"\n")), plain)

    def test_postfix(self) -> None:
        postfix = Postfix(self.directory / "postfix")
        self.addCleanup(postfix.stop)
        office = self.office(f"relay-host=[{HOST}]:{postfix.port}")
        hand_in(office, ["rcpt@postfix.test"])
        self.eventually("the letter", postfix.letters, office)
        (letter,) = postfix.letters()
        self.assertTrue(letter.endswith(LETTER.replace(b"\r\n", b"\n")), letter)

    def test_refused_recipients_come_back(self) -> None:
        postfix = Postfix(self.directory / "postfix")
        self.addCleanup(postfix.stop)
        office = self.office(f"relay-host=[{HOST}]:{postfix.port}")
        hand_in(office, ["rcpt@postfix.test", "one@elsewhere.test", "two@elsewhere.test"])
        self.eventually("the letter", postfix.letters, office)
        _, text, status, original = self.bounce(office)
        blocks = self.recipients_of(status)
        self.assertEqual(
            {block["Final-Recipient"] for block in blocks},
            {"rfc822; one@elsewhere.test", "rfc822; two@elsewhere.test"},
        )
        for block in blocks:
            self.assertEqual((block["Action"], block["Status"]), ("failed", "5.7.1"))
            self.assertRegex(
                block["Diagnostic-Code"], r"^smtp; 554 5\.7\.1 .*elsewhere\.test.*Relay access denied"
            )
            self.assertRegex(block["Remote-MTA"], r"^dns; ")
        self.assertIn("one@elsewhere.test", str(text.get_payload()))
        self.assertIn("Subject: Gr", str(original.get_payload()))
        self.assertNotIn("..dots", str(original.get_payload()))
        self.assertIn(b"empty", run(office, command="mailq").stdout)

    def test_put_off_and_tried_again(self) -> None:
        sink = self.sink(soft=["rcpt"])
        office = self.office(f"relay-host=[{HOST}]:{sink.port}")
        hand_in(office, ["far@far.test"])
        self.eventually("a try", lambda: b"450" in run(office, command="mailq").stdout, office)
        shown = run(office, command="mailq").stdout.decode()
        for words in ("1 request", ALICE, "far@far.test", "450"):
            self.assertIn(words, shown)
        sink.stop()
        willing = self.sink(port=sink.port)
        self.assertFalse(wait_until(lambda: willing.count() > 0, 1), "it is not due yet")
        self.assertEqual(run(office, "-bq").returncode, 0)
        self.assertTrue(willing.wait(1, 10), office.log())
        self.eventually("an empty queue", lambda: b"empty" in run(office, command="mailq").stdout, office)
        self.assertEqual(stored(office), [], "nobody is told of a delay")


class ExchangersCase(RelayCase):
    """A name server and another host, in a network of its own: loopback addresses never count there."""

    def setUp(self) -> None:
        super().setUp()
        need_root()
        need("nsd", "smtp-sink")
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        self.far = EverywhereSink(self.directory / "far", dump="files")
        self.addCleanup(self.far.stop)
        self.names = self.name_server()

    def exchanging(self, *lines: str) -> Postoffice:
        """An office that asks the name server, and sends to the other host."""
        return self.office(f"nameserver={HOST}:{self.names}", f"remote-port={self.far.port}", *lines)

    def name_server(self) -> int:
        """NSD with the zone; its port."""
        directory = self.directory / "nsd"
        directory.mkdir()
        (directory / "test.zone").write_text(ZONE)
        (directory / "reverse.zone").write_text(f"$ORIGIN 127.in-addr.arpa.\n{HEAD}")
        port = 5353
        (directory / "nsd.conf").write_text(NSD.format(port=port, directory=directory))
        process = subprocess.Popen(
            [program("nsd"), "-d", "-c", directory / "nsd.conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((HOST, port)) == 0

        self.assertTrue(wait_until(answers, 10), "nsd did not start")
        return port


class Exchangers(ExchangersCase):
    """By MX."""

    def setUp(self) -> None:
        super().setUp()
        self.exchange = self.exchanging()

    def test_found(self) -> None:
        """The best exchanger that has an address; without MX, the domain's own address."""
        for count, domain in enumerate(("one.test", "second.test", "no-mx.test"), 1):
            hand_in(self.exchange, [f"far@{domain}"])
            self.eventually(domain, lambda count=count: self.far.count() == count, self.exchange)
            self.eventually("a word of it", lambda at=domain: self.delivered(f"far@{at}"), self.exchange)
        for letter in self.far.letters():
            self.assertTrue(letter.rstrip(b"\n").endswith(b"\nend"), letter)

    def delivered(self, address: str) -> bool:
        """Whether the log says that a letter for `address` went to the far host."""
        return any(
            "deliver" in line and f"<{address}>" in line and FAR in line
            for line in self.exchange.log().splitlines()
        )

    def test_not_to_be_had(self) -> None:
        """No such domain, one that says it takes no mail, and one whose best exchanger is this machine.

        A client is told so at once, where the DNS has said it all; what a command hands in comes back.
        """
        for domain, code in (("gone.test", "5.1.2"), ("null.test", "5.1.10"), ("ours.test", "5.4.6")):
            if code != "5.4.6":
                refused = self.assertRaises(
                    smtplib.SMTPRecipientsRefused, hand_in, self.exchange, [f"far@{domain}"]
                )
                ((_, text),) = refused.recipients.values()
                self.assertTrue(text.startswith(code.encode()), text)
            letter = b"Subject: far\n\nfar\n"
            handed = run(self.exchange, "-bm", "-f", f"alice@{DOMAIN}", f"far@{domain}", data=letter)
            self.assertEqual(handed.returncode, 0, handed.stderr)
            _, _, status, _ = self.bounce(self.exchange)
            (block,) = self.recipients_of(status)
            self.assertEqual(block["Status"], code)
            self.assertEqual(block["Final-Recipient"], f"rfc822; far@{domain}")
            for path in (self.exchange.directory / "mail" / DOMAIN / "alice/new").iterdir():
                path.unlink()
        self.assertEqual(self.far.count(), 0)


class Pool(ExchangersCase):
    """Domains that the DNS makes ours, because this machine is one of their exchangers."""

    def setUp(self) -> None:
        super().setUp()
        words = f"addr add {OWN}/32 dev lo".split()
        subprocess.run([program("ip"), *words], check=True, capture_output=True)

    def opened(self, *lines: str) -> Postoffice:
        """An office where `sales` is an alias of Alice's, for strangers who come for the first time."""
        place = passable(self.directory / "office")
        (place / "aliases").write_text(f"sales: {ALICE}\n")
        return self.exchanging("greylist=0", "forward-all=0", *lines)

    def takes(self, office: Postoffice, address: str) -> tuple[int, bytes]:
        """What a stranger hears who has a letter for the address; where it is taken, he hands it in."""
        with smtplib.SMTP(HOST, office.port, timeout=30, source_address=(STRANGER, 0)) as client:
            client.ehlo()
            client.mail("far@one.test")
            answer = client.rcpt(address)
            if answer[0] == 250:
                self.assertEqual(client.data(LETTER)[0], 250)
        return answer

    def test_domains_of_ours(self) -> None:
        office = self.opened("mxpool=1")
        for count, domain in enumerate(("best", "equal", "alone", "others-down"), 1):
            self.assertEqual(self.takes(office, f"sales@{domain}.test")[0], 250)
            self.eventually(domain, lambda count=count: len(stored(office)) == count, office)
            code, text = self.takes(office, f"nobody-at-all@{domain}.test")
            self.assertEqual((code, text[:5]), (550, b"5.1.1"))
        self.assertEqual(self.takes(office, "sales@one.test")[0], 550)
        self.assertEqual(self.far.count(), 0)

    def test_release_1_5_0_the_better_one_gets_the_mail(self) -> None:
        """It waits while the better one is down. Who exists there is not for us to say."""
        office = self.opened("mxpool=1")
        self.far.stop()
        self.assertEqual(self.takes(office, "whoever@backup.test")[0], 250)
        self.eventually("it waits", lambda: b"refused" in run(office, command="mailq").stdout, office)
        self.far.start()
        self.assertEqual(run(office, "-bq").returncode, 0)
        self.eventually("the other host has it", lambda: self.far.letters(), office)
        self.assertEqual(self.takes(office, "sales@backup.test")[0], 250)
        self.eventually("both", lambda: len(self.far.letters()) == 2, office)
        self.eventually("nothing waits", lambda: b"empty" in run(office, command="mailq").stdout, office)
        self.assertEqual(stored(office), [])

    def test_without_mxpool_it_stays_here(self) -> None:
        office = self.opened()
        self.assertEqual(self.takes(office, "sales@backup.test")[0], 250)
        self.eventually("a letter here", lambda: stored(office), office)
        self.assertEqual(self.takes(office, "whoever@backup.test")[1][:5], b"5.1.1")
        self.assertEqual(self.far.count(), 0)
