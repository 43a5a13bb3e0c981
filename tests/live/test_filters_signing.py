"""Signatures: OpenDKIM and dkimpy-milter sign what we take, OpenDKIM and OpenDMARC judge it.

dkimpy looks at what is delivered. A signature holds only if not an octet of the letter was changed on its way
through the filters.
"""

from __future__ import annotations

from tests.live.filters import OURS, Caller, FilterCase, crlf, field, letter, names, travelled
from tests.live.names import NameServer
from tests.live.office import DOMAIN, run, stored
from tests.live.raw import Elsewhere, Wire
from tests.live.test_login import ALICE, PASSWORD, hashed, plain
from tests.peers import HOST, free_port
from tests.peers.filters import DkimpyMilter, Key, OpenDkim, OpenDmarc, verified

LETTERS = {
    "folded": letter(b"folded", b"X-Folded: one\n two\n\tthree\n"),
    "tabbed": letter(b"tabbed", b"X-Tabbed:\tone\n"),
    "two blanks": letter(b"two", b"X-Two:  blanks\nX-Last: blank \n"),
    "nothing between": letter(b"spaceless", b"X-Spaceless:value\nX-Empty:\nX-Blank: \n"),
    "8-bit": letter("Grüße".encode(), "X-Name: Jürgen\n".encode(), "Grüße\n\xa0\n".encode("latin-1")),
    "dots": letter(b"dots", body=b".\n..\n.x\n"),
    "empty body": letter(b"empty", body=b""),
    "blank lines": letter(b"blank", body=b"\n\n\n"),
    "large": letter(b"large", body=(b"x" * 75 + b"\n") * 14_000),
}
SIGNED = "From:To:Subject:Date:Message-ID:X-Folded:X-Tabbed:X-Two:X-Last:X-Spaceless:X-Empty:X-Blank:X-Name"


