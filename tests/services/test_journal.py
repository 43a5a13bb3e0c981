"""The journal: what operators and programs read, and that nothing holds up the reactor."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Sequence

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.places import LogTarget
from postoffice.interfaces import Steps
from postoffice.mail.address import Address
from postoffice.mail.client import Client, Tls
from postoffice.mail.destination import Copy, Mailbox, Remote
from postoffice.mail.envelope import Envelope, Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Postponed
from postoffice.mail.reply import Reply
from postoffice.services.journal import BACKLOG, Journal
from postoffice.services.sinks import Record, Sink, SyslogSink, as_json, as_text, open_sink

SENDER = Address("s", "example.org")
LETTER = Letter("ID1", SENDER, "7BIT", 100, 0.0, "host [192.0.2.1]")
TO = Recipient(1, Address("a", "example.net"), 0.0)
CLIENT = Client("192.0.2.1", 25, "host.example", "greeting")


class Memory:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = False
        self.broken = False

    def write(self, records: Sequence[Record]) -> None:
        if self.broken:
            raise OSError("broken")
        self.records += records

    def close(self) -> None:
        self.closed = True


def opened(clock: Clock, sink: Sink) -> Journal:
    """A journal that writes to one sink."""
    journal = Journal(clock, lambda: [sink])
    journal.open()
    return journal


class Facts(SynchronousTestCase):
    def setUp(self) -> None:
        self.sink = Memory()
        self.journal = opened(Clock(), self.sink)

    def told(self) -> list[str]:
        return [record.text for record in self.sink.records]

    def test_what_an_address_stands_for(self) -> None:
        copies = [Copy(Address(f"u{n}", "x.test"), (TO.address,)) for n in range(30)]
        self.journal.expanded(LETTER, TO, copies[:2])
        self.journal.expanded(LETTER, TO, copies)
        short, long = self.told()
        self.assertEqual(short, "ID1: <a@example.net> stands for <u0@x.test>, <u1@x.test>")
        self.assertTrue(long.endswith("<u19@x.test> and 10 more"), long)

    def test_a_letter_from_door_to_door(self) -> None:
        self.journal.ready("127.0.0.1:25")
        self.journal.accepted("ID1", Envelope(SENDER, (TO.address,)), 100, CLIENT)
        self.journal.accepted("ID2", Envelope(None, (TO.address, SENDER)), 100, CLIENT)
        where = Remote("example.net")
        self.journal.settled(LETTER, TO, Delivered(Reply(250, (0, 0), "ok"), "mx [192.0.2.7]:25"), where)
        self.journal.settled(LETTER, TO, Postponed(Reply(451, (3, 0), "no")), Mailbox("mbox", "/m", "a"))
        self.journal.settled(LETTER, TO, Failed(Reply(550, (1, 1), "who")), None)
        self.journal.bounced(LETTER, "ID3", [TO.address])
        self.journal.reported(LETTER, "ID4", [TO.address])
        self.journal.stopped(0.0123)
        route = "mail from <s@example.org> (host [192.0.2.1]) to <a@example.net>"
        self.assertEqual(
            self.told(),
            [
                "ready, listening on 127.0.0.1:25",
                f"ID1: accepted 100 octets from <s@example.org> ({CLIENT}) for <a@example.net>",
                "ID2: accepted 100 octets from <> (host.example [192.0.2.1]) for 2 recipients",
                f"ID1: deliver {route} (mx [192.0.2.7]:25): 250 2.0.0 ok",
                f"ID1: postpone {route} (mbox /m): 451 4.3.0 no",
                f"ID1: fail {route} (nowhere): 550 5.1.1 who",
                "ID1: returned to <s@example.org> as ID3 for 1 recipients",
                "ID1: reported to <s@example.org> as ID4 for 1 recipients",
                "stopped; longest stall of the reactor 12.3 ms",
            ],
        )

    def test_a_refusal_tells_the_reason_where_it_says_more(self) -> None:
        reply = Reply(550, (1, 1), "no")
        self.journal.refused(CLIENT, "RCPT TO:<x@y>", reply, "because")
        self.journal.refused(CLIENT, "RCPT TO:<x@y>", reply, str(reply))
        start = "refused RCPT TO:<x@y> of host.example [192.0.2.1] helo=greeting: 550 5.1.1 no"
        self.assertEqual(self.told(), [f"{start} (because)", start])

    def test_sessions_and_wrong_numbers(self) -> None:
        self.journal.admitted(CLIENT)
        self.journal.admitted(Client("192.0.2.1", may_relay=True, door="msp"))
        self.journal.admitted(Client("192.0.2.1", marked="no name"))
        self.journal.wrong_number(CLIENT, SENDER, Reply(550, None, "no"))
        self.assertEqual(
            self.told(),
            [
                "session with host.example [192.0.2.1] on smtp: it may not relay",
                "session with [192.0.2.1] on msp: it may relay",
                "session with [192.0.2.1] on smtp: it may not relay, and is forbidden: no name",
                "wrong number: refused <s@example.org> of host.example [192.0.2.1] helo=greeting: 550 no",
            ],
        )

    def test_audit_records_have_their_columns(self) -> None:
        self.journal.audit(CLIENT, 0, "CONN", 220, "")
        self.journal.audit(CLIENT, 12, "STARTTLS", 220, "STARTTLS")
        self.journal.audit(CLIENT, 1234, "?\n", 599, "x\r\ny")
        self.journal.audit(Client("2001:db8:1111:2222::ffff"), 7, "MAIL", 250, "MAIL FROM:<>")
        self.assertEqual(
            self.told(),
            [
                "AUDIT:  0:      192.0.2.1:CONN:220:",
                "AUDIT: 12:      192.0.2.1:STAR:220:STARTTLS",
                "AUDIT:1234:      192.0.2.1:  ??:599:x?y",
                "AUDIT:  7:[2001:db8:1111:2222::ffff]:MAIL:250:MAIL FROM:<>",
            ],
        )
        self.assertEqual({record.level for record in self.sink.records}, {"debug"})

    def test_A6_what_strangers_say_makes_no_line_of_its_own(self) -> None:
        evil = "x\r\n2026 info forged\0"
        client = Client("192.0.2.1", helo=evil)
        self.journal.refused(client, f"RCPT TO:<{evil}>", Reply(550, (1, 1), "no"), evil)
        self.journal.warning(evil)
        for record in self.sink.records:
            self.assertNotIn("\n", record.text)
            self.assertEqual(as_text(record).count("\n"), 1)
            self.assertEqual(as_json(record).count("\n"), 1)

    def test_a_bug_is_told_with_its_traceback(self) -> None:
        try:
            raise ZeroDivisionError("oops\nforged")
        except ZeroDivisionError as error:
            self.journal.error("it broke", error)
        text = self.told()[0]
        self.assertTrue(text.startswith("it broke: ZeroDivisionError: oops?forged\n    Traceback"))
        self.assertNotIn("\nforged", text)

    def test_a_session_that_is_encrypted_half_way(self) -> None:
        tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "mx.example.org")
        self.journal.secured(Client("192.0.2.1", tls=tls))
        self.journal.secured(Client("192.0.2.1", tls=evolve(tls, server_name=None)))
        self.journal.handshake_failed(Client("192.0.2.1"), "no shared\ncipher")
        now = f"session with [192.0.2.1] on smtp now using {tls}"
        self.assertEqual(
            self.told(),
            [
                f"{now}, asked for mx.example.org",
                now,
                "TLS handshake with [192.0.2.1] failed: no shared?cipher",
            ],
        )
        self.assertEqual(json.loads(as_json(self.sink.records[0]))["server_name"], "mx.example.org")

    def test_what_came_over_tls_says_so(self) -> None:
        tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
        client = Client("192.0.2.1", protocol="ESMTP", door="smtps", tls=tls)
        self.journal.accepted("ID1", Envelope(SENDER, (TO.address,)), 100, client)
        self.assertTrue(self.told()[0].endswith(f"for <a@example.net> using {tls}"))
        fields = json.loads(as_json(self.sink.records[0]))
        self.assertEqual((fields["door"], fields["protocol"], fields["tls"]), ("smtps", "ESMTPS", str(tls)))

    def test_who_has_changed_files(self) -> None:
        self.journal.managed(Client("", user="tim", protocol="LOCAL"), "set the alias x\n@here.example")
        self.assertEqual(self.told(), ["tim@localhost: set the alias x?@here.example"])

    def test_who_has_logged_in(self) -> None:
        client = Client("192.0.2.1", login="alice@example.org")
        self.journal.logged_in(client, "PLAIN")
        self.journal.accepted("ID1", Envelope(SENDER, (TO.address,)), 100, client)
        first, second = self.told()
        self.assertEqual(first, "log-in of alice@example.org by PLAIN from [192.0.2.1]")
        self.assertTrue(second.endswith("for <a@example.net> logged in as alice@example.org"))
        for record in self.sink.records:
            self.assertEqual(json.loads(as_json(record))["login"], "alice@example.org")

    def test_what_filters_have_said(self) -> None:
        steps, let_go = (
            Steps({"MAIL": 1, "RCPT": 2}, 0.0074, 0.005),
            "MAIL, 2 RCPT: continue (7 ms, 5 ms at most)",
        )
        self.journal.filtered(CLIENT, "/run/f", "content", "ID1", "accept", 0.0123, steps)
        self.journal.filtered(CLIENT, "/run/f", "connection", "", "550 no\nthanks", 2.0)
        self.journal.passed(CLIENT, "/run/f", "", steps)
        self.assertEqual(
            self.told(),
            [
                f"ID1: filter /run/f on content of {CLIENT}: accept (12 ms), behind {let_go}",
                f"filter /run/f on connection of {CLIENT}: 550 no?thanks (2000 ms)",
                f"filter /run/f on {let_go.replace(':', f' of {CLIENT}:')}",
            ],
        )
        first, second, third = (json.loads(as_json(record)) for record in self.sink.records)
        self.assertEqual((first["ms"], first["steps_ms"], second["ms"]), (12, 7, 2000))
        self.assertEqual((third["steps"], third["longest_ms"]), ("MAIL, 2 RCPT", 5))

    def test_json_has_fields(self) -> None:
        self.journal.accepted("ID1", Envelope(SENDER, (TO.address,)), 100, CLIENT)
        fields = json.loads(as_json(self.sink.records[0]))
        self.assertEqual(
            {name: fields[name] for name in ("fact", "level", "id", "sender", "size", "recipients")},
            {
                "fact": "accepted",
                "level": "info",
                "id": "ID1",
                "sender": "<s@example.org>",
                "size": 100,
                "recipients": 1,
            },
        )


class Writing(SynchronousTestCase):
    def test_lines_are_gathered_and_written_in_a_thread(self) -> None:
        clock, sink = Clock(), Memory()
        journal = opened(clock, sink)
        journal.start()
        journal.warning("one")
        journal.warning("two")
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        clock.advance(1)
        journal.warning("three")
        journal.stop()
        self.assertEqual([record.text for record in sink.records], ["one", "two", "three"])
        self.assertTrue(sink.closed)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertNotIn("journal", [thread.name for thread in threading.enumerate()])

    def test_what_happens_before_the_sinks_are_open_is_kept(self) -> None:
        sink = Memory()
        journal = Journal(Clock(), lambda: [sink])
        journal.warning("early")
        self.assertEqual(sink.records, [])
        journal.open()
        self.assertEqual([record.text for record in sink.records], ["early"])

    def test_a_log_that_cannot_be_opened_is_named(self) -> None:
        target = LogTarget("file", "/nonexistent/log")
        journal = Journal(Clock(), lambda: [open_sink(target)])
        self.assertEqual(self.assertRaises(FileNotFoundError, journal.open).filename, "/nonexistent/log")

    def test_other_sinks_take_over_in_order(self) -> None:
        before, after = Memory(), Memory()
        journal = opened(Clock(), before)
        journal.start()
        journal.warning("one")
        journal.reopen(lambda: [after])
        journal.warning("two")
        journal.stop()
        self.assertEqual([record.text for record in before.records], ["one"])
        self.assertEqual([record.text for record in after.records], ["two"])
        self.assertTrue(before.closed and after.closed)

    def test_a_sink_that_fails_costs_lines_that_are_counted(self) -> None:
        sink = Memory()
        journal = opened(Clock(), sink)
        sink.broken = True
        journal.warning("lost")
        sink.broken = False
        journal.warning("kept")
        self.assertEqual(
            [record.text for record in sink.records],
            ["kept", "1 log records were dropped, the log could not be written fast enough"],
        )

    def test_a_sink_that_is_stuck_does_not_hold_up_nor_grow_without_bound(self) -> None:
        clock = Clock()
        release = threading.Event()
        sink = Memory()
        journal = opened(clock, sink)
        write = sink.write
        sink.write = lambda records: (release.wait(30), write(records))[1]  # type: ignore[method-assign]
        journal.start()
        for _ in range(BACKLOG + 50):
            journal.warning("line")
            clock.advance(1)
        release.set()
        journal.stop()
        texts = [record.text for record in sink.records]
        self.assertLessEqual(texts.count("line"), BACKLOG + 1)
        self.assertGreater(texts.count("line"), BACKLOG - 2)

    def test_files(self) -> None:
        path = self.mktemp()
        for form in (False, True):
            sink = open_sink(LogTarget("file", os.path.abspath(path), form))
            opened(Clock(), sink).warning("hello")
            sink.close()
        with open(path) as file:
            text, structured = file.readlines()
        self.assertRegex(text, r"^1970-01-01T\S+ warning hello\n$")
        self.assertEqual(json.loads(structured)["text"], "hello")
        self.assertEqual(os.stat(path).st_mode & 0o007, 0)

    def test_a_file_that_was_moved_away_is_made_again(self) -> None:
        path = os.path.abspath(self.mktemp())
        sink = open_sink(LogTarget("file", path))
        journal = opened(Clock(), sink)
        journal.warning("before")
        os.rename(path, f"{path}.1")
        journal.warning("after")
        sink.close()
        for name, text in ((f"{path}.1", "before"), (path, "after")):
            with open(name) as file:
                (line,) = file
            self.assertIn(text, line)

    def test_a_file_that_cannot_be_made_again_is_written_on(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        sink = open_sink(LogTarget("file", f"{folder}/log"))
        journal = opened(Clock(), sink)
        os.rename(folder, f"{folder}.gone")
        journal.warning("after")
        sink.close()
        with open(f"{folder}.gone/log") as file:
            self.assertIn("after", file.read())

    def test_the_journal_of_systemd_is_told_priorities_and_no_time(self) -> None:
        said: list[bytes] = []
        self.patch(os, "write", lambda fd, data: said.append(bytes(data)) or len(data))  # type: ignore[func-returns-value]
        status = os.fstat(2)
        stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        for kind, environment in (("stderr", stream), ("journal", {})):
            self.patch(os, "environ", environment)
            opened(Clock(), open_sink(LogTarget(kind))).error("broken", ValueError("x"))  # type: ignore[arg-type]
        self.assertEqual(said, [b"<3>broken: ValueError: x\n<3>    ValueError: x\n"] * 2)

    def test_standard_error_that_leads_elsewhere_has_times(self) -> None:
        said: list[bytes] = []
        self.patch(os, "write", lambda fd, data: said.append(bytes(data)) or len(data))  # type: ignore[func-returns-value]
        self.patch(os, "environ", {"JOURNAL_STREAM": "1:1"})
        opened(Clock(), open_sink(LogTarget("stderr"))).warning("hello")
        (line,) = said
        self.assertRegex(line, rb"^1970-01-01T\S+ warning hello\n$")

    def test_what_is_fatal_is_told_on_standard_error_too(self) -> None:
        told: list[bytes] = []
        self.patch(os, "write", lambda fd, data: told.append((fd, bytes(data))) or len(data))  # type: ignore[func-returns-value,arg-type]
        opened(Clock(), Memory()).fatal("no port")
        ((fd, line),) = told
        self.assertEqual(fd, 2)
        self.assertTrue(line.endswith(b" error no port\n"))

    def test_syslog(self) -> None:
        path = self.mktemp()[-60:].replace("/", "_")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(path)
            sink = SyslogSink(path, lambda record: record.text)
            journal = opened(Clock(), sink)
            journal.warning("hello")
            journal.audit(CLIENT, 0, "NOOP", 250, "NOOP")
            sink.close()
            lines = [daemon.recv(1000), daemon.recv(1000)]
        os.unlink(path)
        name = f"postoffice[{os.getpid()}]"
        # Facility mail; priorities warning and debug.
        self.assertEqual(
            lines,
            [f"<20>{name}: hello".encode(), f"<23>{name}: AUDIT:  0:      192.0.2.1:NOOP:250:NOOP".encode()],
        )
