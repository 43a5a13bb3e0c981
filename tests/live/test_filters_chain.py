"""Several real filters one after the other, many sessions at once, and the same letters by way of Postfix."""

from __future__ import annotations

import os
import re
import select
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from tests.live.filters import OURS, Caller, FilterCase, crlf, field, letter, names, travelled
from tests.live.names import NameServer
from tests.live.office import stored
from tests.live.raw import Elsewhere, Wire
from tests.live.test_filters_programs import TWICE, action
from tests.live.test_filters_signing import LETTERS
from tests.peers import HOST, Postfix, Postoffice, descendants, free_port, smtp_source, wait_until
from tests.peers.filters import (
    ClamavMilter,
    Clamd,
    DkimpyMilter,
    Key,
    Milter,
    OpenDkim,
    OpenDmarc,
    PyQuarantine,
    PyspfMilter,
    Rspamd,
    Scripted,
    SpamassMilter,
    Spamd,
    verified,
)


class Chained(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        self.key = Key.make("far.test")

    def four(self) -> list[Milter]:
        """pyspf-milter, ClamAV, rspamd, and OpenDKIM, which signs what the others have changed."""
        server = NameServer({("far.test", "TXT"): "v=spf1 ip4:192.0.2.7 -all"})
        self.addCleanup(server.stop)
        clamd = self.kept(Clamd(self.place("clamd")))
        return [
            self.kept(PyspfMilter(self.place("spf"), nameserver=HOST)),
            self.kept(ClamavMilter(self.place("clamav"), clamd)),
            self.kept(Rspamd(self.place("rspamd"))),
            self.kept(OpenDkim(self.place("dkim"), self.key, internal="192.0.2.7")),
        ]

    def test_four_filters(self) -> None:
        filters = self.four()
        door = free_port()
        office = self.filtered(
            *filters[:2], f"{filters[2].address},when=smtp", filters[3], lines=[f"msp={HOST}:{door}"]
        )
        content = self.passes(office, letter(), source="192.0.2.7")
        results = field(content, b"Authentication-Results")
        # rspamd takes away what was found in the same name before: here by pyspf-milter.
        self.assertEqual([each.split(b";")[0] for each in results], [OURS])
        self.assertNotIn(b"spf=", results[0])
        for name in (b"X-Virus-Status", b"X-Spam-Status"):
            self.assertEqual(len(field(content, name)), 1, name)
        self.assertEqual(names(content)[2], b"DKIM-Signature")
        self.assertEqual(verified(crlf(content), self.key), [True])
        in_order = [each.address for each in filters]
        self.eventually(
            "logged", lambda: re.findall(r"filter (\S+) on content", office.log()) == in_order, office
        )
        self.waits_for_the_one_that_sleeps(office, filters[2], door)

    def waits_for_the_one_that_sleeps(self, office: Postoffice, sleeper: Milter, door: int) -> None:
        """A filter that says nothing holds up who asks it, and nobody else."""
        before = set(stored(office))
        with self.calling(office, "192.0.2.7") as waiting:
            family = list(descendants(sleeper.pid))
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            try:
                waiting.wire.send(b"MAIL FROM:<ann@far.test>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\n")
                self.assertEqual(waiting.wire.replies(3), [250, 250, 354])
                waiting.wire.send(crlf(letter(b"slow")) + b".\r\n")
                with Wire(door, source="192.0.2.7") as wire:
                    self.assertEqual(Caller(wire).letter(letter(b"quick"))[:3], b"250")
                self.arrived(office, before)
                self.assertEqual(select.select([waiting.wire.socket], [], [], 0)[0], [])
            finally:
                for pid in family:
                    os.kill(pid, signal.SIGCONT)
            self.assertEqual(waiting.wire.replies(1), [250])
        self.eventually("delivered", lambda: len(stored(office)) == len(before) + 2, office)

    def test_a_filter_that_says_nothing_has_only_so_long(self) -> None:
        sleeper = self.kept(Scripted(self.place("sleeper")))
        marks = self.kept(Scripted(self.place("marks"), [["addheader", "X-Marked", "yes"]]))
        office = self.filtered(f"{sleeper.address},timeout=1,on-error=accept", marks)
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            content = self.passes(office, letter())
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        self.assertEqual(field(content, b"X-Marked"), [b"yes\n"])

    def test_many_sessions_leave_nothing_open(self) -> None:
        first, second = (
            self.kept(Scripted(self.place(by), [["addheader", "X-By", by]])) for by in ("first", "second")
        )
        clamd = self.kept(Clamd(self.place("clamd")))
        clamav = self.kept(ClamavMilter(self.place("clamav"), clamd))
        office = self.filtered(first, clamav, second)
        run = smtp_source(office.port, sessions=50, messages=200, recipient="alice@here.test", timeout=120)
        self.assertEqual((run.status, run.stderr), (0, ""))
        self.eventually("delivered", lambda: len(stored(office)) == 200, office, 60)
        for content in stored(office):
            self.assertEqual(field(content, b"X-By"), [b"first\n", b"second\n"])
            self.assertEqual(len(field(content, b"X-Virus-Status")), 1)
        for puppet in (first, second):
            count: Counter[str] = Counter()

            def closed(puppet: Scripted = puppet, count: Counter[str] = count) -> bool:
                count.clear()
                count.update(event[0] for event in puppet.all_seen())
                # Its readiness was asked about by who said nothing but an offer.
                return count["close"] == count["connect"] + 1

            self.assertTrue(wait_until(closed, 20), count)
            self.assertEqual((count["end"], count["abort"]), (200, 0))
        for complaint in ("EOF", "abort", "timeout", "rror"):
            self.assertNotIn(complaint, clamav.log())
            self.assertNotIn(complaint, second.stderr.read_text())

    def test_a_filter_that_is_killed_again_and_again(self) -> None:
        """Each letter is delivered once, with all that the filter changes or nothing of it."""
        changes = [["addheader", "X-Changed", "yes"], ["replacebody", "new\r\n"]]
        stable = self.kept(Scripted(self.place("stable"), [["addheader", "X-Stable", "yes"]]))
        victim = self.kept(Scripted(self.place("victim"), changes))
        office = self.filtered(stable, f"{victim.address},on-error=accept")
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(
                smtp_source,
                office.port,
                sessions=20,
                messages=200,
                length=20_000,
                recipient="alice@here.test",
                timeout=120,
            )
            while not run.done():
                victim.kill()
                victim.start()
                wait([run], 0.3)
        self.assertEqual((run.result().status, run.result().stderr), (0, ""))
        self.eventually("delivered", lambda: len(stored(office)) == 200, office, 60)
        for content in stored(office):
            self.assertIn(b"X-Stable", names(content))
            self.assertEqual(b"X-Changed" in names(content), content.endswith(b"\n\nnew\n"))
        self.assertNotIn("Traceback", office.log())


MORE = {
    "received before": letter(b"received", b"Received: from a by b; Wed, 25 Nov 2026 11:00:00 +0000\n" * 2),
    "marked before": letter(b"marked", b"X-Spam-Status: No\nX-Virus-Status: Clean\nX-Spam-Flag: YES\n"),
    "thrice": letter(b"thrice", TWICE),
    "html": letter(
        b"html",
        b"MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n",
        b"--b\nContent-Type: text/plain\n\nx\n--b\nContent-Type: text/html\n\n<p>x</p>\n--b--\n",
    ),
}
CHANGES = [
    ["chgheader", "X-Twice", 2, ""],
    ["chgheader", "Subject", 1, "changed"],
    ["chgheader", "X-Not-There", 3, "added"],
    ["addheader", "X-First", "first", 0],
    ["addheader", "X-Second", "second", 1],
    ["addheader", "X-Third", "third\n\tfolded", 3],
    ["addheader", "X-Far", "far", 1000],
    ["addheader", "X-Last", "last"],
    ["replacebody", "new\r\n..\r\n\r\nbody"],
]


class BesidePostfix(FilterCase):
    """The same letters by us and by Postfix, with the same filters, in the same order."""

    def setUp(self) -> None:
        super().setUp()
        self.key = Key.make("far.test")
        self.addCleanup(os.umask, os.umask(0o022))

    def compare(
        self, filters: list[Milter], letters: Mapping[str, bytes] = LETTERS | MORE, source: str = ""
    ) -> list[bytes]:
        """Letters come out the same but for the traces that each server leaves of itself: ours of them."""
        office, postfix = self.both(filters)
        done = []
        for name, content in letters.items():
            ours = self.passes(office, content, source=source)
            theirs = self.by_postfix(postfix, content, source)
            self.assertEqual(comparable(ours), comparable(theirs), name)
            done.append(ours)
        return done

    def both(self, filters: Sequence[Milter]) -> tuple[Postoffice, Postfix]:
        """Both servers, with the same name and these filters."""
        office = self.filtered(*filters)
        settings = {
            "smtpd_milters": ", ".join(each.postfix_address for each in filters),
            "myhostname": OURS.decode(),
            "milter_default_action": "tempfail",
            # As we look them up, which without a DNS is in /etc/hosts.
            "smtpd_peername_lookup": "yes",
        }
        postfix = Postfix(self.place("postfix"), domains=["here.test"], settings=settings)
        self.addCleanup(postfix.stop)
        return office, postfix

    def by_postfix(self, postfix: Postfix, content: bytes, source: str = "") -> bytes:
        """A letter as Postfix delivers it."""
        before = set(postfix.letters())
        with Wire(postfix.port, source=source) as wire:
            reply = Caller(wire).letter(content)
        self.assertEqual(reply[:3], b"250", reply.decode() + postfix.log()[-3000:])
        self.assertTrue(wait_until(lambda: len(set(postfix.letters()) - before) == 1, 20), postfix.log())
        (new,) = set(postfix.letters()) - before
        return new

    def test_scanners_and_a_signer(self) -> None:
        clamd = self.kept(Clamd(self.place("clamd")))
        spamd = self.kept(Spamd(self.place("spamd")))
        self.compare(
            [
                self.kept(ClamavMilter(self.place("clamav"), clamd)),
                self.kept(SpamassMilter(self.place("spamass"), spamd)),
                self.kept(Rspamd(self.place("rspamd"))),
                self.kept(OpenDkim(self.place("dkim"), self.key)),
            ]
        )

    def test_a_signer_and_then_rspamd(self) -> None:
        self.compare(
            [self.kept(OpenDkim(self.place("dkim"), self.key)), self.kept(Rspamd(self.place("rspamd")))]
        )

    def test_dkimpy_milter(self) -> None:
        for signed in self.compare([self.kept(DkimpyMilter(self.place("dkim"), self.key))]):
            self.assertEqual(verified(crlf(signed), self.key), [True])

    def test_pyquarantine(self) -> None:
        actions = [
            action("add_header", "X-Kept", "no"),
            action("mod_header", "^Subject$", "marked"),
            action("del_header", "^X-Twice$", "^2$"),
        ]
        rule = {"name": "marks", "conditions": {"headers": ["^Subject: "]}, "actions": actions}
        for done in self.compare([self.kept(PyQuarantine(self.place("filter"), [rule]))]):
            self.assertEqual(field(done, b"X-Kept"), [b"no\n"])
            self.assertNotIn(b"2\n", field(done, b"X-Twice"))

    def test_who_may_send_and_whose_signature_holds(self) -> None:
        """pyspf-milter and an OpenDKIM that verifies; OpenDMARC goes by what they found."""
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        spf, policy = "v=spf1 ip4:192.0.2.7 -all", "v=DMARC1; p=none"
        server = NameServer({("far.test", "TXT"): spf, ("_dmarc.far.test", "TXT"): policy})
        self.addCleanup(server.stop)
        signing = self.filtered(self.kept(OpenDkim(self.place("sign"), self.key)), name="signing")
        signed = travelled(self.passes(signing, letter(b"signed")))
        us = OURS.decode()
        lines = [f"AuthservID {us}", "AlwaysAddARHeader yes"]
        filters: list[Milter] = [
            self.kept(PyspfMilter(self.place("spf"), nameserver=HOST, lines=[f"Authserv_Id = {us}"])),
            self.kept(OpenDkim(self.place("judge"), known=[self.key], internal="192.0.2.1", lines=lines)),
            self.kept(OpenDmarc(self.place("dmarc"), us, nameserver=HOST)),
        ]
        letters = {"signed": signed, "changed": signed.replace(b"hello", b"hallo"), **LETTERS}
        found = [
            b"".join(field(done, b"Authentication-Results"))
            for done in self.compare(filters, letters, "192.0.2.7")
        ]
        for results, dkim in zip(found, [b"pass", b"fail", *[b"none"] * len(LETTERS)], strict=True):
            self.assertIn(b"spf=pass", results)
            self.assertIn(b"dkim=%b" % dkim, results)
            self.assertIn(b"dmarc=pass", results)

    def test_changes_of_every_kind(self) -> None:
        self.compare(
            [
                self.kept(Scripted(self.place("changes"), CHANGES)),
                self.kept(Scripted(self.place("more"), CHANGES[:-1])),
            ]
        )

    def test_a_filter_is_told_the_same(self) -> None:
        puppet = self.kept(Scripted(self.place("puppet")))
        office, postfix = self.both([puppet])
        for name, content in (LETTERS | MORE).items():
            self.passes(office, content)
            ours = self.told(puppet)
            self.by_postfix(postfix, content)
            self.assertEqual(ours, self.told(puppet), name)

    def told(self, puppet: Scripted) -> list[list[Any]]:
        """What it was told in a session, without the client's port and the sizes of pieces of the body."""
        # The end of an earlier session may be heard of late.
        events = [event for event in puppet.seen() if event[0] != "close"]
        size = sum(event[1] for event in events if event[0] == "body")
        return [event[: PARTS.get(event[0])] for event in events if event[0] != "body"] + [["size", size]]


PARTS = {"connect": 2, "end": 1}
"""How much of an event is the same for both: not the client's port, and not all macros."""


def comparable(content: bytes) -> tuple[list[bytes], bytes]:
    """The fields of a header and the body, without what is of a server, of a moment, or an id."""
    header, _, body = content.partition(b"\n\n")
    fields = re.findall(rb"(?m)^[^\s:]+[ \t]*:.*\n(?:[ \t].*\n)*", header + b"\n")
    fields = [
        each
        for each in fields
        if each.lower().partition(b":")[0] not in (b"return-path", b"delivered-to", b"x-original-to")
    ]
    own = next(at for at, each in enumerate(fields) if each.startswith(b"Received:"))
    fields[own] = b"Received:\n"
    for at, each in enumerate(fields):
        if each.startswith(b"DKIM-Signature:"):
            fields[at] = re.sub(rb"(?s)t=\d+|\bb=.*", b"", each)
    return fields, body
