"""The driver of a milter against one of our own: what is sent, what is waited for, and every way to fail."""

from __future__ import annotations

import gc
import struct
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from postoffice.filters.connection import Connection
from postoffice.filters.letter import Replaced
from postoffice.filters.milter import Milter, MilterSession, MilterSettings
from postoffice.interfaces import Draught
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Reply
from postoffice.milter.edits import AddHeader, Field, RemoveRecipient
from postoffice.milter.facts import Facts, Place
from postoffice.milter.negotiation import Offer
from postoffice.milter.packets import packet
from postoffice.milter.verdicts import Accept, Continue, Failed, Refuse, Verdict
from tests.filter_contract import FilterSessionContract
from tests.filters.fake import PATH, FakeMilter, Network

CLIENT = Client("192.0.2.9", 1234, "client.example", "client.example", "ESMTP")
FIELDS = (
    Field(b"Received", b"", b" from client", hidden=True),
    Field(b"Subject", b"", b" s"),
    Field(b"From", b"", b" <a@example.net>"),
)


def facts_of(client: Client = CLIENT) -> Facts:
    place = Place("mx.example.org", "192.0.2.1", 25, "Postoffice 1")
    facts = Facts(client, place, lambda: 1_000_000.0, letter_id="QID23456")
    facts.sender, facts.recipient = Address("a", "example.net"), Address("b", "example.org")
    return facts


def draught(body: bytes = b"text\r\n", fields: tuple[Field, ...] = FIELDS) -> Draught:
    envelope = Envelope(Address("a", "example.net"), (Address("b", "example.org"),))
    return Draught(envelope, fields, Replaced(body))


class DriverCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.notes: list[str] = []

    def milter(self, **settings: Any) -> Milter:
        return Milter(MilterSettings(path=PATH, **settings), self.network, self.network, self.notes.append)

    def started(self, verdict: Awaitable[Verdict]) -> list[Verdict]:
        """Begin to wait; the verdict is put in here."""
        found: list[Verdict] = []

        async def wait() -> None:
            found.append(await verdict)

        Deferred.fromCoroutine(wait()).addErrback(self.fail)
        return found

    def now(self, verdict: Awaitable[Verdict]) -> Verdict:
        """The verdict, which is there at once."""
        (found,) = self.started(verdict)
        return found

    def session(self, milter: Milter | None = None, **settings: Any) -> MilterSession:
        session = (milter or self.milter(**settings)).session()
        assert isinstance(session, MilterSession)
        self.addCleanup(lambda: self.assertEqual(self.network.getDelayedCalls(), []))
        self.addCleanup(session.close)
        return session

    def begun(self, way: str = "CHMRT", facts: Facts | None = None, **settings: Any) -> MilterSession:
        """A session that has come so far."""
        session, facts = self.session(**settings), facts or facts_of()
        self.assertEqual(self.now(session.open()), Continue())
        for event in way:
            self.assertEqual(self.now(self.step(session, event, facts)), Continue())
        return session

    def step(self, session: MilterSession, event: str, facts: Facts | None = None) -> Awaitable[Verdict]:
        facts = facts or facts_of()
        facts.arguments = [b"<a@example.net>", b"SIZE=9"] if event == "M" else [b"<b@example.org>"]
        steps: dict[str, Callable[[Facts], Awaitable[Verdict]]] = {
            "C": session.client,
            "H": session.helo,
            "M": session.sender,
            "R": session.recipient,
            "T": session.data,
        }
        return steps[event](facts)

    def content(
        self, session: MilterSession, letter: Draught | None = None, left: float = 570.0
    ) -> Awaitable[Verdict]:
        return session.content(facts_of(), letter or draught(), self.network.seconds() + left)

    @property
    def filter(self) -> FakeMilter:
        return self.network.last