class Signing(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.key = Key.make("far.test")

    def test_signatures_hold(self) -> None:
        for name in LETTERS:
            self.assertEqual(verified(crlf(LETTERS[name]), self.key), [])
        lines = ["Canonicalization simple/simple", f"SignHeaders {SIGNED.replace(':', ',')}"]
        signer = self.kept(OpenDkim(self.place("sign"), self.key, lines=lines))
        judge = self.kept(
            OpenDkim(
                self.place("judge"),
                known=[self.key],
                internal="192.0.2.1",
                lines=[f"AuthservID {OURS.decode()}", "AlwaysAddARHeader yes"],
            )
        )
        office = self.filtered(signer)
        other = self.filtered(judge, name="other")
        for name, content in LETTERS.items():
            signed = travelled(self.passes(office, content))
            self.assertEqual(verified(crlf(signed), self.key), [True], f"{name}: {signed[:2000]!r}")
            found = names(signed)
            self.assertLess(found.index(b"DKIM-Signature"), found.index(b"Received"), name)
            judged = self.passes(other, signed)
            self.assertIn(b"dkim=pass", field(judged, b"Authentication-Results")[0], name)
            self.assertEqual(verified(crlf(judged), self.key), [True], name)

    def test_dkimpy_milter(self) -> None:
        office = self.filtered(self.kept(DkimpyMilter(self.place("sign"), self.key)))
        for name, content in LETTERS.items():
            # It writes its own field with a blank in front of the colon's value, and reads 8-bit as it likes.
            signed = self.passes(office, content)
            self.assertEqual(verified(crlf(signed), self.key), [True], f"{name}: {signed[:2000]!r}")

    def test_who_is_signed_for_by_the_name_of_the_daemon(self) -> None:
        lines = ["MTA ORIGINATING"]
        signer = self.kept(OpenDkim(self.place("sign"), self.key, internal="192.0.2.1", lines=lines))
        named = self.filtered(f"{signer.address},daemon-name=ORIGINATING", name="named")
        self.assertIn(b"DKIM-Signature", names(self.passes(named, letter())))
        self.assertNotIn(b"DKIM-Signature", names(self.passes(self.filtered(signer), letter())))
        door = free_port()
        asked = f"{signer.address},daemon-name={door}:ORIGINATING"
        both = self.filtered(asked, lines=[f"msp={HOST}:{door}"], name="both")
        self.assertNotIn(b"DKIM-Signature", names(self.passes(both, letter())))
        before = set(stored(both))
        with Wire(door) as wire:
            self.assertEqual(Caller(wire).letter(letter())[:3], b"250")
        self.assertIn(b"DKIM-Signature", names(self.arrived(both, before)))

    def test_an_old_version_of_the_protocol(self) -> None:
        signer = self.kept(OpenDkim(self.place("sign"), self.key))
        office = self.filtered(f"{signer.address},version=2")
        signed = self.passes(office, LETTERS["folded"])
        self.assertEqual(verified(crlf(signed), self.key), [True])

    def test_what_is_submitted_here_is_signed(self) -> None:
        office = self.filtered(self.kept(OpenDkim(self.place("sign"), self.key)))
        done = run(office, "-bm", "-f", "ann@far.test", "alice@here.test", data=letter())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(verified(crlf(self.arrived(office, set())), self.key), [True])

    def test_changed_on_the_way(self) -> None:
        office = self.filtered(self.kept(OpenDkim(self.place("sign"), self.key)))
        judge = OpenDkim(self.place("judge"), known=[self.key], internal="192.0.2.1")
        other = self.filtered(self.kept(judge), name="other")
        signed = travelled(self.passes(office, letter()))
        for old, new in ((b"\nhello\n", b"\nhallo\n"), (b"To: alice", b"To:  alice")):
            changed = signed.replace(old, new)
            self.assertNotEqual(changed, signed)
            judged = self.passes(other, changed)
            self.assertIn(b"dkim=fail", field(judged, b"Authentication-Results")[0])

    def test_what_strangers_say_about_us_goes(self) -> None:
        lines = [f"AuthservID {OURS.decode()}", f"RemoveARFrom {OURS.decode()}"]
        judge = OpenDkim(self.place("judge"), known=[self.key], internal="192.0.2.1", lines=lines)
        office = self.filtered(self.kept(judge))
        said = [b"%b; dkim=pass (%d)" % (name, at) for at, name in enumerate([OURS, b"mx.far.test"] * 3)]
        forged = b"".join(b"Authentication-Results: %b\n" % each for each in said)
        judged = self.passes(office, letter(header=forged))
        left = [each.strip() for each in field(judged, b"Authentication-Results")]
        self.assertEqual([each for each in left if b"(" in each], said[1::2])


class Abroad(FilterCase):
    """Clients that are not of this machine, and a name server."""

    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        self.key = Key.make("far.test")

    def test_who_is_signed_for(self) -> None:
        signer = self.kept(OpenDkim(self.place("sign"), self.key, internal="192.0.2.7"))
        users = {DOMAIN: [f"alice:{hashed(PASSWORD)}"]}
        lines = f"filter={signer.address}", "auth-plaintext", "auth-any-sender", "delay=0"
        office = self.office(*lines, users=users)
        self.assertNotIn(b"DKIM-Signature", names(self.passes(office, letter(b"1"), source="192.0.2.8")))
        self.assertIn(b"DKIM-Signature", names(self.passes(office, letter(b"2"), source="192.0.2.7")))
        before = set(stored(office))
        with self.calling(office, "192.0.2.8") as caller:
            self.assertEqual(caller.wire.ask(plain(ALICE, PASSWORD).strip())[:3], b"235")
            self.assertEqual(caller.letter(letter(b"3"))[:3], b"250")
        self.assertIn(b"DKIM-Signature", names(self.arrived(office, before)))

    def test_one_filter_sees_what_another_found(self) -> None:
        records = {("_dmarc.far.test", "TXT"): "v=DMARC1; p=reject", ("far.test", "TXT"): "v=spf1 -all"}
        server = NameServer(records)
        self.addCleanup(server.stop)
        us = OURS.decode()
        signing = self.filtered(self.kept(OpenDkim(self.place("sign"), self.key)), name="signing")
        signed = travelled(self.passes(signing, letter()))
        judge = OpenDkim(
            self.place("judge"), known=[self.key], internal="192.0.2.1", lines=[f"AuthservID {us}"]
        )
        dmarc = OpenDmarc(self.place("dmarc"), us, nameserver=HOST, lines=["RejectFailures true"])
        office = self.filtered(self.kept(judge), self.kept(dmarc))
        judged = self.passes(office, signed, source="192.0.2.8")
        found = b"".join(field(judged, b"Authentication-Results"))
        self.assertIn(b"dkim=pass", found)
        self.assertIn(b"dmarc=pass", found)
        refused = self.sent(office, letter(), source="192.0.2.8")
        self.assertRegex(refused, rb"^550 5\.7\.1 rejected by DMARC policy for far\.test")
