"""What the tests with real filters share: an office that asks them, and what comes of letters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.live.office import NAME, OfficeCase, run, stored
from tests.live.raw import Wire
from tests.peers import Postoffice
from tests.peers.filters import Milter

T = TypeVar("T", bound=Milter)

LETTER = b"""\
From: Ann <ann@far.test>
To: alice@here.test
Subject: %b
Date: Wed, 25 Nov 2026 12:00:00 +0000
Message-ID: <%b@far.test>

hello
"""


def letter(subject: bytes = b"hello", header: bytes = b"", body: bytes | None = None) -> bytes:
    """A letter of LF line ends, `header` being further lines of its header."""
    top, _, text = (LETTER % (subject, subject)).partition(b"\n\n")
    return top + b"\n" + header + b"\n" + (text if body is None else body)


def crlf(data: bytes) -> bytes:
    """With the line ends of the wire."""
    return data.replace(b"\n", b"\r\n")


def travelled(content: bytes) -> bytes:
    """A delivered letter as it could come from a host that took it: without what its delivery added."""
    return re.sub(rb"(?mi)^(Return-Path|Delivered-To):.*\n", b"", content)


def names(content: bytes) -> list[bytes]:
    """The names of the fields of a header, in order."""
    return re.findall(rb"(?m)^([!-9;-~]+)[ \t]*:", content.partition(b"\n\n")[0])


def field(content: bytes, name: bytes) -> list[bytes]:
    """The values of all fields of this name, folds and all."""
    header = content.partition(b"\n\n")[0] + b"\n"
    return re.findall(rb"(?mi)^%b:[ ]?(.*\n(?:[ \t].*\n)*)" % re.escape(name), header)


class Caller:
    """One client's session, which hands in letters."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.banner = wire.reply()
        self.greeted = wire.ask(b"EHLO client.far.test")

    def letter(
        self,
        content: bytes,
        sender: bytes = b"ann@far.test",
        recipients: Sequence[bytes] = (b"alice@here.test",),
    ) -> bytes:
        """The first reply that is no yes, or that to the content."""
        reply = self.wire.ask(b"MAIL FROM:<%b>" % sender)
        for recipient in recipients:
            if reply.startswith(b"2"):
                reply = self.wire.ask(b"RCPT TO:<%b>" % recipient)
        if reply.startswith(b"2"):
            reply = self.wire.ask(b"DATA")
        if reply.startswith(b"354"):
            stuffed = re.sub(rb"(?m)^\.", b"..", content)
            reply = self.wire.ask(crlf(stuffed) + b".")
        return reply


class FilterCase(OfficeCase):
    """Filters in directories of their own, an office that asks them, and callers."""

    def place(self, name: str) -> Path:
        """A directory for a filter."""
        return self.directory / name

    def kept(self, peer: T) -> T:
        """A filter that ends with the test."""
        self.addCleanup(peer.stop)
        return peer

    def filtered(self, *filters: Milter | str, lines: Sequence[str] = (), name: str = "office") -> Postoffice:
        """An office that asks these filters, in this order."""
        asked = [f"filter={each if isinstance(each, str) else each.address}" for each in filters]
        return self.office(*asked, "delay=0", *lines, name=name)

    @contextmanager
    def calling(self, office: Postoffice, source: str = "") -> Iterator[Caller]:
        """A session with the office."""
        with Wire(office.port, source=source) as wire:
            yield Caller(wire)
            wire.ask(b"QUIT")

    def sent(self, office: Postoffice, content: bytes, **more: object) -> bytes:
        """The reply to one letter in a session of its own."""
        source = str(more.pop("source", ""))
        with self.calling(office, source) as caller:
            return caller.letter(content, **more)  # type: ignore[arg-type]

    def passes(self, office: Postoffice, content: bytes, **more: object) -> bytes:
        """A letter that is taken: as it arrives at alice's."""
        before = set(stored(office))
        reply = self.sent(office, content, **more)
        self.assertEqual(reply[:3], b"250", reply.decode() + office.log()[-3000:])
        return self.arrived(office, before)

    def release(self, office: Postoffice, why: str, sender: str = "ann@far.test") -> None:
        """Its only letter is on hold, and goes on its way when somebody says so."""
        waiting = run(office, command="mailq").stdout.decode()
        self.assertIn(sender, waiting)
        self.assertIn(why, waiting)
        self.assertEqual(stored(office), [])
        found = re.search(r"(?m)^([0-9A-Z]{10})\b", waiting)
        assert found
        done = run(office, "release", found[1])
        self.assertEqual(done.returncode, 0, done.stderr)

    def arrived(self, office: Postoffice, before: set[bytes], user: str = "alice") -> bytes:
        """The letter that has come to those there were."""
        self.eventually("delivered", lambda: len(set(stored(office, user)) - before) == 1, office)
        (new,) = set(stored(office, user)) - before
        return new


OURS = NAME.encode()
"""Our name, which filters write into what they find."""
