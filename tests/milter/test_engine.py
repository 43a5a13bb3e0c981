"""The engine of a connection to a filter, octet by octet: what is sent when, and what each answer does."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config import filters
from postoffice.mail.reply import Reply
from postoffice.milter import negotiation
from postoffice.milter.edits import AddHeader, AddRecipient, ChangeSender, Edit, Field, Hold, ReplaceBody
from postoffice.milter.engine import MilterEngine, State
from postoffice.milter.negotiation import Offer
from postoffice.milter.packets import packet
from postoffice.milter.verdicts import (
    CLOSED,
    PUT_OFF,
    REJECTED,
    Accept,
    Continue,
    Discard,
    Failed,
    Refuse,
    Verdict,
)

EVERYTHING, FLAGS = 0x1FF, 0x1FFFFF
# What a filter sets to hear of nothing, and to answer nothing.
NOTHING_SENT, NOTHING_SAID = 0x37F, 0xFF080
MACROS = {"i": "QID", "j": "mx.example.org", "mail_addr": "", "nrcpts": "2", "rcpt_addr": "bob@example.org"}


def value(name: str) -> str | None:
    return MACROS.get(name)


def nothing(name: str) -> str | None:
    return None


def answer(version: int = 6, actions: int = EVERYTHING, flags: int = 0, more: bytes = b"") -> bytes:
    return packet(b"O", struct.pack(">III", version, actions, flags) + more)


def macro_list(stage: int, names: bytes) -> bytes:
    return struct.pack(">I", stage) + names + b"\0"


COMMANDS = (
    *("negotiate", "connect", "helo", "mail", "rcpt", "data", "header", "end_of_header", "body"),
    *("end_of_message", "unknown", "abort", "quit", "fail", "receive"),
)


class Recorded(MilterEngine):
    """An engine that keeps what was done with it, and what it returned."""

    def __init__(self, offer: Offer, longest_body: int) -> None:
        super().__init__(offer, longest_body)
        self.made_of = (offer, longest_body)
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []
        self._inside = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self.keep, name, found) if name in COMMANDS and not self._inside else found

    def keep(self, name: str, command: Callable[..., Any], *arguments: Any) -> Any:
        self._inside = True
        try:
            result = command(*arguments)
        finally:
            self._inside = False
        self.calls.append((name, arguments, result))
        return result


def each_byte(said: Sequence[bytes]) -> Iterable[Iterable[bytes]]:
    return ([data[at : at + 1] for at in range(len(data))] for data in said)


def with_trailing_data(said: Sequence[bytes]) -> Iterable[Iterable[bytes]]:
    """With each piece comes the beginning of the next, or of a packet that never gets whole."""
    taken = 0
    for data, follows in zip(said, [*said[1:], packet(b"c")], strict=True):
        yield [data[taken:] + follows[:3]]
        taken = len(follows[:3])


WAYS = (each_byte, with_trailing_data)


def facts(made: MilterEngine) -> tuple[object, ...]:
    return (
        *(made.state, made.edits, made.failure, made.heard, made.dropped, made.unannounced, made.agreed),
        *(made.waiting, made.in_letter, made.listens, made.done),
    )


class EngineCase(SynchronousTestCase):
    """Every conversation is held whole, byte by byte, and with trailing data."""

    def setUp(self) -> None:
        self.made: list[Recorded] = []

    def fresh(self, offer: Offer | None = None, longest_body: int = 10_000) -> MilterEngine:
        self.made.append(Recorded(offer or Offer(), longest_body))
        return self.made[-1]

    def engine(
        self,
        version: int = 6,
        flags: int = 0,
        more: bytes = b"",
        actions: int = EVERYTHING,
        offer: Offer | None = None,
    ) -> MilterEngine:
        """An engine that has agreed with its filter."""
        made = self.fresh(offer)
        made.negotiate()
        assert made.receive(answer(version, actions, flags, more)) == Continue()
        return made

    def tearDown(self) -> None:
        for one in self.made:
            for way in WAYS:
                self.repeat(one, way)

    def repeat(self, one: Recorded, way: Callable[[Sequence[bytes]], Iterable[Iterable[bytes]]]) -> None:
        other = MilterEngine(*one.made_of)
        said = iter(way([arguments[0] for name, arguments, _ in one.calls if name == "receive"]))
        for name, arguments, result in one.calls:
            if name != "receive":
                self.assertEqual(getattr(other, name)(*arguments), result, (way, name))
                continue
            verdicts = [verdict for verdict in map(other.receive, next(said)) if verdict is not None]
            self.assertEqual(verdicts[0] if verdicts else None, result, way)
        self.assertEqual(facts(other), facts(one), way)


def packets(data: bytes) -> list[tuple[bytes, bytes]]:
    """What was sent, packet by packet."""
    found = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append((data[4:5], data[5 : 4 + size]))
        data = data[4 + size :]
    return found


Step = Callable[[MilterEngine], bytes]
BODY = b"text\r\n"
EVENTS: dict[str, Step] = {
    "C": lambda one: one.connect("client.example", "4", 25, "192.0.2.1", nothing),
    "H": lambda one: one.helo("client.example", nothing),
    "M": lambda one: one.mail([b"<a@example.org>", b"SIZE=9"], nothing),
    "R": lambda one: one.rcpt([b"<b@example.org>"], nothing),
    "T": lambda one: one.data(nothing),
    "L": lambda one: one.header(Field(b"Subject", b"", b" s")),
    "N": lambda one: one.end_of_header(nothing),
    "B": lambda one: one.body(BODY),
    "E": lambda one: one.end_of_message(nothing),
    "U": lambda one: one.unknown(b"NONSENSE x"),
}


def play(made: MilterEngine, events: Iterable[str], replies: bytes = packet(b"c")) -> bytes:
    """Everything is answered the same; what was sent."""
    sent = b""
    for event in events:
        sent += EVENTS[event](made)
        if made.waiting:
            made.receive(replies)
    return sent


class Negotiation(EngineCase):
    def test_what_is_offered(self) -> None:
        for version, actions, flags in (
            (2, 0x3F, 0x7F),
            (3, 0x3F, 0x17F),
            (4, 0x3F, 0x37F),
            (6, 0x1FF, FLAGS),
        ):
            offered = self.fresh(Offer(version), 0).negotiate()
            self.assertEqual(offered, packet(b"O", struct.pack(">III", version, actions, flags)))

    def test_what_an_administrator_denies_is_not_offered(self) -> None:
        self.assertEqual(set(negotiation.CHANGES), set(filters.CHANGES))
        denied = sum(negotiation.CHANGES[name] for name in ("change-body", "add-recipients", "quarantine"))
        offer = Offer(denied=denied)
        self.assertEqual(bytes(offer), packet(b"O", struct.pack(">III", 6, 0x159, FLAGS)))
        self.refused(answer(actions=0x1FF), offer)
        made = self.engine(actions=0x1FF, offer=evolve(offer, ignore_denied=True))
        play(made, "CHMRNB")
        EVENTS["E"](made)
        made.receive(packet(b"q", b"r\0") + packet(b"2", b"<x@y>\0") + packet(b"h", b"X\0v\0") + packet(b"c"))
        self.assertEqual((made.edits, made.dropped), ([AddHeader(b"X", b"v")], 2))

    def refused(self, data: bytes, offer: Offer | None = None) -> None:
        made = self.fresh(offer, 0)
        made.negotiate()
        verdict = made.receive(data)
        self.assertIsInstance(verdict, Failed)
        self.assertIn("negotiation", made.failure or "")
        self.assertEqual(made.quit(), b"")

    def test_what_cannot_be_worked_with(self) -> None:
        self.refused(packet(b"O", b"\0" * 11))
        self.refused(packet(b"c"))
        for version in (0, 1, 7):
            self.refused(answer(version))
        self.refused(answer(4), Offer(3))
        self.refused(answer(actions=0x3FF))
        self.refused(answer(2, 0x7F), Offer(2))

    def test_versions_below_ours(self) -> None:
        for version in (2, 3, 4, 5, 6):
            made = self.engine(version)
            sent = play(made, "CHMRUTLNBE")
            self.assertEqual(b"T" in [code for code, _ in packets(sent)], version >= 4)
            self.assertEqual(b"U" in [code for code, _ in packets(sent)], version >= 3)

    def test_denied_actions_can_be_ignored(self) -> None:
        made = self.engine(2, actions=0x1FF, offer=Offer(2, ignore_denied=True))
        self.assertIn("actions 0x1c0", made.agreed.notes[0])
        play(made, "CHMRNB")
        EVENTS["E"](made)
        edits = packet(b"e", b"<x@y>\0") + packet(b"2", b"<x@y>\0A=B\0") + packet(b"+", b"<x@y>\0")
        self.assertEqual(made.receive(edits + packet(b"c")), Continue())
        self.assertEqual((made.edits, made.dropped), ([AddRecipient(b"<x@y>")], 2))

    def test_changes_that_were_not_announced_count_unless_they_are_denied(self) -> None:
        edits = packet(b"e", b"<x@y>\0") + packet(b"h", b"X\0v\0")
        for version, kept, dropped in (
            (6, [ChangeSender(b"<x@y>"), AddHeader(b"X", b"v")], 0),
            (2, [AddHeader(b"X", b"v")], 1),
        ):
            made = self.engine(version, actions=0x02, offer=Offer(version))
            play(made, "CHMRNB")
            EVENTS["E"](made)
            self.assertFalse(made.unannounced)
            self.assertEqual(made.receive(edits + packet(b"c")), Continue())
            self.assertEqual((made.edits, made.dropped, made.unannounced), (kept, dropped, True))

    def test_E4_a_hold_that_is_denied_counts_nowhere(self) -> None:
        for at in "CHMRTNE":
            made = self.engine(offer=Offer(denied=negotiation.CHANGES["quarantine"], ignore_denied=True))
            for event in "CHMRTNBE":
                EVENTS[event](made)
                made.receive((packet(b"q", b"r\0") if event == at else b"") + packet(b"c"))
            self.assertEqual((made.edits, made.dropped), ([], 1), at)

    def test_flags_that_were_not_offered_are_honoured(self) -> None:
        made = self.engine(2, NOTHING_SAID, actions=0, offer=Offer(2))
        play(made, "CHMRLNB")
        self.assertFalse(made.waiting)
        EVENTS["E"](made)
        self.assertTrue(made.waiting)

    def test_flags_that_nobody_knows_are_noted(self) -> None:
        made = self.engine(flags=0x0F200000)
        self.assertEqual(made.agreed.flags, 0)
        self.assertIn("0xf200000", made.agreed.notes[0])

    def test_data_sizes(self) -> None:
        for room, flags, agreed in (
            (65535, 0x30000000, 65535),
            (262143, 0x10000000, 262143),
            (262143, 0, 65535),
            (262143, 0x20000000, 65535),
            (1048575, 0x20000000, 1048575),
            (1048575, 0x30000000, 1048575),
        ):
            offer = Offer(room=room)
            made = self.engine(flags=flags, offer=offer)
            self.assertEqual((made.agreed.room, made.agreed.flags, made.agreed.notes), (agreed, 0, ()))
        self.assertIn(struct.pack(">I", FLAGS | 0x20000000), bytes(Offer(room=1048575)))

    def test_macro_lists(self) -> None:
        lists = (
            macro_list(2, b"{mail_addr},j i")
            + macro_list(3, b"")
            + macro_list(99, b"x")
            + macro_list(0, b"{j}")
        )
        made = self.engine(more=lists)
        self.assertEqual(made.agreed.macros[b"M"], ("{mail_addr}", "j", "i"))
        self.assertEqual(made.agreed.macros[b"R"], ())
        self.assertEqual(packets(made.connect("h", "U", 0, "", value))[0], (b"D", b"C{j}\0mx.example.org\0"))
        made.receive(packet(b"c"))
        self.assertIn("unknown stage 99", made.agreed.notes[0])

    def test_the_numbers_of_lists_are_not_in_order_of_time(self) -> None:
        made = self.engine(more=macro_list(5, b"j") + macro_list(6, b"nrcpts"))
        self.assertEqual((made.agreed.macros[b"E"], made.agreed.macros[b"N"]), (("j",), ("nrcpts",)))

    def test_the_last_list_may_lack_its_nul_and_garbage_is_noted(self) -> None:
        made = self.engine(more=struct.pack(">I", 0) + b"j")
        self.assertEqual(made.agreed.macros[b"C"], ("j",))
        made = self.engine(more=macro_list(0, b"j") + b"\0\0\1")
        self.assertEqual((made.agreed.macros[b"C"], len(made.agreed.notes)), (("j",), 1))


class Transcript(EngineCase):
    """A whole session as filters get it, with and without leading blanks."""

    maxDiff = None

    def test_golden(self) -> None:
        fields = (
            Field(b"Subject", b"", b"  two"),
            Field(b"From", b"", b"nospace"),
            Field(b"X-Fold", b" ", b" a\r\n\tb\r\n c"),
            Field(b"X-Tab", b"", b"\tv"),
            Field(b"X-Empty", b"", b""),
            Field(b"X-8", b"", b" \xc3\xa9\xff"),
        )
        expected = {
            0: [b"Subject\0 two\0", b"From\0nospace\0", b"X-Fold\0a\n\tb\n c\0", b"X-Tab\0\tv\0",
                b"X-Empty\0\0", b"X-8\0\xc3\xa9\xff\0"],
            0x100000: [b"Subject\0  two\0", b"From\0nospace\0", b"X-Fold\0 a\n\tb\n c\0", b"X-Tab\0\tv\0",
                       b"X-Empty\0\0", b"X-8\0 \xc3\xa9\xff\0"],
        }  # fmt: skip
        for flags, lines in expected.items():
            made = self.engine(flags=flags)
            steps: list[Step] = [
                lambda one: one.connect("[2001:db8::1]", "6", 1234, "2001:db8::1", value),
                lambda one: one.helo("me.example", value),
                lambda one: one.mail([b"<>", b"BODY=8BITMIME", b"size=200"], value),
                lambda one: one.rcpt([b"<Bob@Example.ORG>", b"NOTIFY=NEVER"], value),
                lambda one: one.data(value),
                *(lambda one, field=field: one.header(field) for field in fields),  # type: ignore[misc]
                lambda one: one.end_of_header(value),
                lambda one: one.body(b".dot\r\n\r"),
                lambda one: one.body(b"\nend\r\n"),
                lambda one: one.end_of_message(value),
            ]
            sent = b""
            for step in steps:
                sent += step(made)
                self.assertTrue(made.waiting)
                self.assertEqual(made.receive(packet(b"c")), Continue())
            self.assertEqual(
                packets(sent + made.quit()),
                [
                    (b"D", b"Cj\0mx.example.org\0"),
                    (b"C", b"[2001:db8::1]\x006\x04\xd22001:db8::1\0"),
                    (b"H", b"me.example\0"),
                    (b"D", b"Mi\0QID\0{mail_addr}\0\0"),
                    (b"M", b"<>\0BODY=8BITMIME\0size=200\0"),
                    (b"D", b"Ri\0QID\0{rcpt_addr}\0bob@example.org\0"),
                    (b"R", b"<Bob@Example.ORG>\0NOTIFY=NEVER\0"),
                    (b"D", b"Ti\0QID\0{nrcpts}\x002\0"),
                    (b"T", b""),
                    *((b"L", line) for line in lines),
                    (b"D", b"Ni\0QID\0"),
                    (b"N", b""),
                    (b"B", b".dot\r\n\r"),
                    (b"B", b"\nend\r\n"),
                    (b"D", b"Ei\0QID\0"),
                    (b"E", b""),
                    (b"Q", b""),
                ],
            )

    def test_connect_of_every_family(self) -> None:
        for family, data in (("4", b"4\0\x19a\0"), ("6", b"6\0\x19a\0"), ("L", b"L\0\x19a\0"), ("U", b"U")):
            self.assertEqual(
                packets(self.engine().connect("host", family, 25, "a", nothing)), [(b"C", b"host\0" + data)]
            )

    def test_nothing_ends_a_string_or_a_line_early(self) -> None:
        made = self.engine(more=macro_list(0, b"x"))
        sent = made.connect("a\r\nb\0c", "U", 0, "", lambda name: "1\r\n2\n3\0" + "4")
        self.assertEqual(packets(sent), [(b"D", b"Cx\x001 2 3 4\0"), (b"C", b"a b c\0U")])

    def test_macros_that_are_too_long_leave_out_the_longest(self) -> None:
        made = self.engine(more=macro_list(0, b"a b c"))
        values = {"a": "1", "b": "x" * 65536, "c": "2"}
        self.assertEqual(packets(made.connect("h", "U", 0, "", values.get))[0], (b"D", b"Ca\x001\0c\x002\0"))

    def test_macros_go_without_their_command_too(self) -> None:
        made = self.engine(flags=NOTHING_SENT)
        self.assertEqual(packets(made.connect("h", "U", 0, "", value)), [(b"D", b"Cj\0mx.example.org\0")])
        play(made, "HMRTLN")
        self.assertEqual(packets(made.end_of_message(value)), [(b"D", b"Ei\0QID\0"), (b"E", b"")])


class Verdicts(EngineCase):
    WAYS = {
        "C": "C", "H": "CH", "M": "CM", "R": "CMR", "T": "CMRT", "L": "CMRTL", "N": "CMRTN", "B": "CMRTNB",
        "E": "CMRTNBE", "U": "CMU",
    }  # fmt: skip
    ANSWERS: dict[bytes, Verdict] = {
        b"c": Continue(),
        b"a": Accept(),
        b"r": Refuse(REJECTED),
        b"t": Refuse(PUT_OFF),
        b"d": Discard(),
        b"4": Refuse(CLOSED),
        b"s": Continue(),
    }

    def test_every_verdict_at_every_stage(self) -> None:
        for (stage, way), (code, verdict) in product(self.WAYS.items(), self.ANSWERS.items()):
            made = self.engine()
            play(made, way[:-1])
            EVENTS[stage](made)
            expected = verdict
            if stage == "U" and not isinstance(verdict, Refuse):
                expected = Continue()
            self.assertEqual(made.receive(packet(code)), expected, (stage, code))
            over = (stage in "MTLNBE" and verdict != Continue()) or (
                stage == "R" and verdict in (Accept(), Discard())
            )
            self.assertEqual(made.done, (expected == Accept() and stage in "CH") or (over and stage != "E"))
            inside = stage not in "CHE" and not over
            self.assertEqual(packets(made.abort()), [(b"A", b"")] if inside else [], (stage, code))
            # Whatever it said of one letter, it is asked about the next.
            sent = EVENTS["M"](made)
            self.assertEqual(sent == b"", expected == Accept() and stage in "CH")

    def test_replies_in_its_own_words(self) -> None:
        made = self.engine()
        play(made, "CM")
        EVENTS["R"](made)
        self.assertEqual(made.receive(packet(b"y", b"451 4.7.1 wait\0")), Refuse(Reply(451, (7, 1), "wait")))
        self.assertTrue(made.in_letter)

    def test_progress_and_quarantine_do_not_end_the_wait(self) -> None:
        for stage, way in self.WAYS.items():
            made = self.engine()
            play(made, way[:-1])
            EVENTS[stage](made)
            self.assertIsNone(made.receive(packet(b"p") * 50))
            self.assertIsNone(made.receive(packet(b"q", b"odd\0")))
            self.assertEqual(made.heard, 51)
            self.assertEqual(made.receive(packet(b"c")), Continue())

    def test_edits_count_when_the_last_word_is_that_it_may_pass(self) -> None:
        edits = packet(b"h", b"X\0v\0") + packet(b"q", b"r\0") + packet(b"b", b"new")
        kept: list[Edit] = [AddHeader(b"X", b"v"), Hold(b"r"), ReplaceBody(b"new")]
        for code, verdict in self.ANSWERS.items():
            made = self.engine()
            play(made, "CMRTNB")
            EVENTS["E"](made)
            self.assertIsNone(made.receive(edits))
            made.receive(packet(code))
            self.assertEqual(made.edits, kept if verdict in (Continue(), Accept()) else [], code)
            made.abort()
            self.assertEqual(made.edits, [])

    def test_what_is_asked_for_before_an_early_accept_is_kept(self) -> None:
        made = self.engine()
        play(made, "CM")
        EVENTS["R"](made)
        made.receive(packet(b"q", b"r\0") + packet(b"a"))
        self.assertEqual(made.edits, [Hold(b"r")])
        made.fail("closed")
        self.assertEqual(made.edits, [Hold(b"r")])

    def test_what_was_asked_for_by_one_that_still_listens_is_not(self) -> None:
        made = self.engine()
        EVENTS["C"](made)
        made.receive(packet(b"c"))
        EVENTS["M"](made)
        made.receive(packet(b"q", b"r\0") + packet(b"c"))
        made.fail("closed")
        self.assertEqual(made.edits, [])

    def test_a_hold_that_is_asked_for_with_the_client_is_for_all_its_letters(self) -> None:
        made = self.engine()
        EVENTS["C"](made)
        made.receive(packet(b"q", b"r\0") + packet(b"c"))
        for _ in range(2):
            play(made, "MRTNBE")
            self.assertEqual(made.edits, [Hold(b"r")])
            made.abort()

    def test_it_may_then_want_to_hear_no_more(self) -> None:
        made = self.engine()
        EVENTS["C"](made)
        made.receive(packet(b"q", b"r\0") + packet(b"a"))
        self.assertTrue(made.done)
        for _ in range(2):
            self.assertEqual(made.edits, [Hold(b"r")])
            made.abort()

    def test_a_body_that_was_not_agreed_on_puts_the_letter_off(self) -> None:
        made = self.engine(actions=0x1)
        play(made, "CMRTNB")
        EVENTS["E"](made)
        self.assertEqual(made.receive(packet(b"b", b"new") + packet(b"a")), Refuse(PUT_OFF))
        made = self.engine(actions=0x1)
        play(made, "CMRTNB")
        EVENTS["E"](made)
        self.assertEqual(made.receive(packet(b"e", b"<>\0") + packet(b"a")), Accept())
        self.assertEqual(made.edits, [ChangeSender(b"<>")])


class Flags(EngineCase):
    WITHOUT = {"C": 1, "H": 2, "M": 4, "R": 8, "B": 0x10, "L": 0x20, "N": 0x40, "U": 0x100, "T": 0x200}
    SILENT = {"L": 0x80, "C": 0x1000, "H": 0x2000, "M": 0x4000, "R": 0x8000, "T": 0x10000, "U": 0x20000,
              "N": 0x40000, "B": 0x80000}  # fmt: skip
    WHOLE = "CHMURTLLNBBE"

    def test_commands_it_does_not_want(self) -> None:
        for event, flag in self.WITHOUT.items():
            sent = play(self.engine(flags=flag), self.WHOLE)
            self.assertEqual(
                [code.decode() for code, _ in packets(sent)], [one for one in self.WHOLE if one != event]
            )
        self.assertEqual(
            [code for code, _ in packets(play(self.engine(flags=NOTHING_SENT), self.WHOLE))], [b"E"]
        )

    def test_commands_it_does_not_answer(self) -> None:
        for event, flag in self.SILENT.items():
            made = self.engine(flags=flag)
            for one in self.WHOLE:
                EVENTS[one](made)
                self.assertEqual(made.waiting, one != event, (event, one))
                if made.waiting:
                    made.receive(packet(b"c"))

    def test_a_needless_continue_is_let_pass(self) -> None:
        made = self.engine(flags=NOTHING_SAID)
        play(made, "CH")
        self.assertIsNone(made.receive(packet(b"c") * 2))
        self.assertIsInstance(made.receive(packet(b"r")), Failed)

    def test_skip(self) -> None:
        for event, rest in (("R", "CMRTLNBE"), ("L", "CMRRTLNBE"), ("B", "CMRRTLLNBE")):
            made = self.engine()
            sent = b""
            for one in "CMRRTLLNBBE":
                sent += EVENTS[one](made)
                if made.waiting:
                    made.receive(packet(b"s" if one == event else b"c"))
            codes = [code.decode() for code, _ in packets(sent)]
            self.assertEqual(codes.count(event), 1)
            self.assertEqual(len(codes), 10, rest)
            made.abort()
            EVENTS["M"](made)
            made.receive(packet(b"c"))
            self.assertIn(event.encode() if event == "R" else b"R", EVENTS["R"](made))

    def test_refused_recipients_go_to_those_who_want_them(self) -> None:
        self.assertFalse(self.engine().hears_refused)
        self.assertTrue(self.engine(flags=0x800).hears_refused)

    def test_fields_that_do_not_fit(self) -> None:
        made = self.engine()
        self.assertTrue(made.takes(Field(b"X", b"", b" " + b"v" * 65532)))
        self.assertFalse(made.takes(Field(b"X", b"", b" " + b"v" * 65533)))


class Failures(EngineCase):
    def test_illegal_order_is_a_bug_of_ours(self) -> None:
        for way in ("H", "M", "CC", "CR", "CMT", "CMRTR", "CMRTU", "CMRTNL", "CMM", "CMRB", "CE"):
            made = self.engine()
            play(made, way[:-1])
            self.assertRaises(RuntimeError, EVENTS[way[-1]], made)
        made = self.engine()
        EVENTS["C"](made)
        self.assertRaises(RuntimeError, EVENTS["H"], made)

    def test_what_libmilter_takes_is_legal(self) -> None:
        for way in ("CM", "CHHMR", "CMRNE", "CMRTNE", "CMRTLNE", "CUHUMURU", "CMRTNBEMRTNBE", "CMRLNBE"):
            play(self.engine(), way)

    def test_letters_of_one_connection(self) -> None:
        made = self.engine()
        play(made, "CMR")
        self.assertEqual(packets(made.abort()), [(b"A", b"")])
        self.assertEqual(made.abort(), b"")
        play(made, "HMRTNBE")
        self.assertEqual(made.abort(), b"")
        play(made, "M")
        self.assertEqual(packets(made.quit()), [(b"A", b""), (b"Q", b"")])
        self.assertEqual(made.state, State.CLOSED)

    def test_edits_at_the_wrong_time(self) -> None:
        made = self.engine()
        play(made, "CMRT")
        EVENTS["N"](made)
        verdict = made.receive(packet(b"h", b"X\0v\0") + packet(b"c"))
        self.assertIsInstance(verdict, Failed)
        self.assertEqual((made.abort(), made.quit()), (b"", b""))

    def test_more_than_one_verdict(self) -> None:
        made = self.engine()
        play(made, "CMRTNB")
        EVENTS["E"](made)
        edits = packet(b"h", b"X\0v\0")
        self.assertEqual(made.receive(edits + packet(b"a") + packet(b"r")), Accept())
        self.assertEqual(made.edits, [AddHeader(b"X", b"v")])
        self.assertIn("nothing was asked", made.failure or "")
        self.assertEqual(EVENTS["M"](made), b"")
        self.assertFalse(made.waiting)

    def test_what_comes_between_commands(self) -> None:
        made = self.engine()
        play(made, "C")
        self.assertIsInstance(made.receive(packet(b"c")), Failed)

    def test_E4_bodies_and_changes_are_bounded(self) -> None:
        for edits in (packet(b"b", b"x" * 6000) * 2, packet(b"h", b"X\0v\0") * 10_001):
            made = self.engine()
            play(made, "CMRTNB")
            EVENTS["E"](made)
            self.assertIsInstance(made.receive(edits), Failed)
            self.assertEqual(made.edits, [])

    def test_the_connection_breaks(self) -> None:
        made = self.engine()
        play(made, "CMRTNB")
        EVENTS["E"](made)
        made.receive(packet(b"h", b"X\0v\0"))
        self.assertEqual(made.fail("closed"), Failed("closed"))
        self.assertEqual((made.edits, made.quit()), ([], b""))

    def test_replies_cut_anywhere_or_all_at_once(self) -> None:
        stream = packet(b"p") + packet(b"h", b"X\0v\0") + packet(b"b", b"new") + packet(b"a")
        for cut in range(len(stream) + 1):
            made = self.engine()
            # Cut here already.
            self.made.clear()
            play(made, "CMRTNB")
            EVENTS["E"](made)
            verdict = made.receive(stream[:cut]) or made.receive(stream[cut:])
            self.assertEqual((verdict, len(made.edits)), (Accept(), 2))

    @given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from("OCHMRTLNBEU"))
    def test_any_octets_give_a_verdict_or_a_failure(self, pieces: list[bytes], stage: str) -> None:
        made = MilterEngine(Offer(), 10_000)
        made.negotiate()
        if stage != "O":
            made.receive(answer())
            play(made, Verdicts.WAYS[stage][:-1])
            EVENTS[stage](made)
        for piece in pieces:
            made.receive(piece)
        self.assertTrue(made.waiting or made.failure is not None or stage in "OCHMRTLNBEU")
        made.abort()
        made.quit()

    @given(
        st.lists(
            st.tuples(st.sampled_from([b"c", b"a", b"r", b"y", b"h", b"i", b"q", b"b", b"p", b"s", b"O"]),
                      st.sampled_from([b"", b"X\0v\0", b"\0\0\0\1X\0v\0", b"550 x\0", b"\0"])),
            max_size=6,
        ),
        st.sampled_from("CHMRTLNBEU"),
    )  # fmt: skip
    def test_any_packets_too(self, sent: list[tuple[bytes, bytes]], stage: str) -> None:
        made = self.engine()
        play(made, Verdicts.WAYS[stage][:-1])
        EVENTS[stage](made)
        made.receive(b"".join(packet(code, data) for code, data in sent))
        made.quit()
