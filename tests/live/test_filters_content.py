"""Filters that look into letters: ClamAV, SpamAssassin and rspamd refuse, mark, hold and drop them."""

from __future__ import annotations

import base64

from tests.live.filters import FilterCase, field, letter, names
from tests.live.office import DOMAIN, run, stored
from tests.live.raw import Elsewhere
from tests.live.test_login import ALICE, PASSWORD, hashed, plain
from tests.peers.filters import VIRUS, ClamavMilter, Clamd, Rspamd, SpamassMilter, Spamd

ATTACHED = b"""\
MIME-Version: 1.0
Content-Type: application/octet-stream; name=x.bin
Content-Transfer-Encoding: base64
"""


class Clamav(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clamd = self.kept(Clamd(self.place("clamd")))

    def test_viruses_are_refused_in_the_words_of_the_filter(self) -> None:
        clamav = self.kept(ClamavMilter(self.place("filter"), self.clamd))
        office = self.filtered(clamav)
        clean = self.passes(office, letter())
        self.assertEqual(field(clean, b"X-Virus-Status"), [b"Clean\n"])
        self.assertEqual(len(field(clean, b"X-Virus-Scanned")), 1)
        # What a stranger says of it does not stand.
        clean = self.passes(office, letter(header=b"X-Virus-Status: Clean\nX-Virus-Scanned: by me\n"))
        self.assertEqual(field(clean, b"X-Virus-Status"), [b"Clean\n"])
        self.assertNotIn(b"by me", clean)
        attachment = letter(header=ATTACHED, body=base64.encodebytes(b"x" * 100 + VIRUS))
        for content in (letter(body=VIRUS + b"\n"), attachment):
            self.assertRegex(self.sent(office, content), rb"^550 5\.7\.1 Virus SIMPLE-TEST-SIG\S* found\r\n")
        self.assertEqual(len(stored(office)), 2)
        self.clamd.stop()
        self.assertEqual(self.sent(office, letter())[:3], b"451")
        clamav.kill()
        self.assertEqual(self.sent(office, letter())[:3], b"451")

    def test_viruses_are_held_or_dropped(self) -> None:
        holding = ClamavMilter(self.place("holding"), self.clamd, on_infected="Quarantine")
        office = self.filtered(self.kept(holding))
        self.assertEqual(self.sent(office, letter(body=VIRUS + b"\n"))[:3], b"250")
        self.release(office, "on hold")
        self.assertIn(VIRUS, self.arrived(office, set()))
        dropping = ClamavMilter(self.place("dropping"), self.clamd, on_infected="Blackhole")
        other = self.filtered(self.kept(dropping), name="other")
        self.assertEqual(self.sent(other, letter(body=VIRUS + b"\n"))[:3], b"250")
        self.passes(other, letter())
        self.assertEqual(len(stored(other)), 1)

    def test_viruses_are_taken_and_marked(self) -> None:
        clamav = self.kept(ClamavMilter(self.place("filter"), self.clamd))
        office = self.filtered(clamav, lines=["spam=accept"])
        marked = self.passes(office, letter(body=VIRUS + b"\n"))
        self.assertRegex(field(marked, b"X-Spam")[0], rb"Virus SIMPLE-TEST-SIG\S* found")
        # What a filter that rejects wants changed is not.
        self.assertEqual(field(marked, b"X-Virus-Status"), [])


class SpamAssassin(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)

    def test_spam(self) -> None:
        relay = r"\[ ip=192\.0\.2\.7 rdns= helo=client\.far\.test by=mail\.here\.test .* id=[0-9A-Z]+ "
        rules = [f"header FROM_FAR X-Spam-Relays-Untrusted =~ /^{relay}/", "score FROM_FAR 1"]
        spamd = self.kept(Spamd(self.place("spamd"), rules))
        office = self.filtered(self.kept(SpamassMilter(self.place("filter"), spamd)))
        forged = b"X-Spam-Status: No, score=-99\nX-Spam-Checker-Version: mine\nX-Spam-Report: fine\n"
        for content in (letter(b"plain"), letter(b"forged", forged)):
            marked = self.passes(office, content, source="192.0.2.7")
            (status,) = field(marked, b"X-Spam-Status")
            self.assertRegex(status, rb"^No, score=[0-9.]+ required=5\.0\s+tests=\S*FROM_FAR")
            self.assertEqual(len(field(marked, b"X-Spam-Checker-Version")), 1)
            self.assertNotIn(b"mine", marked)
        refused = self.sent(office, letter(b"SPAMMYTEST"), source="192.0.2.7")
        self.assertEqual(refused, b"550 5.7.1 Blocked by SpamAssassin\r\n")
        spamd.stop()
        self.assertNotIn(b"X-Spam-Status", names(self.passes(office, letter(b"unchecked"))))


class Rspamds(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        self.rspamd = self.kept(Rspamd(self.place("rspamd")))

    def test_what_it_can_do(self) -> None:
        office = self.filtered(self.rspamd)
        with self.calling(office, "192.0.2.7") as caller:
            for subject, answer in (
                (b"plain", rb"250 "),
                (b"REJECTME", rb"554 5\.7\.1 the subject says REJECTME\r\n\Z"),
                (b"SOFTME", rb"451 4\.7\.1 the subject says SOFTME\r\n\Z"),
                (b"MARKME", rb"250 "),
                (b"REWRITEME", rb"250 "),
                (b"HOLDME", rb"250 "),
                (b"DROPME", rb"250 "),
                (b"again", rb"250 "),
            ):
                caller.wire.ask(b"MAIL FROM:<left@far.test>")
                self.assertEqual(caller.wire.ask(b"RSET")[:3], b"250")
                self.assertRegex(caller.letter(letter(subject)), rb"^" + answer, subject)
        self.eventually("delivered", lambda: len(stored(office)) == 4, office)
        found = {field(content, b"Message-ID")[0].strip(): content for content in stored(office)}
        self.assertEqual(
            set(found), {b"<%b@far.test>" % each for each in (b"plain", b"MARKME", b"REWRITEME", b"again")}
        )
        for content in found.values():
            # Right below our own Received.
            at = names(content).index(b"Received")
            self.assertEqual(names(content)[at + 1], b"Authentication-Results", content)
            self.assertEqual(field(content, b"Authentication-Results")[0].split(b";")[0], b"mail.here.test")
            self.assertEqual(len(field(content, b"X-Spam-Status")), 1)
        self.assertEqual(field(found[b"<MARKME@far.test>"], b"X-Spam"), [b"Yes\n"])
        self.assertEqual(field(found[b"<REWRITEME@far.test>"], b"Subject"), [b"*** SPAM *** REWRITEME\n"])
        self.assertIn(b"on hold", run(office, command="mailq").stdout)

    def test_what_it_is_denied(self) -> None:
        lines = (
            f"{self.rspamd.address},deny=quarantine",
            f"{self.rspamd.address},deny=quarantine,ignore-denied-actions",
        )
        stubborn, ignored = (self.filtered(line, name=name) for line, name in zip(lines, "ab", strict=True))
        # It asks for all there is, whatever it is offered.
        self.assertEqual(self.sent(stubborn, letter(b"HOLDME"))[:3], b"451")
        self.assertIn(b"Authentication-Results", names(self.passes(ignored, letter(b"HOLDME"))))
        said = "it asked for changes that it may not make"
        self.eventually("the log says so", lambda: said in ignored.log(), ignored)

    def test_a_large_letter_and_what_it_is_told(self) -> None:
        office = self.office(
            f"filter={self.rspamd.address}",
            "auth-plaintext",
            "auth-any-sender",
            "delay=0",
            users={DOMAIN: [f"alice:{hashed(PASSWORD)}"]},
        )
        with self.calling(office, "192.0.2.7") as caller:
            self.assertEqual(caller.wire.ask(plain(ALICE, PASSWORD).strip())[:3], b"235")
            self.assertEqual(caller.letter(letter(b"large", body=(b"x" * 75 + b"\n") * 14_000))[:3], b"250")
        content = self.arrived(office, set())
        self.assertTrue(content.endswith(b"\n\n" + (b"x" * 75 + b"\n") * 14_000))
        self.eventually("logged", lambda: "<large@far.test>" in self.rspamd.log(), office)
        (line,) = [line for line in self.rspamd.log().splitlines() if "rspamd_task_write_log" in line]
        (trace,) = field(content, b"Received")
        self.assertIn(f"qid: <{trace.split(b' id ')[1].split()[0].decode()}>", line)
        self.assertIn("ip: 192.0.2.7", line)
        self.assertIn("user: alice@here.test", line)
