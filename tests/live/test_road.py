"""Letters handed in by real programs, read back from mailboxes by Python's `mailbox`, byte for byte.

What each program is told to send is what must be found below our own header lines: from a Maildir with CRLF
become LF, from an mbox after the quoting of `From ` lines is undone as well.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from email import message_from_bytes
from itertools import chain

from tests.live.clients import Send, Way, by_curl, by_msmtp, by_smtp_source, by_smtplib, by_swaks
from tests.live.office import DOMAIN, Kind, OfficeCase, stored
from tests.peers import smtp_source

SENDER = "sender@far.test"
ALICE = f"alice@{DOMAIN}"
OURS = {"Return-Path", "Delivered-To", "Received", "Date", "Message-ID", "From"}
HEADER = (
    b"From: sender@far.test\nTo: alice@here.test\nSubject: a test\nDate: Sat, 1 Jan 2000 00:00:00 +0000\n\n"
)


def lines_of(size: int, seed: int) -> bytes:
    """About `size` octets of printable lines of all lengths up to 998, without what swaks gives a meaning."""
    source = random.Random(seed)
    block = bytes(source.choices([sign for sign in range(32, 127) if sign not in b"\\%"], k=4096))
    lines = []
    left = size
    while left > 0:
        start, length = source.randrange(2048), source.randrange(1, 999)
        lines.append(block[start : start + length])
        left -= len(lines[-1]) + 2
    return b"\n".join(lines) + b"\n"


LETTERS: dict[str, bytes] = {
    "one octet": b"x\n",
    "4 KiB": HEADER + lines_of(4096, 1),
    "8-bit": HEADER + bytes(octet for octet in range(128, 256)) + b"\nGr\xc3\xbc\xc3\x9fe, \xe4\xf6\xfc\n",
    "dots": HEADER + b".\n..\n...\n.a\n\n.\n. \n.b.\n.\n.\nend\n",
    "998 octets a line": HEADER + b"".join(b"%c" % sign * 998 + b"\n" for sign in b".abcF>"),
    "From lines": HEADER + b"From here\n>From there\n>>From everywhere\n From nowhere\n\nFrom x\nFrom: y\n",
    "20 MiB": HEADER + lines_of(20 << 20, 2),
}


PROGRAMS: dict[str, Send] = {
    "smtplib": by_smtplib,
    "swaks": by_swaks,
    "curl": by_curl,
    "msmtp": by_msmtp,
    "smtp-source": by_smtp_source,
}


def unquoted(letter: bytes) -> bytes:
    """Undo the quoting of an mbox."""
    return re.sub(rb"^>(>*From )", rb"\1", letter, flags=re.MULTILINE)


class Road(OfficeCase):
    """One office for each kind of mailbox; every program sends every letter."""

    def check(self, sent: set[bytes], found: bytes) -> None:
        """`found` is one of `sent` below header lines of ours, the first of them the trace of the session."""
        # A letter without a header gets the empty line that parts ours from its body.
        texts = {text if text.startswith(HEADER) else b"\n" + text for text in sent}
        text = next((text for text in texts if found.endswith(text)), b"")
        if not text:
            self.fail(f"found {len(found)} octets: {found[:900]!r} ... {found[-100:]!r}")
        ours = message_from_bytes(found[: -len(text)])
        self.assertEqual(ours.defects, [])
        self.assertLessEqual(set(ours.keys()), OURS)
        self.assertEqual(ours.get_payload(), "", "nothing but header lines stands in front")
        self.assertEqual(len(ours.get_all("Received", [])), 1, found[:900])
        self.assertIn(f"for <{ALICE}>", ours["Received"])

    def every_program(self, kind: Kind, name: str) -> None:
        """A letter goes in by each program and is found in the mailbox."""
        office = self.office(kind=kind)
        sent = set()
        for count, (program_name, send) in enumerate(PROGRAMS.items(), 1):
            sent.add(send(Way(office.port), SENDER, [ALICE], LETTERS[name], self.directory))
            self.eventually(
                f"{name} by {program_name}",
                lambda count=count: len(stored(office, kind=kind)) >= count,
                office,
            )
        found = stored(office, kind=kind)
        self.assertEqual(len(found), len(PROGRAMS))
        for one in found:
            self.check(sent, unquoted(one) if kind == "mbox" else one)
        self.assertNotIn("Traceback", office.log())
        office.stop()
        self.assertIn("stopped", office.log())

    def many_recipients(self, kind: Kind) -> None:
        """Two hundred recipients of one letter each have it once, and the programs agree about that."""
        # The names that smtp-source makes up.
        names = ["user", *(f"{number}user" for number in range(2, 201))]
        office = self.office(kind=kind, users={DOMAIN: names})
        letter = LETTERS["4 KiB"]
        everybody = [f"{name}@{DOMAIN}" for name in names]
        for send in (by_smtplib, by_swaks):
            send(Way(office.port), SENDER, everybody, letter, self.directory)
        file = self.directory / "letter"
        run = smtp_source(
            office.port, recipient=f"user@{DOMAIN}", length=None, arguments=["-r", "200", "-F", str(file)]
        )
        self.assertEqual(run.status, 0, run.stderr)
        found: dict[str, list[bytes]] = {}

        def all_there() -> bool:
            found.update((name, stored(office, name, kind=kind)) for name in names)
            return sum(map(len, found.values())) >= 600

        self.eventually("three letters for each of 200", all_there, office, 40)
        self.assertEqual({len(found[name]) for name in names}, {3})
        for one in chain.from_iterable(found.values()):
            self.assertTrue(one.rstrip(b"\n").endswith(letter.rstrip(b"\n")), one)

    def test_recipients_maildir(self) -> None:
        self.many_recipients("maildir")

    def test_recipients_mbox(self) -> None:
        self.many_recipients("mbox")


def _method(kind: Kind, name: str) -> Callable[[Road], None]:
    def test(self: Road) -> None:
        self.every_program(kind, name)

    return test


for _kind in ("maildir", "mbox"):
    for _name in LETTERS:
        setattr(Road, f"test_{_kind}_{_name.replace(' ', '_').replace('-', '_')}", _method(_kind, _name))
