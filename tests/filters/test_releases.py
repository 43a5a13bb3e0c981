"""Rules of the original's releases about milters, each test named for its: whole sessions in memory."""

from __future__ import annotations

from postoffice.config.values import Disposition
from postoffice.filters.chain import Chain
from postoffice.filters.milter import Milter, MilterSettings
from postoffice.filters.terms import ChainSettings, Terms
from postoffice.milter.packets import packet
from tests.filters.fake import OPTIONS, PATH, Network
from tests.filters.test_screening import LETTER, MAIL, RCPT, FiltersCase
from tests.queue.support import Directory


class Releases(FiltersCase):
    def setUp(self) -> None:
        super().setUp()
        self.network = Network()
        office = self.door.office
        milter = Milter(
            MilterSettings(path=PATH), self.network, self.network, self.door.office.journal.warning
        )
        self.door.factory.filters = Chain(
            [(milter, Terms())],
            ChainSettings("mx.example.org", Disposition("bounce")),
            Directory(),
            self.policy,
            office.journal,
            office.spool.new_id,
            office.clock,
        )

    def test_1_5_8_addresses_without_the_line_end_and_headers_that_stay_whole(self) -> None:
        header = "Subject: s\r\nX-Long: a\r\n\tb\r\nX-Last: z\r\n"
        self.assertEqual(self.letter(None, f"{header}\r\ntext\r\n.")[-1][:3], "250")
        milter = self.network.last
        self.assertEqual(milter.data(b"M"), [b"<a@example.net>\0SIZE=9\0"])
        self.assertEqual(milter.data(b"R"), [b"<bob@example.org>\0"])
        self.assertEqual(milter.data(b"L"), [b"Subject\0s\0", b"X-Long\0a\n\tb\0", b"X-Last\0z\0"])
        self.assertIn(header.encode(), self.door.contents()[0])

    def test_1_5_4_phases_that_a_filter_does_not_want_are_left_out(self) -> None:
        self.network.answers[b"O"] = packet(b"O", OPTIONS[:8] + b"\0\0\0\x32")
        self.assertEqual(self.letter()[-1][:3], "250")
        self.assertEqual(self.network.last.commands, "OCMRTNE")

    def test_1_5_4_what_a_filter_puts_off_is_put_off(self) -> None:
        for event in (b"M", b"R", b"T", b"L", b"N", b"B", b"E"):
            self.network.answers = {event: packet(b"t")}
            self.assertIn("451 4.7.1 Service unavailable - try again later", self.letter(), event)
        self.assertEqual(self.door.contents(), [])

    def test_1_5_3_continuation_lines_belong_to_their_header(self) -> None:
        self.letter(None, "Subject: s\r\n one\r\n\ttwo\r\n\r\ntext\r\n.")
        self.assertEqual(self.network.last.data(b"L"), [b"Subject\0s\n one\n\ttwo\0"])
        self.assertEqual(self.network.last.data(b"B"), [b"text\r\n"])

    def test_1_5_2_a_filters_text_has_its_code_once(self) -> None:
        self.network.answers[b"E"] = packet(b"y", b"550-5.7.1 first\r\n550 5.7.1 second\0")
        visit = self.greeted()
        self.say(visit, MAIL, RCPT, "DATA")
        self.assertEqual(visit.send(LETTER.encode() + b"\r\n"), b"550-5.7.1 first\r\n550 5.7.1 second\r\n")

    def test_1_4_5c_a_recipient_before_its_sender_freezes_nothing(self) -> None:
        visit = self.greeted()
        self.assertEqual(self.codes(self.say(visit, RCPT, "DATA")), ["503", "503"])
        self.assertEqual(self.letter(visit)[-1][:3], "250")
        self.assertEqual(self.network.last.commands, "OCHMRTLNBE")