class Conversation(DriverCase):
    def test_a_whole_letter(self) -> None:
        session = self.begun()
        self.assertEqual(self.now(self.content(session)), Continue())
        self.assertEqual(self.filter.commands, "OCHMRTLLNBE")
        self.assertEqual(self.filter.data(b"C"), [b"client.example\x004\x04\xd2192.0.2.9\0"])
        self.assertEqual(self.filter.data(b"M"), [b"<a@example.net>\0SIZE=9\0"])
        self.assertEqual(self.filter.data(b"L"), [b"Subject\0s\0", b"From\0<a@example.net>\0"])
        self.assertEqual(self.filter.data(b"B"), [b"text\r\n"])
        self.assertEqual(self.filter.data(b"E"), [b""])
        session.close()
        self.assertEqual((self.filter.commands[-1], self.filter.ended), ("Q", "closed"))

    def test_macros_are_in_the_same_write_as_their_command(self) -> None:
        self.begun()
        writes = self.network.wires[0].writes
        self.assertTrue(any(b"DC" in write and b"client.example\x004" in write for write in writes))
        self.assertEqual(len(writes), 6)

    def test_the_name_of_the_daemon_may_be_another_for_it(self) -> None:
        place = Place("mx.example.org", "192.0.2.1", 587)
        for names, port, told in (
            ({}, 25, b"mx.example.org"),
            ({0: "MTA"}, 25, b"MTA"),
            ({587: "ORIGINATING"}, 25, b"mx.example.org"),
            ({587: "ORIGINATING"}, 587, b"ORIGINATING"),
            ({0: "MTA", 587: "ORIGINATING"}, 587, b"ORIGINATING"),
        ):
            facts = facts_of()
            facts.place = evolve(place, port=port)
            self.begun("C", facts, daemon_names=names)
            (macros,) = self.filter.data(b"D")
            self.assertIn(b"{daemon_name}\0%b\0" % told, macros)
            self.assertIn(b"j\0mx.example.org\0", macros)

    def test_two_letters_on_one_connection(self) -> None:
        session = self.begun()
        self.now(self.content(session))
        session.abort()
        for event in "MR":
            self.now(self.step(session, event))
        session.abort()
        for event in "MRT":
            self.assertEqual(self.now(self.step(session, event)), Continue())
        self.assertEqual(self.now(self.content(session)), Continue())
        self.assertEqual(self.filter.commands, "OCHMRTLLNBEMRAMRTLLNBE")

    def test_bodies_come_in_packets_that_fit(self) -> None:
        for size in (0, 1, 65534, 65535, 65536, 65537, 300_000):
            session = self.begun()
            body = (b"%08d\r\n" % size * (size // 10 + 1))[:size]
            self.now(self.content(session, draught(body)))
            sent = self.filter.data(b"B")
            self.assertEqual(b"".join(sent), body)
            self.assertTrue(all(0 < len(piece) <= 65535 for piece in sent))
            session.close()

    def test_no_header_and_no_body(self) -> None:
        session = self.begun()
        self.now(self.content(session, draught(b"", FIELDS[:1])))
        self.assertEqual(self.filter.commands, "OCHMRTNE")

    def test_who_is_not_asked_and_who_does_not_answer_says_nothing(self) -> None:
        # No HELO, no answer to MAIL.
        self.network.answers = {b"O": packet(b"O", struct.pack(">III", 6, 0x1FF, 0x4002)), b"M": None}
        session = self.session()
        self.now(session.open())
        for event, silent in (("C", False), ("H", True), ("M", True), ("R", False)):
            self.assertEqual((self.now(self.step(session, event)), session.silent), (Continue(), silent))
        self.network.answers[b"T"] = packet(b"a")
        self.assertEqual((self.now(self.step(session, "T")), session.silent), (Accept(), False))
        self.assertEqual((self.now(self.content(session)), session.silent), (Continue(), True))
        session.abort()
        for event in "MRR":
            self.now(self.step(session, event))
        self.network.answers = {}
        self.assertEqual((self.now(self.content(session)), session.silent), (Continue(), False))

    def test_edits(self) -> None:
        self.network.answers[b"E"] = packet(b"h", b"X\0v\0") + packet(b"a")
        session = self.begun()
        self.assertEqual(self.now(self.content(session)), Accept())
        self.assertEqual(session.edits(), [AddHeader(b"X", b"v")])

    def test_a_refusal_in_the_middle_ends_the_letter(self) -> None:
        for code in (b"L", b"N", b"B"):
            self.network.answers = {code: packet(b"y", b"550 5.7.1 no\0")}
            session = self.begun()
            self.assertEqual(self.now(self.content(session)), Refuse(Reply(550, (7, 1), "no")))
            self.assertEqual(self.filter.commands[-1], code.decode())
            session.abort()
            self.assertNotIn("A", self.filter.commands)
            session.close()

    def test_accepted_clients_are_not_asked_about_again_even_when_the_filter_is_gone(self) -> None:
        self.network.answers[b"C"] = packet(b"a")
        session = self.begun("")
        self.assertEqual(self.now(self.step(session, "C")), Accept())
        self.filter.hang_up()
        self.assertEqual(self.now(self.step(session, "H")), Continue())
        self.assertEqual(self.now(self.content(session)), Continue())
        self.assertEqual(self.filter.commands, "OC")

    def test_silent_filters_get_headers_in_bulk(self) -> None:
        self.network.answers[b"O"] = packet(b"O", struct.pack(">III", 6, 0x1FF, 0xFF080))
        for code in b"CHMRTLNBU":
            self.network.answers[bytes([code])] = None
        session = self.begun()
        before = len(self.network.wires[0].writes)
        fields = FIELDS + (Field(b"X", b"", b" y"),) * 500
        self.assertEqual(self.now(self.content(session, draught(fields=fields))), Continue())
        self.assertLessEqual(len(self.network.wires[0].writes) - before, 2)

    def test_one_that_went_away_while_nobody_asked(self) -> None:
        session = self.begun()
        self.now(self.content(session))
        self.assertEqual(session.lost, "")
        self.filter.hang_up()
        self.assertEqual(session.lost, "the connection was closed")

    def test_one_that_wants_to_hear_no_more_may_go(self) -> None:
        self.network.answers[b"C"] = packet(b"a")
        session = self.session()
        self.now(session.open())
        self.now(session.client(facts_of()))
        self.filter.hang_up()
        self.assertEqual((session.lost, self.now(self.step(session, "M"))), ("", Continue()))

    def test_notes_are_said_once(self) -> None:
        self.network.answers[b"O"] = packet(b"O", struct.pack(">III", 6, 0x1FF, 0x200000))
        milter = self.milter()
        for _ in range(3):
            session = self.session(milter)
            self.now(session.open())
            session.close()
        self.assertEqual(len(self.notes), 1)
        self.assertIn(PATH, self.notes[0])

    def test_changes_that_were_not_announced_are_noted(self) -> None:
        self.network.answers[b"O"] = packet(b"O", struct.pack(">III", 6, 0x01, 0))
        self.network.answers[b"E"] = packet(b"-", b"<x@y>\0") + packet(b"c")
        session = self.begun()
        self.now(self.content(session))
        self.assertEqual(session.edits(), [RemoveRecipient(b"<x@y>")])
        self.assertIn("did not say", self.notes[0])

    def test_fields_that_fit_into_no_packet(self) -> None:
        big = (*FIELDS, Field(b"X-Big", b"", b" " + b"x" * 65535))
        self.assertIsInstance(self.now(self.content(self.begun(), draught(fields=big))), Failed)
        session = self.begun(oversized="skip")
        self.assertEqual(self.now(self.content(session, draught(fields=big))), Continue())
        self.assertEqual(self.filter.commands.count("L"), 2)

    def test_back_pressure(self) -> None:
        self.network.answers[b"O"] = packet(b"O", struct.pack(">III", 6, 0x1FF, 0xFF080))
        self.network.answers[b"B"] = None
        session = self.begun()
        self.network.wires[0].producer.pauseProducing()
        found = self.started(self.content(session, draught(b"x" * 1_000_000)))
        written = len(self.network.wires[0].writes)
        self.network.advance(20)
        self.assertEqual((found, len(self.network.wires[0].writes)), ([], written))
        self.network.wires[0].producer.resumeProducing()
        self.assertEqual(found, [Continue()])
        self.assertEqual(sum(map(len, self.filter.data(b"B"))), 1_000_000)

    def test_what_is_written_goes_out_at_once(self) -> None:
        class Transport(StringTransport):
            undelayed = False

            def setTcpNoDelay(self, enabled: bool) -> None:
                self.undelayed = enabled

        transport = Transport()
        Connection(self.session(), self.network).makeConnection(transport)
        self.assertTrue(transport.undelayed)


class Leaving(DriverCase):
    def test_a_session_that_is_over_leaves_no_circle(self) -> None:
        """Full garbage collections are rare: what sessions leave to them is kept for long."""
        for broken in (False, True):
            session: Any = self.milter().session()
            self.now(session.open())
            for event in "CHMRT":
                self.now(self.step(session, event))
            self.now(self.content(session))
            if broken:
                self.filter.hang_up()
            session.close()
            left = weakref.ref(session)
            self.network.wires.clear()
            self.network.connections.clear()
            gc.disable()
            try:
                del session
                self.assertIsNone(left())
            finally:
                gc.enable()


class Failing(DriverCase):
    def failed(self, found: list[Verdict], why: str) -> None:
        (verdict,) = found
        assert isinstance(verdict, Failed), verdict
        self.assertIn(why, verdict.why)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_nobody_there(self) -> None:
        self.network.down = True
        self.failed(self.started(self.session().open()), "cannot connect")

    def test_no_connection_in_time(self) -> None:
        self.network.silent = True
        session = self.session()
        found = self.started(session.open())
        session.close()
        self.failed(found, "cannot connect")

    def test_a_socket_whose_directory_is_not_there(self) -> None:
        milter = Milter(
            MilterSettings(path="/nowhere/" + "x" * 200), self.network, self.network, self.notes.append
        )
        self.failed(self.started(self.session(milter).open()), "cannot connect")

    def test_E4_silence_at_every_stage(self) -> None:
        for code, way, patience in (
            (b"O", "", 30), (b"C", "C", 30), (b"H", "CH", 30), (b"M", "CM", 30), (b"R", "CMR", 30),
            (b"T", "CMRT", 30), (b"L", "CMRTE", 300), (b"N", "CMRTE", 300), (b"B", "CMRTE", 300),
            (b"E", "CMRTE", 300),
        ):  # fmt: skip
            self.network.answers = {code: None}
            session = self.session()
            if not way:
                found = self.started(session.open())
            else:
                self.now(session.open())
                for event in way[:-1]:
                    self.now(self.step(session, event))
                last = way[-1]
                found = self.started(self.content(session) if last == "E" else self.step(session, last))
            self.network.advance(patience - 1)
            self.assertEqual(found, [], code)
            self.network.advance(1)
            self.failed(found, "does not answer")
            self.assertEqual(self.filter.ended, "aborted")
            self.assertNotIn("Q", self.filter.commands)
            session.close()

    def test_progress_and_edits_give_it_more_time_up_to_the_end(self) -> None:
        self.network.answers[b"E"] = None
        session = self.begun()
        found = self.started(self.content(session))
        for _ in range(3):
            self.network.advance(180)
            self.filter.send(packet(b"p"))
        self.assertEqual(found, [])
        self.network.advance(30)
        self.failed(found, "does not answer")

    def test_each_wait_has_its_own_time(self) -> None:
        self.network.answers |= {b"H": None, b"M": None}
        session = self.begun("C")
        answered = self.started(self.step(session, "H"))
        self.network.advance(20)
        self.filter.send(packet(b"c"))
        self.assertEqual(answered, [Continue()])
        found = self.started(self.step(session, "M"))
        for seconds in (10, 19):
            self.network.advance(seconds)
            self.assertEqual(found, [])
        self.network.advance(1)
        self.failed(found, "does not answer")

    def test_a_part_of_a_packet_is_no_progress(self) -> None:
        self.network.answers[b"M"] = None
        session = self.begun("C")
        found = self.started(self.step(session, "M"))
        self.network.advance(29)
        self.filter.send(b"\0\0")
        self.network.advance(1)
        self.failed(found, "does not answer")

    def test_it_hangs_up_at_every_stage(self) -> None:
        for reset in (False, True):
            for code in (b"C", b"H", b"M", b"R", b"T"):
                self.network.answers = {code: None}
                session = self.session()
                self.now(session.open())
                way = "CHMRT"[: "CHMRT".index(code.decode()) + 1]
                for event in way[:-1]:
                    self.now(self.step(session, event))
                found = self.started(self.step(session, way[-1]))
                self.filter.hang_up(reset)
                self.failed(found, "onnection")
                session.close()

    def test_it_hangs_up_between_commands(self) -> None:
        session = self.begun("CH")
        self.filter.hang_up()
        self.failed([self.now(self.step(session, "M"))], "closed")

    def test_E4_it_hangs_up_in_the_middle_of_its_edits(self) -> None:
        self.network.answers[b"E"] = packet(b"h", b"X\0v\0") + packet(b"b", b"half")
        session = self.begun()
        found = self.started(self.content(session))
        self.filter.hang_up()
        self.failed(found, "closed")
        self.assertEqual(session.edits(), [])

    def test_E4_nonsense_costs_the_filter_only(self) -> None:
        for nonsense in (b"\xff" * 8, b"\0\0\0\0", packet(b"Z"), packet(b"h", b"x"), b"HTTP/1.1 400 Bad\r\n"):
            self.network.answers = {b"M": nonsense}
            session = self.begun("C")
            self.failed(self.started(self.step(session, "M")), "")
            self.assertEqual(self.filter.ended, "aborted")
            session.close()

    def test_stray_packets_between_commands(self) -> None:
        session = self.begun("C")
        self.filter.send(packet(b"c"))
        self.failed([self.now(self.step(session, "M"))], "nothing was asked")

    def test_E4_a_second_verdict_is_not_taken_for_that_of_the_next_letter(self) -> None:
        self.network.answers[b"E"] = packet(b"y", b"451 4.7.1 later\0") + packet(b"r")
        session = self.begun()
        self.assertEqual(self.now(self.content(session)), Refuse(Reply(451, (7, 1), "later")))
        session.abort()
        self.failed([self.now(self.step(session, "M"))], "nothing was asked")

    def test_it_does_not_read(self) -> None:
        session = self.begun("C")
        self.network.wires[0].producer.pauseProducing()
        found = self.started(self.step(session, "M"))
        self.network.advance(30)
        self.failed(found, "does not read")

    def test_the_client_leaves_while_it_thinks(self) -> None:
        for event in "LE":
            self.network.answers = {event.encode(): None}
            session = self.begun()
            found = self.started(self.content(session))
            session.close()
            self.failed(found, "the session is over")
            self.assertEqual((self.filter.commands[-3:], self.filter.ended), (f"{event}AQ", "closed"))

    def test_E4_one_that_reads_nothing_more_keeps_no_connection(self) -> None:
        self.network.answers[b"B"] = None
        session = self.begun()
        self.started(self.content(session))
        self.network.wires[0].stuck = True
        session.close()
        self.network.advance(9)
        self.assertEqual(self.filter.ended, "")
        self.network.advance(1)
        self.assertEqual(self.filter.ended, "aborted")

    def test_the_end_of_one_that_has_gone_is_not_waited_for(self) -> None:
        session = self.begun("C")
        self.filter.hang_up()
        session.close()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_a_letter_that_comes_to_nothing_while_it_thinks(self) -> None:
        self.network.answers[b"R"] = None
        session = self.begun("CM")
        found = self.started(self.step(session, "R"))
        session.abort()
        self.failed(found, "broken off")

    def test_versions_that_cannot_be_agreed_on(self) -> None:
        self.network.answers[b"O"] = packet(b"O", struct.pack(">III", 6, 0x1FF, 0))
        self.failed(self.started(self.session(offer=Offer(4)).open()), "version 6")


class Contract(FilterSessionContract, DriverCase):
    """The promises of every filter's session."""

    def run_(self, work: Coroutine[Any, Any, Any]) -> Any:
        found: list[Any] = []
        Deferred.fromCoroutine(work).addCallbacks(found.append, self.fail)
        return found[0]

    def make(self, answer: str) -> MilterSession:
        self.network.answers = {
            "continue": {},
            "accept": {b"E": packet(b"h", b"X-Seen\0yes\0") + packet(b"a")},
            "refuse": {b"E": packet(b"y", b"550 5.7.1 no\0")},
            "discard": {b"E": packet(b"d")},
            "fail": {b"E": packet(b"Z")},
        }[answer]  # type: ignore[assignment]
        return self.session()
