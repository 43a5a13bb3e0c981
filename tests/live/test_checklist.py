"""The security checklist, told to a running service in raw bytes.

A class for each entry, a method for each thing its test asks for. A mailbox, here, is what was delivered to
a Maildir or an mbox and what was relayed to a host that records every byte.
"""

from __future__ import annotations

import email.policy
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from email import message_from_bytes

from tests.live.office import DOMAIN, NAME, Kind, OfficeCase, run, stored
from tests.live.raw import (
    Answer,
    Elsewhere,
    RecordingSink,
    Taken,
    Wire,
    codes,
    lenient,
    resident,
)
from tests.peers import HOST, Postoffice, SmtpSink, free_port
from tests.support import need

ALICE = f"alice@{DOMAIN}".encode()
AWAY = b"rcpt@away.test"
HEADER = b"Subject: a letter\r\nFrom: <sender@far.test>\r\n\r\n"
INNER = b"MAIL FROM:<ceo@inner.test>\r\nRCPT TO:<%b>\r\nDATA\r\nSubject: inner\r\n\r\nsmuggled\r\n" % ALICE
END = b"\r\n.\r\n"

# What an entry of the log begins with; lines of a traceback are indented below it.
ENTRY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d{4} (info|notice|warning|error) ")
FIELDS = {b"return-path", b"delivered-to", b"received", b"subject", b"from", b"date", b"message-id"}


class Checklist(OfficeCase):
    """An office that relays to a recording host, and looks well when it ends."""

    def furnished(
        self, *lines: str, answer: Answer = lambda line: None, kind: Kind = "maildir"
    ) -> Postoffice:
        """Start the host, then the office."""
        self.sink = RecordingSink(answer)
        self.addCleanup(self.sink.stop)
        return self.relaying(self.sink.port, *lines, kind=kind)

    def relaying(self, port: int, *lines: str, kind: Kind = "maildir") -> Postoffice:
        """An office whose letters for elsewhere go to a port of this machine; a text log and one in JSON."""
        return self.office(
            f"relay-host=[{HOST}]:{port}", f"log=json:{self.directory}/office/records", *lines, kind=kind
        )

    def close(self, office: Postoffice) -> None:
        """End the office: it had no bug, and what it logged is entries of one printable line each."""
        port = office.port
        # A signal that asks to end may be how a process ends.
        self.assertIn(office.stop(), (0, -signal.SIGTERM))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((HOST, port), timeout=5)
        log = office.stderr.read_text()
        self.assertRegex(log, r" notice stopped; longest stall .*\n\Z")
        self.assertNotIn("Traceback", log)
        self.assertNotIn(" error ", log)
        for line in log.splitlines():
            self.assertRegex(line, ENTRY)
            self.assertTrue(line.isascii() and line.isprintable(), line)
        records = (office.directory / "records").read_bytes().split(b"\n")
        self.assertEqual(records.pop(), b"")
        for record in records:
            self.assertIn("fact", json.loads(record))
            self.assertTrue(record.isascii() and record.decode().isprintable(), record)

    def maildir(self, office: Postoffice, count: int, user: str = "alice") -> list[bytes]:
        """The letters in a Maildir, once there are so many; LF line ends."""
        place = office.directory / "mail" / DOMAIN / user / "new"
        self.eventually(
            f"{count} letters for {user}",
            lambda: place.is_dir() and len(list(place.iterdir())) >= count,
            office,
        )
        letters = [path.read_bytes() for path in place.iterdir()]
        self.assertEqual(len(letters), count)
        return letters

    def relayed(self, office: Postoffice, count: int) -> list[Taken]:
        """What the host took, once these are so many letters."""
        self.eventually(f"{count} letters relayed", lambda: len(self.sink.taken) >= count, office)
        self.assertEqual(len(self.sink.taken), count)
        return self.sink.taken

    def legal(self, count: int) -> None:
        """All that left us is in CRLF lines, and the most careless receiver finds as many letters in it."""
        for record in self.sink.recorded:
            self.assertEqual(re.findall(rb"\r(?!\n)|(?<!\r)\n", record), [])
        careless = [letter for record in self.sink.recorded for letter in lenient(bytes(record))]
        self.assertEqual(len(careless), count)
        self.assertNotIn(b"ceo@inner.test", {letter.sender for letter in careless})

    def settle(self, office: Postoffice) -> None:
        """Wait until the queue is empty: what is not delivered by then never will be."""
        self.eventually("an empty queue", lambda: b"empty" in run(office, "-bp").stdout, office)


def begin(wire: Wire, sender: bytes, *recipients: bytes) -> None:
    """Everything up to the 354."""
    assert wire.ask(b"MAIL FROM:<%b>" % sender)[:3] == b"250"
    for recipient in recipients:
        assert wire.ask(b"RCPT TO:<%b>" % recipient)[:3] == b"250"
    assert wire.ask(b"DATA")[:3] == b"354"


def hand_in(office: Postoffice, sender: bytes, recipients: Iterable[bytes], content: bytes) -> bytes:
    """One letter, dots stuffed by the caller; the reply to it."""
    with Wire(office.port) as wire:
        wire.reply()
        begin(wire, sender, *recipients)
        wire.send(content)
        return wire.ask(END[2:-2])


def decoded(data: bytes) -> bytes:
    """The content a sender meant, done the plain way: it ends at CRLF.CRLF, then dots, then line ends."""
    text = (b"\r\n" + data).partition(END)[0][2:]
    lines = [line[1:] if line.startswith(b".") else line for line in text.split(b"\r\n")]
    return b"".join(line.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n" for line in lines)


def return_path(letter: bytes) -> bytes:
    found = re.match(rb"Return-Path: <(.*)>\n", letter)
    assert found, letter[:200]
    return found[1]


class SmugglingIn(Checklist):
    """A1: only CRLF.CRLF ends the content."""

    ENDS: Mapping[str, bytes] = {
        "LF.LF": b"\n.\n",
        "LF.CRLF": b"\n.\r\n",
        "CRLF.LF": b"\r\n.\n",
        "CR.CR": b"\r.\r",
        "CR.LF": b"\r.\n",
        "LF.CR": b"\n.\r",
        "CR.CRLF": b"\r.\r\n",
        "CRLF.CR": b"\r\n.\r",
        "CRLF NUL.CRLF": b"\r\n\0.\r\n",
        "CRLF.SP CRLF": b"\r\n. \r\n",
        "CRLF.TAB CRLF": b"\r\n.\t\r\n",
    }

    def attack(
        self, office: Postoffice, sender: bytes, pieces: list[bytes], pause: float = 0.0
    ) -> list[bytes]:
        """A letter in these pieces, for a Maildir and the host; the replies behind the 354."""
        with Wire(office.port) as wire:
            self.assertEqual(wire.reply()[:3], b"220")
            begin(wire, sender, ALICE, AWAY)
            wire.segments(pieces, pause)
            wire.send(b"QUIT\r\n")
            return wire.rest()

    def check(self, office: Postoffice, sent: Mapping[bytes, bytes]) -> None:
        """Each letter arrived once, here and there, as what it is when normalised; nothing else did."""
        here = self.maildir(office, len(sent))
        there = self.relayed(office, len(sent))
        self.settle(office)
        self.assertEqual({return_path(letter) for letter in here}, set(sent))
        self.assertEqual({letter.sender for letter in there}, set(sent))
        for letter in here:
            expected = decoded(sent[return_path(letter)])
            self.assertTrue(letter.endswith(b"\n" + expected.replace(b"\r\n", b"\n")), letter)
        for taken in there:
            self.assertEqual(taken.recipients, [AWAY])
            expected = decoded(sent[taken.sender]).replace(b"\0", b"")
            # What the host reads is what we stored, and its dots are stuffed.
            self.assertTrue(decoded(taken.content + END[2:]).endswith(b"\r\n" + expected), taken)
        self.legal(len(sent))

    def smuggle(
        self,
        pieces_of: Callable[[bytes, bytes, bytes], Iterable[list[bytes]]],
        body: bytes = HEADER + b"text",
        pause: float = 0.0,
    ) -> None:
        """Every end in turn; `pieces_of(body, end, inner)` gives ways to cut a letter up."""
        office = self.furnished()
        sent: dict[bytes, bytes] = {}
        for end in self.ENDS.values():
            for pieces in pieces_of(body, end, INNER + END[2:]):
                sender = b"outer%d@far.test" % len(sent)
                sent[sender] = b"".join(pieces)
                self.assertEqual(
                    codes(self.attack(office, sender, pieces, pause)), [250, 221], sent[sender][-300:]
                )
        self.check(office, sent)
        self.close(office)

    def test_A1_whole(self) -> None:
        self.smuggle(lambda body, end, inner: [[body + end + inner]])

    def test_A1_each_byte_in_its_own_segment(self) -> None:
        self.smuggle(lambda body, end, inner: [[bytes([octet]) for octet in body + end + inner]], pause=1e-4)

    def test_A1_split_at_every_index(self) -> None:
        def pieces_of(body: bytes, end: bytes, inner: bytes) -> Iterable[list[bytes]]:
            whole = body + end + inner
            for at in range(len(body) - 1, len(body + end) + 2):
                yield [whole[:at], whole[at:]]
            # The real end, too.
            for at in range(len(whole) - 5, len(whole)):
                yield [whole[:at], whole[at:]]

        self.smuggle(pieces_of, pause=0.001)

    def test_A1_behind_a_mebibyte(self) -> None:
        body = HEADER + b"0123456789abcde\r\n" * (1 << 16)
        self.smuggle(lambda body, end, inner: [[body + end + inner]], body=body)

    def test_A1_reject_keeps_nothing(self) -> None:
        office = self.furnished("bare-newline=reject")
        bare = 0
        for at, end in enumerate(self.ENDS.values()):
            for body in (b"text", HEADER + (b"x" * 70 + b"\r\n") * 2000):
                pieces = [body + end + INNER + END[2:]]
                replies = self.attack(office, b"outer%d@far.test" % at, pieces)
                if re.search(rb"\r(?!\n)|(?<!\r)\n", end):
                    bare += 1
                    self.assertEqual(codes(replies), [550, 221], end)
                    self.assertIn(b"550 5.5.2 ", replies[0])
                else:
                    self.assertEqual(codes(replies), [250, 221], end)
        self.assertEqual(bare, 16)
        self.maildir(office, 2 * len(self.ENDS) - bare)
        self.relayed(office, 2 * len(self.ENDS) - bare)
        self.close(office)

    def test_A1_into_a_real_receiver(self) -> None:
        need("smtp-sink")
        with SmtpSink(self.directory / "sink", dump="files") as sink:
            office = self.relaying(sink.port)
            for at, end in enumerate(self.ENDS.values()):
                pieces = [HEADER + b"text" + end + INNER + END[2:]]
                self.assertEqual(codes(self.attack(office, b"outer%d@far.test" % at, pieces)), [250, 221])
            self.assertTrue(sink.wait(len(self.ENDS)))
            self.settle(office)
            self.assertEqual(sink.count(), len(self.ENDS))
            self.close(office)
            letters = sink.letters()
        self.assertEqual(len(letters), len(self.ENDS))
        for letter in letters:
            self.assertRegex(letter, rb"(?m)^X-Mail-Args: <outer\d+@far.test>")
            self.assertNotRegex(letter, rb"(?m)^X-Mail-Args: <ceo")

    def test_A1_bare_newlines_in_commands(self) -> None:
        office = self.furnished()
        for newline in (b"\n", b"\r", b"\r\r", b"\n\r"):
            with Wire(office.port) as wire:
                wire.reply()
                wire.send(
                    b"MAIL FROM:<a@far.test>" + newline + b"RCPT TO:<%b>" % ALICE + newline + b"DATA\r\n"
                )
                self.assertEqual(wire.replies(1), [500])
                wire.send(b"NOOP" + newline + b"\r\nQUIT\r\n")
                self.assertEqual(codes(wire.rest()), [500, 221])
        self.close(office)


class SmugglingOut(Checklist):
    """A2: what we send is legal, whatever was handed in, by whichever door."""

    BODIES = (
        b"",
        b".",
        b"..\r\n.\r\n...",
        b"a\n.\nb",
        b"a\r.\rb\r",
        b"a\n.\r\nb\n",
        b"a\r\n.\nb",
        b"\n.\n" + INNER.replace(b"\r\n", b"\n") + b".\n",
        b"\r.\r" + INNER.replace(b"\r\n", b"\r") + b".\r",
        b"a\r\r\n.\r\r\nb\r\n\r",
        b"x" * 16384 + b"\n.\n" + INNER + b"." + b"y" * 998,
        b"x" * 16000 + b"\r.\r\nb",
        bytes(octet for octet in range(1, 256)) * 40,
        b".\n" * 5000,
        b"\n.\n" * (300 << 10),
    )

    def normalised(self, body: bytes) -> bytes:
        """What a text is on the wire, before its dots are stuffed: CRLF lines."""
        text = body.replace(b"\r", b"").replace(b"\n", b"\r\n")
        return text if text.endswith(b"\r\n") or not text else text + b"\r\n"

    def check(self, office: Postoffice, sent: Mapping[bytes, bytes]) -> None:
        there = self.relayed(office, len(sent))
        self.settle(office)
        self.legal(len(sent))
        for taken in there:
            lines = taken.content.split(b"\r\n")
            self.assertEqual([line for line in lines if line.startswith(b".") and line[:2] != b".."], [])
            decoded = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
            self.assertTrue(decoded.endswith(sent[taken.sender]), (decoded[-200:], sent[taken.sender][-200:]))
        self.assertEqual({taken.sender for taken in there}, set(sent))

    def test_A2_handed_in_by_smtp(self) -> None:
        office = self.furnished()
        sent = {}
        for at, body in enumerate(self.BODIES):
            sender = b"sender%d@far.test" % at
            # Dots are stuffed as by a client that knows of real CRLFs only.
            stuffed = re.sub(rb"(?<=\r\n)\.", b"..", HEADER + body)
            self.assertEqual(hand_in(office, sender, [AWAY], stuffed + b"\r\n")[:3], b"250", body[:80])
            sent[sender] = self.normalised(HEADER + body + b"\r\n")
        self.check(office, sent)
        self.close(office)

    def test_A2_handed_in_by_a_command(self) -> None:
        office = self.furnished()
        sent = {}
        for at, body in enumerate(self.BODIES):
            sender = b"sender%d@far.test" % at
            # A line that holds a dot would end the input of the command, but for -i.
            done = run(office, "-bm", "-i", "-f", sender.decode(), AWAY.decode(), data=HEADER + body)
            self.assertEqual(done.returncode, 0, done.stderr)
            sent[sender] = self.normalised(HEADER + body)
        self.check(office, sent)
        self.close(office)


class LongLines(Checklist):
    """A3: a line that is too long changes nothing about what the bytes behind it are."""

    SMUGGLED = b"MAIL FROM:<ceo@inner.test>\r\nRCPT TO:<%b>\r\nDATA\r\nsmuggled\r\n" % ALICE

    def test_A3_content(self) -> None:
        office = self.furnished()
        sizes = (16385, 20_000, 65_536, 65_537, 131_072, 1_000_000)
        for at, size in enumerate(sizes):
            line = HEADER + b"x" * size + b"\r\n"
            for content in (line + self.SMUGGLED, b"text\r\n" + line[:-2] + b"\n" + self.SMUGGLED):
                for cut in (len(content), 16384, 65536, 1 + size // 2):
                    with Wire(office.port) as wire:
                        wire.reply()
                        begin(wire, b"long%d@far.test" % at, ALICE, AWAY)
                        wire.segments(content[i : i + cut] for i in range(0, len(content), cut))
                        reply = wire.ask(b".")
                        self.assertEqual(reply, b"554 5.5.2 A line of the message is too long\r\n")
                        self.assertEqual(wire.ask(b"NOOP")[:3], b"250")
                        wire.send(b"QUIT\r\n")
                        self.assertEqual(codes(wire.rest()), [221])
        self.assertEqual(hand_in(office, b"last@far.test", [ALICE, AWAY], HEADER)[:3], b"250")
        self.assertEqual(return_path(self.maildir(office, 1)[0]), b"last@far.test")
        self.assertEqual(self.relayed(office, 1)[0].sender, b"last@far.test")
        self.legal(1)
        self.close(office)

    def test_A3_commands(self) -> None:
        office = self.furnished()
        begins = (b"", b"NOOP ", b"MAIL FROM:<", b"EHLO ", b"VRFY ", b"DATA ", b"QUIT ", b"XXXX")
        for start in begins:
            for size in (2100, 16384, 20_000, 200_000):
                fill = b"x" * (size - len(start))
                with Wire(office.port) as wire:
                    wire.reply()
                    # The rest of the line is no command, and neither is what follows its bare line ends.
                    wire.send(start + fill + self.SMUGGLED.replace(b"\r\n", b"\n") + b"\r\n")
                    self.assertEqual(wire.replies(1), [500], (start, size))
                    self.assertEqual(wire.ask(b"RCPT TO:<%b>" % ALICE)[:3], b"503")
                    self.assertEqual(wire.ask(b"NOOP")[:3], b"250")
        self.assertEqual(self.sink.taken, [])
        self.close(office)

    def test_A3_lines_that_are_long_enough(self) -> None:
        office = self.furnished()
        lengths = (998, 2000, 16384)
        content = HEADER + b"".join(b"x" * length + b"\r\n" for length in lengths)
        self.assertEqual(hand_in(office, b"long@far.test", [ALICE, AWAY], content)[:3], b"250")
        self.assertTrue(self.maildir(office, 1)[0].endswith(content.replace(b"\r\n", b"\n")))
        self.assertTrue(self.relayed(office, 1)[0].content.endswith(content))
        self.close(office)


class Pipelining(Checklist):
    """A5: replies come in the order of their commands, and nobody talks ahead of what must be waited for."""

    def test_A5_behind_a_letter_that_is_being_stored(self) -> None:
        office = self.furnished()
        for _ in range(20):
            with Wire(office.port) as wire:
                wire.reply()
                begin(wire, b"sender@far.test", ALICE)
                wire.send(
                    HEADER
                    + b"text\r\n.\r\nBAD\r\nMAIL FROM:<b@far.test>\r\nRCPT TO:<nobody@here.test>\r\nNOOP\r\n"
                    + b"VRFY x\r\nRSET\r\nEXPN y\r\nRCPT TO:<x@y.test>\r\nMAIL FROM:<\r\nQUIT\r\n"
                )
                replies = wire.rest()
                self.assertEqual(codes(replies), [250, 500, 250, 550, 250, 252, 250, 502, 503, 501, 221])
                self.assertIn(b"queued as", replies[0])
        self.maildir(office, 20)
        self.close(office)

    def test_A5_two_letters_in_a_row(self) -> None:
        office = self.furnished()
        group = b"MAIL FROM:<a@far.test>\r\nRCPT TO:<%b>\r\nRCPT TO:<nobody@%b>\r\nDATA\r\n" % (
            ALICE,
            DOMAIN.encode(),
        )
        with Wire(office.port) as wire:
            wire.reply()
            wire.send(group)
            self.assertEqual(wire.replies(4), [250, 250, 550, 354])
            wire.send(HEADER + END[2:] + group)
            self.assertEqual(wire.replies(5), [250, 250, 250, 550, 354])
            wire.send(HEADER + END[2:] + b"QUIT\r\n")
            self.assertEqual(codes(wire.rest()), [250, 221])
        self.maildir(office, 2)
        self.close(office)

    def test_A5_nothing_behind_the_last_of_a_group(self) -> None:
        office = self.furnished()
        envelope = b"MAIL FROM:<a@far.test>\r\nRCPT TO:<%b>\r\nRCPT TO:<%b>\r\n" % (ALICE, AWAY)
        whole = envelope + b"DATA\r\n" + HEADER + b"text" + END
        for said, expected in (
            (whole, [250, 250, 250, 554]),
            (whole + b"QUIT\r\n", [250, 250, 250, 554]),
            (envelope + b"DATA\r\n.", [250, 250, 250, 554]),
            (b"EHLO x.test\r\n" + whole, [554]),
            (b"HELO x.test\r\n" + whole, [554]),
            (b"NOOP\r\nQUIT\r\n" + whole, [250, 554]),
            (b"DATA\r\n" + whole, [554]),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + whole, [554]),
            (b"\x16\x03\x01\x02\x00" + whole, [554]),
        ):
            with Wire(office.port) as wire:
                wire.reply()
                wire.send(said)
                replies = wire.rest()
                self.assertEqual(codes(replies), expected, said[:60])
                self.assertTrue(replies[-1].startswith(b"554 5.5.1 "))
        self.assertEqual(hand_in(office, b"last@far.test", [ALICE, AWAY], HEADER)[:3], b"250")
        self.assertEqual(return_path(self.maildir(office, 1)[0]), b"last@far.test")
        self.assertEqual(self.relayed(office, 1)[0].sender, b"last@far.test")
        self.close(office)

    def test_A5_a_flood_ahead_of_its_replies_takes_no_memory(self) -> None:
        office = self.furnished("errors=0")
        before = resident(office.pid)
        with Wire(office.port) as wire:
            wire.reply()
            total = 16 << 20
            sender = threading.Thread(target=wire.send, args=[b"NOOP\r\n" * (total // 6)], daemon=True)
            sender.start()
            # Nothing is read: the server must stop reading too.
            time.sleep(1)
            self.assertTrue(sender.is_alive())
            self.assertLess(resident(office.pid, peak=True) - before, 8 << 10)
            wire.socket.shutdown(socket.SHUT_RDWR)
            sender.join()
        self.assertEqual(hand_in(office, b"last@far.test", [ALICE], HEADER)[:3], b"250")
        self.close(office)


class EarlyTalk(Checklist):
    """A5: bytes before the banner, of a client whose name is being looked up."""

    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        self.friends = 0
        # A name server that hears, and answers when the test wants it to.
        self.names = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(self.names.close)
        self.names.bind((HOST, 0))
        self.names.settimeout(30)

    def test_A5_bytes_before_the_banner(self) -> None:
        office = self.furnished(f"nameserver={HOST}:{self.names.getsockname()[1]}")
        talk = b"MAIL FROM:<a@far.test>\r\nRCPT TO:<%b>\r\nDATA\r\n" % ALICE
        for number, (said, expected) in enumerate(
            ((b"", [220]), (b"EHLO x.test\r\n", [554]), (talk, [554]), (b"N", [554]), (b"\r\n", [554]))
        ):
            with Wire(office.port, source=f"192.0.2.{10 + number}") as wire:
                wire.send(said)
                query, asker = self.names.recvfrom(4096)
                # No such name.
                self.names.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + question(query), asker)
                self.assertEqual(wire.replies(1), expected, said)
                if expected == [554]:
                    self.assertEqual(wire.rest(), [])
        self.close(office)


def question(query: bytes) -> bytes:
    """The question section of a DNS query that asks for one name."""
    return query[12 : query.index(b"\0", 12) + 5]


class Injection(Checklist):
    """A6: what strangers say stays one line, wherever it is written."""

    VALUES = (
        b"a%0d%0aX-Evil: y@b.test",
        b"a%0d%0aX-Evil@b.test",
        b"a\tb@c.test",
        b"a\0b@c.test",
        b"a\xff\xe4b@c.test",
        b"a\r\tX-Evil: y@b.test",
        b"a\nX-Evil: y@b.test",
        b"a\r\rX-Evil: y@b.test",
        b'"a\nX-Evil: y"@b.test',
        b'"a\rX-Evil: y"@b.test',
        b'"a\\\nX-Evil: y"@b.test',
        b"=?utf-8?q?=0D=0AX-Evil:_y?=@b.test",
        b"a@=?utf-8?b?DQpYLUV2aWw6IHk=?=.test",
        b'"a@b"@c.test',
        b'"a@b.test> for <x"@c.test',
        b'"a X-Evil: y"@b.test',
        b'"a\\"b\\\\"@b.test',
        b'";\tx"@b.test',
        b"a@b@c.test",
        b"a@b.test@",
        b"@b.test",
        b"a(comment)@b.test",
        b"(comment)a@b.test",
        b"a@(comment)b.test",
        b"@r.test:a@b.test",
        b"@r.test,@s.test:a@b.test",
        b"a@[127.0.0.1]\r",
        b"a@[IPv6:::1%eth0]",
        b"a@b.test\x85X-Evil: y",
        b"a@b.test\xe2\x80\xa8X-Evil: y",
        b"\x1b[2J\x1b]0;x\x07@b.test",
        b"a@b.test>\rX-Evil: y<",
        b"a@b.test> X-Evil=y",
        b"{0}{0.__class__}@b.test",
        b"%s%n%(x)s@b.test",
        b";id|x`id`$(id)@b.test",
        b"$(id)@b.test",
        b"-oX-Evil@b.test",
        b"|/bin/sh@b.test",
        b"x" * 250 + b"@b.test",
    )

    def fields_of(self, letter: bytes) -> dict[bytes, list[bytes]]:
        """The header of a letter with LF line ends; every line of it is a field we know, or a fold."""
        fields: dict[bytes, list[bytes]] = {}
        name = b""
        for line in letter.partition(b"\n\n")[0].split(b"\n"):
            if line.startswith((b" ", b"\t")):
                fields[name][-1] += line
                continue
            name, colon, value = line.partition(b":")
            name = name.lower()
            self.assertTrue(colon, line)
            self.assertIn(name, FIELDS, line)
            fields.setdefault(name, []).append(value)
        return fields

    def test_A6_names_and_addresses(self) -> None:
        office = self.furnished("errors=0")
        accepted = 0
        for value in self.VALUES:
            with Wire(office.port) as wire:
                wire.reply()
                plain = value.isascii() and value.decode().isprintable()
                host = plain and not re.search(rb'[ "(),;<>@\\]', value) and len(value) < 256
                for greeting in (b"HELO ", b"EHLO "):
                    self.one(
                        wire, greeting + value, 250 if host else 501 if plain and len(value) < 500 else 500
                    )
                wire.ask(b"HELO greeting.test")
                self.one(wire, b"HELO " + value.partition(b"@")[0], 250, 500, 501)
                refusals = (501, 555) if plain else (500,)
                if not self.one(wire, b"MAIL FROM:<%b>" % value, *refusals, *((250,) if plain else ())):
                    self.one(wire, b"MAIL FROM:<plain@far.test>", 250)
                self.one(wire, b"RCPT TO:<%b>" % value, *refusals, *((250, 550) if plain else ()))
                self.one(wire, b"RCPT TO:<%b>" % ALICE, 250)
                self.assertEqual(wire.ask(b"DATA")[:3], b"354")
                self.assertEqual(wire.ask(HEADER + b"text\r\n.")[:3], b"250")
                accepted += 1
        for letter in self.maildir(office, accepted):
            fields = self.fields_of(letter)
            self.assertEqual(len(fields[b"received"]), 1, letter)
            self.assertEqual(len(fields[b"return-path"]), 1)
            self.assertNotIn(b"text", letter.partition(b"\n\n")[0])
            received = fields[b"received"][0]
            self.assertRegex(received, rb"^ from [!-~]+ \([^()]*\)\tby %b \(Postoffice\) " % NAME.encode())
            self.assertTrue(
                received.isascii() and received.replace(b"\t", b" ").decode().isprintable(), received
            )
        self.settle(office)
        for taken in self.sink.taken:
            self.fields_of(taken.content.replace(b"\r\n", b"\n"))
        self.assertGreater(len(self.sink.taken), 3)
        self.legal(len(self.sink.taken))
        self.close(office)

    def one(self, wire: Wire, line: bytes, *expected: int) -> bool:
        """Exactly one reply, of one of these codes, that repeats nothing; whether it was a yes.

        A value may hold a line end: the command is over at the first CRLF, and there is none in a value.
        """
        self.assertNotIn(b"\r\n", line)
        last = line[:4] in (b"HELO", b"EHLO")
        wire.send(line + (b"\r\n" if last else b"\r\nNOOP\r\n"))
        reply = wire.reply()
        self.assertIn(int(reply[:3]), expected, (line, reply))
        self.assertNotIn(b"Evil", reply)
        self.assertTrue(reply.replace(b"\r\n", b"").decode("ascii").isprintable(), reply)
        if not last:
            self.assertEqual(wire.replies(1), [250], line)
        return reply.startswith(b"2")

    def test_A6_a_path_ends_where_it_ends(self) -> None:
        office = self.furnished("errors=0")
        with Wire(office.port) as wire:
            wire.reply()
            self.assertEqual(wire.ask(b"MAIL FROM:<a@b.test>")[:3], b"250")
            for tail in (
                b"SIZE=1",
                b"BODY=8BITMIME",
                b",<c@d.test>",
                b"<c@d.test>",
                b">",
                b"(x)",
                b";",
                b"@c.test",
            ):
                self.assertEqual(wire.ask(b"RCPT TO:<%b>%b" % (ALICE, tail))[:3], b"501", tail)
                self.assertEqual(wire.ask(b"RCPT TO:%b%b" % (ALICE, tail))[:3], b"501", tail)
            self.assertEqual(wire.ask(b"DATA")[:3], b"554")
            for tail in (
                b"SIZE=1",
                b"BODY=8BITMIME",
                b",<c@d.test>",
                b"<c@d.test>",
                b">",
                b"(x)",
                b";",
                b"@c.test",
            ):
                self.assertEqual(wire.ask(b"MAIL FROM:<a@b.test>" + tail)[:3], b"501", tail)
        self.close(office)

    REFUSED = (b"500", b"501", b"502", b"503", b"504", b"535")

    def test_A6_words_of_other_protocols(self) -> None:
        office = self.furnished("errors=0")
        with Wire(office.port) as wire:
            wire.reply()
            for line in (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2",
                b"XCLIENT NAME=evil.test ADDR=192.0.2.1 LOGIN=a%0d%0ab",
                b"XFORWARD NAME=a+0D+0Ab",
                b"AUTH PLAIN AGEAYg0KWA==",
                b"AUTH LOGIN YQ0KWA==",
                b"*",
                b"AUTH EXTERNAL =",
                b"STARTTLS",
                b"TURN",
                b"DEBUG",
                b"WIZ",
                b"",
                b" ",
            ):
                # A name with a line end in it is asked for its password as any other.
                expected = (b"334",) if b"LOGIN Y" in line else self.REFUSED
                self.assertIn(wire.ask(line)[:3], expected, line)
            self.assertEqual(wire.ask(b"NOOP")[:3], b"250")
        self.close(office)

    REPLIES = (
        b"550-evil\r\n550 Final-Recipient: rfc822; x@evil.test\r\n",
        b"550-5.1.1 \r\n550-5.1.1 \r\n550 5.1.1 Action: delivered\r\n",
        b"550 5.1.1 a\rX-Evil: y\r\n",
        b"550 a\0b\x1b[2J\x85\xff\xe2\x80\xa8X-Evil: y\r\n",
        b"550 --report\tX-Evil\x0b\x0cy\r\n",
        b"550 " + b"x" * 1900 + b"\r\n",
        b"550 {0} %s %(x)s $(id) `id` \\r\\nX-Evil: y\r\n",
        b"550\r\n",
        b"554-" + b"y\r\n554-" * 300 + b"z\r\n554 end\r\n",
        b"551 =?utf-8?q?=0D=0AX-Evil:_y?=\r\n",
    )
    POSTPONED = (
        b"450-\x1b[2Jx\r\n450 Final-Recipient: rfc822; x\r\n",
        b"550-a\n550 X-Evil: y\r\n",
        b"550-a\r\n551 b\r\n",
        b"\r\n550 X-Evil: y\r\n",
    )

    def test_A6_reports_of_what_a_host_said(self) -> None:
        def answer(line: bytes) -> bytes | None:
            found = re.match(rb'RCPT TO:<"?r(\d+)', line)
            return self.REPLIES[int(found[1])] if found else None

        office = self.furnished(answer=answer)
        count = len(self.REPLIES)
        names = [b"r%d@away.test" % at for at in range(count)]
        names[1:4] = [
            b'"r1 X-Evil: y"@away.test',
            b'"r2> Action: delivered"@away.test',
            b'"r3\\"; \\\\ (x)"@away.test',
        ]
        content = b"X-Quoted: \xff\0\x1b--report\r\n" + HEADER + b"text\r\n"
        self.assertEqual(hand_in(office, ALICE, names, content)[:3], b"250")
        (letter,) = self.maildir(office, 1)
        self.settle(office)
        report = message_from_bytes(letter, policy=email.policy.compat32)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report["Return-Path"], "<>")
        text, status, header = report.get_payload()
        self.assertEqual(header.get_content_type(), "text/rfc822-headers")
        shown = text.as_bytes() + status.as_bytes()
        self.assertTrue(shown.isascii() and shown.replace(b"\n", b"").decode().isprintable(), shown)
        front, *blocks = status.get_payload()
        self.assertEqual(front.keys(), ["Reporting-MTA", "X-Postoffice-Queue-ID", "Arrival-Date"])
        self.assertEqual(len(blocks), count)
        for block, name in zip(blocks, names, strict=True):
            self.assertEqual(
                block.keys(), ["Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"]
            )
            self.assertEqual(block["Final-Recipient"], f"rfc822; {name.decode()}")
            self.assertEqual(block["Action"], "failed")
            self.assertRegex(block["Status"], r"^5\.\d{1,3}\.\d{1,3}$")
            self.assertEqual(block.defects, [])
        self.assertEqual(letter.count(b"\nX-Evil"), 0)
        self.assertEqual(letter.count(b"\nAction:"), count)
        self.close(office)

    def test_A6_the_queue_shows_what_a_host_said(self) -> None:
        def answer(line: bytes) -> bytes | None:
            found = re.match(rb"RCPT TO:<r(\d+)", line)
            return self.POSTPONED[int(found[1])] if found else None

        office = self.furnished(answer=answer)
        for at in range(len(self.POSTPONED)):
            self.assertEqual(hand_in(office, ALICE, [b"r%d@away.test" % at], HEADER)[:3], b"250")
        self.eventually("four reasons", lambda: office.log().count("postpone mail") >= 4, office)
        shown = run(office, "-bp").stdout
        # A headline, a line of titles, and for each letter itself, its reason and its recipient.
        self.assertEqual(len(shown.splitlines()), 2 + 3 * len(self.POSTPONED), shown)
        self.assertTrue(shown.isascii() and shown.replace(b"\n", b"").decode().isprintable(), shown)
        self.assertNotRegex(shown, rb"(?m)^(X-Evil|Final-Recipient)")
        self.close(office)


class EveryOctet(Checklist):
    """A7: no octet anywhere is more than a refusal."""

    COMMANDS = (
        b"HELO x.test",
        b"EHLO x.test",
        b"MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME",
        b"RCPT TO:<%b>" % ALICE,
        b"RSET",
        b"NOOP",
        b"VRFY a",
        b"EXPN a",
        b"HELP",
        b"QUIT",
        b"DATA",
    )
    WAITS = (b"HELO", b"EHLO", b"DATA", b"QUIT")

    def test_A7_every_octet_in_every_position(self) -> None:
        office = self.furnished("errors=0", "recipients=0")
        with Wire(office.port) as wire:
            wire.reply()
            begin(wire, b"warm@far.test", ALICE)
            wire.ask(b".")
        before, asked = resident(office.pid), 0
        for command in self.COMMANDS:
            for at in range(len(command) + 1):
                lines = [command[:at] + bytes([octet]) + command[at + 1 :] for octet in range(256)]
                asked += self.ask_all(office, lines)
        self.assertGreater(asked, 256 * 100)
        self.assertLess(resident(office.pid, peak=True) - before, 32 << 10)
        self.assertEqual(hand_in(office, b"last@far.test", [ALICE], HEADER)[:3], b"250")
        self.settle(office)
        self.close(office)

    def ask_all(self, office: Postoffice, lines: list[bytes]) -> int:
        """Say lines that can be pipelined in one go, the others one by one; count what got its one reply."""
        alone = [line for line in lines if line[:4].upper() in self.WAITS]
        group = [line for line in lines if line[:4].upper() not in self.WAITS]
        wire = Wire(office.port)
        wire.reply()
        wire.send(b"MAIL FROM:<a@far.test>\r\n" + b"".join(line + b"\r\n" for line in group) + b"NOOP\r\n")
        said = wire.replies(len(group) + 2)
        self.assertTrue(all(200 <= code < 600 and code != 354 for code in said), said)
        self.assertEqual(said[-1], 250)
        for line in alone:
            reply = wire.ask(line)
            self.assertIn(int(reply[:3]), (221, 250, 354, 500, 501, 503, 554), (line, reply))
            self.assertTrue(reply.isascii())
            if reply.startswith(b"354"):
                self.assertEqual(wire.ask(b".")[:3], b"250")
            elif reply.startswith(b"221"):
                self.assertEqual(wire.rest(), [])
                wire.socket.close()
                wire = Wire(office.port)
                wire.reply()
            wire.send(b"NOOP\r\n")
            self.assertEqual(wire.replies(1), [250], line)
        wire.socket.close()
        return len(lines)

    HEADERS: Mapping[str, bytes] = {
        "names of attributes": b"__class__: x\r\n__proto__: y\r\nconstructor: z\r\n__init__: a\r\n",
        "formats": b"%s: %s\r\n%n%n: %(x)s\r\n{0}: {0.__class__}\r\n{: }\r\n$(id): `id`\r\n",
        "no names": b": x\r\n : y\r\n",
        "every octet": b"".join(
            b"X-%c: %c\r\n" % (octet, octet) for octet in range(256) if octet not in b"\r\n"
        ),
        "one long name": b"n" * 15_000 + b": x\r\n",
        "40,000 fields": b"a: b\r\n" * 40_000,
        "100,000 fields": b"a: b\r\n" * 100_000,
        "a long fold": b"Subject: x\r\n" + b" y\r\n" * 50_000,
        "a header without end": b"a: " + b"b" * 90 + b"\r\n" + b" c\r\n" * 300_000,
        "a name of a mebibyte": b"n" * (1 << 20) + b": x\r\n",
        "a value of a mebibyte": b"Subject: " + b"x" * (1 << 20) + b"\r\n",
        "10,000 letters in letters": b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
        "10,000 parts in parts": b"".join(
            b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (at, at) for at in range(10_000)
        ),
    }
    REFUSED = {"100,000 fields", "a header without end", "a name of a mebibyte", "a value of a mebibyte"}

    def test_A7_headers(self) -> None:
        office = self.furnished("recipients=0")
        hand_in(office, b"warm@far.test", [ALICE], HEADER)
        self.maildir(office, 1)
        before = resident(office.pid)
        sent = {}
        for at, (name, block) in enumerate(self.HEADERS.items()):
            sender = b"header%d@far.test" % at
            reply = hand_in(office, sender, [ALICE, AWAY], block + b"\r\nbody\r\n")
            self.assertEqual(reply[:3], b"554" if name in self.REFUSED else b"250", name)
            if name not in self.REFUSED:
                sent[sender] = block + b"\r\nbody\r\n"
        letters = {return_path(letter): letter for letter in self.maildir(office, 1 + len(sent))}
        relayed = {taken.sender: taken for taken in self.relayed(office, len(sent))}
        self.settle(office)
        for sender, content in sent.items():
            self.assertTrue(letters[sender].endswith(content.replace(b"\r\n", b"\n")), sender)
            self.assertTrue(relayed[sender].content.endswith(content.replace(b"\0", b"")), sender)
        self.assertLess(resident(office.pid, peak=True) - before, 48 << 10)
        self.close(office)


class Backscatter(Checklist):
    """C3: nobody is told about a letter from nobody."""

    def test_C3_a_letter_from_nobody_that_fails(self) -> None:
        office = self.furnished(answer=lambda line: b"550 5.1.1 no\r\n" if line[:4] == b"RCPT" else None)
        for recipients in ([AWAY], [AWAY, b"other@away.test"], [AWAY, ALICE]):
            self.assertEqual(hand_in(office, b"", recipients, HEADER)[:3], b"250")
        letters = self.maildir(office, 1)
        self.settle(office)
        self.assertIn(b"Subject: a letter", letters[0])
        self.maildir(office, 1)
        self.assertEqual(self.sink.taken, [])
        commands = b"".join(map(bytes, self.sink.recorded))
        self.assertEqual(set(re.findall(rb"MAIL FROM:<(.*?)>", commands)), {b""})
        self.assertEqual(set(re.findall(rb"RCPT TO:<(.*?)>", commands)), {AWAY, b"other@away.test"})
        self.close(office)

    def test_C3_an_unknown_user_is_refused_and_not_told(self) -> None:
        office = self.furnished()
        with Wire(office.port) as wire:
            wire.reply()
            self.assertEqual(wire.ask(b"MAIL FROM:<victim@away.test>")[:3], b"250")
            self.assertEqual(wire.ask(b"RCPT TO:<unknown@%b>" % DOMAIN.encode())[:3], b"550")
            self.assertEqual(wire.ask(b"DATA")[:3], b"554")
        self.settle(office)
        self.assertEqual(self.sink.recorded, [])
        self.close(office)


class FromLines(Checklist):
    """D7: a body is no new letter."""

    BODIES = (
        b"text\r\n\r\nFrom x Thu Jan  1 00:00:00 1970\r\nSubject: inner\r\n\r\nsmuggled\r\n",
        b"\r\nFrom x\r\n",
        b"Content-Length: 3\r\n\r\nx\r\n\r\nFrom evil@inner.test Thu Jan  1 00:00:00 1970\r\n",
        b"\n\nFrom x\n\n>From y\n\n>>From z\n\r\n",
        b"x\r\n\r\r\nFr\rom x\r\n",
        b"..\r\n.From x\r\n",
    )

    def test_D7_a_body_reads_back_as_one_letter(self) -> None:
        office = self.furnished(kind="mbox")
        expected = []
        for body in self.BODIES:
            whole = HEADER + body
            with Wire(office.port) as wire:
                wire.reply()
                begin(wire, b"sender@far.test", ALICE)
                wire.segments((whole[at : at + 1] for at in range(len(whole))), 0)
                self.assertEqual(wire.ask(b".")[:3], b"250")
            expected.append(decoded(whole + END[2:]).replace(b"\r\n", b"\n"))
        self.settle(office)
        found = [re.sub(rb"(?m)^>(>*From )", rb"\1", letter) for letter in stored(office, kind="mbox")]
        self.assertEqual(len(found), len(expected))
        for letter, content in zip(found, expected, strict=True):
            self.assertTrue(letter.endswith(content), (letter, content))
        self.close(office)


class Relaying(Checklist):
    """C1: strangers cannot send through us, whatever they call the recipient."""

    OUTSIDE = "198.51.100.7"

    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        self.friends = 0

    def probes(self) -> Iterable[bytes]:
        """Paths that some server relayed for once. `victim` is nobody here."""
        here, name, literal = DOMAIN.encode(), NAME.encode(), b"[127.0.0.1]"
        for ours in (here, name, literal, b"[IPv6:::1]", b"localhost", b"[IPv6:::ffff:127.0.0.1]"):
            yield b"<victim%away.test@" + ours + b">"
            yield b"<victim@away.test@" + ours + b">"
            yield b'<"victim@away.test"@' + ours + b">"
            yield b'<"victim%away.test"@' + ours + b">"
            yield b"<away.test!victim@" + ours + b">"
            yield b"<@" + ours + b":victim@away.test>"
            yield b"<@" + ours + b",@away.test:victim@away.test>"
            yield b"<victim@" + ours + b">"
            yield b"<" + ours + b"!victim@away.test>"
        yield from (
            b"<victim@away.test>",
            b"victim@away.test",
            b"<victim@[192.0.2.200]>",
            b"<victim@[IPv6:2001:db8::1]>",
            b"<victim@[IPv6:::ffff:192.0.2.200]>",
            b'<"victim@away.test">',
            b'<"victim%away.test">',
            b"<victim%away.test>",
            b"<away.test!victim>",
            b"<victim@away.test.>",
            b"<victim@AWAY.test>",
            b"<victim@away.test@>",
            b"<victim@>",
            b"<>",
            b"<|id@away.test>",
            b"</etc/passwd>",
            b"<:include:/etc/passwd>",
        )

    # The words of a client that hopes for the wrong kind of trust.
    GREETINGS = (b"EHLO localhost", b"HELO [127.0.0.1]", b"EHLO " + NAME.encode())
    SENDERS = (b"<spam@away.test>", b"<%b>" % ALICE, b"<>", b"<spam@[127.0.0.1]>", b"<root>")

    def strangers(self, *lines: str) -> Postoffice:
        """An office to which everybody is a stranger: what tells the names of addresses is not there."""
        self.sink = RecordingSink()
        self.addCleanup(self.sink.stop)
        settings = f"nameserver={HOST}:{free_port()}", "errors=0", "greylist=0"
        return self.relaying(self.sink.port, *settings, *lines)

    def relays_nothing(self, wire: Wire, senders: Sequence[bytes] = SENDERS) -> None:
        """Every probe is refused in a session that was greeted, and only because of what it asks for."""
        probes = list(self.probes())
        self.assertGreaterEqual(len(probes), 60)
        for greeting in self.GREETINGS:
            self.assertEqual(wire.ask(greeting)[:3], b"250")
        for sender in senders:
            self.assertEqual(wire.ask(b"MAIL FROM:" + sender)[:3], b"250")
            wire.send(b"".join(b"RCPT TO:%b\r\n" % probe for probe in probes) + b"DATA\r\n")
            for probe in probes:
                reply = wire.reply()
                self.assertIn(reply[:3], (b"550", b"501"), (sender, probe, reply))
            self.assertEqual(wire.replies(1), [554], "no valid recipients")
        # Whoever is at home here gets mail, so that it is not the address that was refused.
        begin(wire, b"friend@away.test", ALICE)
        self.assertEqual(wire.ask(HEADER + b".")[:3], b"250")
        self.friends += 1

    def nothing_left(self, office: Postoffice) -> None:
        """The letters of friends came, and nothing went out."""
        self.maildir(office, self.friends)
        self.settle(office)
        self.assertEqual(self.sink.recorded, [])
        self.close(office)

    def test_C1_probes_from_outside(self) -> None:
        office = self.strangers()
        for source, senders in ((self.OUTSIDE, self.SENDERS), ("192.0.2.1", (b"<root@localhost>",))):
            with Wire(office.port, source=source) as wire:
                self.assertEqual(wire.replies(1), [220])
                self.relays_nothing(wire, senders)
        self.nothing_left(office)

    def test_C1_probes_on_the_submission_port(self) -> None:
        """Without a log-in it is a door like the other, and a log-in that failed is none."""
        msp = free_port()
        office = self.strangers(f"msp={HOST}:{msp}", "auth-plaintext=1")
        with Wire(msp, source=self.OUTSIDE) as wire:
            self.assertEqual(wire.replies(1), [220])
            self.assertEqual(wire.ask(b"EHLO localhost")[:3], b"250")
            self.assertEqual(wire.ask(b"AUTH PLAIN AGFsaWNlQGhlcmUudGVzdAB4")[:3], b"535")
            self.relays_nothing(wire)
        self.nothing_left(office)

    PROXY = "192.0.2.9"
    AT_HOME = (
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1025 25\r\n",
        b"PROXY TCP6 ::1 ::1 1025 25\r\n",
        b"PROXY TCP6 ::ffff:127.0.0.1 ::1 1025 25\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x19",
    )
    """Headers of a proxy whose client claims to be of this machine, or nobody in particular."""

    def test_C1_probes_through_a_proxy(self) -> None:
        """Whoever is announced is never at home, and only a proxy may announce."""
        office = self.strangers(f"proxy={self.PROXY}")
        for header in self.AT_HOME:
            with Wire(office.port, source=self.PROXY) as wire:
                wire.send(header)
                self.assertEqual(wire.replies(1), [220], header)
                self.relays_nothing(wire, [b"<root@localhost>"])
            with Wire(office.port, source=self.OUTSIDE) as wire:
                self.assertEqual(wire.replies(1), [220])
                wire.send(header.partition(b"\r\n")[0] + b"\r\n")
                self.assertEqual(wire.replies(1), [500])
                self.relays_nothing(wire, [b"<root@localhost>"])
        with Wire(office.port, source=self.PROXY) as wire:
            self.assertEqual(wire.ask(b"EHLO localhost"), b"", "the header is no choice of the proxy")
        self.nothing_left(office)

    def test_C1_probes_with_xclient(self) -> None:
        office = self.strangers(f"xclient={self.PROXY}")
        for attributes in (
            b"ADDR=127.0.0.1 NAME=localhost",
            b"ADDR=IPV6:::1",
            b"ADDR=IPV6:::ffff:127.0.0.1",
            b"NAME=" + NAME.encode(),
            b"NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]",
        ):
            for source, expected in ((self.PROXY, 220), (self.OUTSIDE, 502)):
                with Wire(office.port, source=source) as wire:
                    self.assertEqual(wire.replies(1), [220])
                    self.assertEqual(int(wire.ask(b"XCLIENT " + attributes)[:3]), expected, attributes)
                    self.relays_nothing(wire, [b"<root@localhost>"])
        self.nothing_left(office)

    def test_C1_an_address_mapped_into_ipv6_is_no_other_address(self) -> None:
        self.sink = RecordingSink()
        self.addCleanup(self.sink.stop)
        both = free_port()
        office = self.relaying(
            self.sink.port, f"listen=tcp6:{both}:interface=\\:\\:", f"nameserver={HOST}:{free_port()}"
        )
        for source, expected in ((self.OUTSIDE, b"550"), ("192.0.2.1", b"550"), (HOST, b"250")):
            with Wire(both, source=source) as wire:
                self.assertEqual(wire.replies(1), [220])
                self.assertEqual(wire.ask(b"MAIL FROM:<root@localhost>")[:3], b"250")
                self.assertEqual(wire.ask(b"RCPT TO:<victim@away.test>")[:3], expected, source)
        self.close(office)
