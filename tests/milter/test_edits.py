"""Edits of header and body: the rules one by one, and against a straightforward model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.header import read_headers
from postoffice.milter.edits import (
    AddHeader,
    ChangeHeader,
    Edit,
    Field,
    InsertHeader,
    ReplaceBody,
    clean_value,
    edited_header,
    fields_of,
    replaced_body,
)

OWN = Field(b"Received", b"", b" from here", hidden=True)
BLOCK = b"Received: one\r\nSubject: s\r\nReceived: two\r\n\tmore\r\nX-A:1\r\nx-a: 2\r\n"


def after(*edits: Edit, with_blank: bool = False) -> bytes:
    """The block with our Received in front, after these edits of one filter."""
    fields, _ = edited_header([OWN, *fields_of(BLOCK)], edits, with_blank)
    return b"".join(map(bytes, fields))


FRONT = bytes(OWN)


class Fields(SynchronousTestCase):
    def test_bytes_of_fields_are_the_block(self) -> None:
        for block in (BLOCK, b"", b"X-Odd \t:v\r\nA:\r\nB:\t\r\n \r\n x\r\n"):
            self.assertEqual(b"".join(map(bytes, fields_of(block))), block)

    @given(st.lists(st.sampled_from([b"A: b", b" ", b"\t", b":", b"\r\n", b"\r\n ", b"X", b"\0", b"\xff"])))
    def test_whatever_the_header_is(self, pieces: list[bytes]) -> None:
        headers = read_headers(b"".join(pieces), final=True)
        assert headers is not None
        self.assertEqual(b"".join(map(bytes, fields_of(headers.block))), headers.block)

    def test_what_filters_are_shown(self) -> None:
        for line, without, with_blank in (
            (b"Subject:  two", b" two", b"  two"),
            (b"Subject: one", b"one", b" one"),
            (b"From:nospace", b"nospace", b"nospace"),
            (b"X:\tv", b"\tv", b"\tv"),
            (b"X:", b"", b""),
            (b"X: ", b"", b" "),
            (b"X-Fold: a\r\n\tb\r\n c", b"a\n\tb\n c", b" a\n\tb\n c"),
            (b"X: \xc3\xa9", b"\xc3\xa9", b" \xc3\xa9"),
        ):
            (field,) = fields_of(line + b"\r\n")
            self.assertEqual((field.shown(False), field.shown(True)), (without, with_blank))
        (field,) = fields_of(b"X-Sp : odd\r\n")
        self.assertEqual(field.name, b"X-Sp")


class Inserting(SynchronousTestCase):
    def test_add_is_at_the_end(self) -> None:
        self.assertEqual(after(AddHeader(b"X-B", b"v")), FRONT + BLOCK + b"X-B: v\r\n")

    def test_places_count_our_own_field(self) -> None:
        lines = (FRONT + BLOCK).split(b"\r\n")[:-1]
        fields = [FRONT, b"Received: one\r\n", b"Subject: s\r\n", b"Received: two\r\n\tmore\r\n",
                  b"X-A:1\r\n", b"x-a: 2\r\n"]  # fmt: skip
        self.assertEqual(b"\r\n".join([*lines, b""]), b"".join(fields))
        for index in (*range(8), 0xFFFFFFFF):
            expected = [*fields]
            expected.insert(index, b"X-B: v\r\n")
            self.assertEqual(after(InsertHeader(index, b"X-B", b"v")), b"".join(expected))

    def test_what_was_inserted_counts(self) -> None:
        done = after(InsertHeader(0, b"B", b"1"), InsertHeader(1, b"C", b"2"))
        self.assertTrue(done.startswith(b"B: 1\r\nC: 2\r\n" + FRONT))

    def test_the_blank_is_the_filters_where_it_was_agreed_on(self) -> None:
        self.assertTrue(after(InsertHeader(0, b"B", b" 1"), with_blank=True).startswith(b"B: 1\r\n"))
        self.assertTrue(after(InsertHeader(0, b"B", b"1"), with_blank=True).startswith(b"B:1\r\n"))
        self.assertTrue(after(InsertHeader(0, b"B", b" 1")).startswith(b"B:  1\r\n"))


class Changing(SynchronousTestCase):
    def test_numbers_are_by_name_and_ours_is_hidden(self) -> None:
        self.assertEqual(
            after(ChangeHeader(1, b"received", b"x")), FRONT + BLOCK.replace(b"Received: one", b"received: x")
        )
        self.assertEqual(
            after(ChangeHeader(2, b"Received", b"x")), FRONT + BLOCK.replace(b"two\r\n\tmore", b"x")
        )
        self.assertEqual(after(ChangeHeader(2, b"X-A", b"")), FRONT + BLOCK.replace(b"x-a: 2\r\n", b""))

    def test_beyond_the_last_it_is_added_or_nothing(self) -> None:
        for index in (3, 0xFFFFFFFF):
            self.assertEqual(after(ChangeHeader(index, b"X-A", b"v")), FRONT + BLOCK + b"X-A: v\r\n")
            self.assertEqual(after(ChangeHeader(index, b"X-A", b"")), FRONT + BLOCK)
        self.assertEqual(after(ChangeHeader(0, b"X-New", b"v")), FRONT + BLOCK + b"X-New: v\r\n")

    def test_numbers_stay_put(self) -> None:
        gone = FRONT + BLOCK.replace(b"X-A:1\r\nx-a: 2\r\n", b"")
        self.assertEqual(after(ChangeHeader(1, b"X-A", b""), ChangeHeader(2, b"X-A", b"")), gone)
        self.assertEqual(after(ChangeHeader(2, b"X-A", b""), ChangeHeader(1, b"X-A", b"")), gone)

    def test_number_0_is_the_first_still_there(self) -> None:
        gone = FRONT + BLOCK.replace(b"X-A:1\r\nx-a: 2\r\n", b"")
        self.assertEqual(after(*[ChangeHeader(0, b"X-A", b"")] * 2), gone)
        self.assertEqual(after(*[ChangeHeader(0, b"X-A", b"")] * 3), gone)

    def test_what_was_added_counts_at_its_place(self) -> None:
        self.assertEqual(
            after(InsertHeader(0, b"X-A", b"0"), ChangeHeader(1, b"X-A", b"first")),
            b"X-A: first\r\n" + FRONT + BLOCK,
        )

    def test_a_place_is_kept(self) -> None:
        self.assertEqual(
            after(ChangeHeader(1, b"SUBJECT", b"t")), FRONT + BLOCK.replace(b"Subject: s", b"SUBJECT: t")
        )


class Hygiene(SynchronousTestCase):
    def test_A6_no_value_begins_a_field_or_ends_the_header(self) -> None:
        for value, clean in (
            (b"a\nBcc: x", b"a\r\n\tBcc: x"),
            (b"a\r\nBcc: x", b"a\r\n\tBcc: x"),
            (b"a\n\nbody", b"a\r\n\tbody"),
            (b"a\n \t\n b", b"a\r\n b"),
            (b"a\rb", b"ab"),
            (b"a\n\n\r\n", b"a"),
            (b"a\n\tb\n c", b"a\r\n\tb\r\n c"),
            (b"a\r\r\nb", b"a\r\n\tb"),
            (b"a\0b", b"ab"),
        ):
            self.assertEqual(clean_value(value), clean)

    @given(st.binary(max_size=300))
    def test_any_value_is_one_field(self, value: bytes) -> None:
        done = b"X: " + clean_value(value) + b"\r\n"
        headers = read_headers(done + b"\r\n", final=True)
        assert headers is not None
        self.assertEqual((headers.block, headers.separated), (done, True))
        self.assertEqual(len(fields_of(done)), 1)

    def test_names_that_are_none_are_dropped(self) -> None:
        for name in (b"", b"a b", b"a:", b"a\r\nb", b"\xe9"):
            fields, dropped = edited_header([OWN], [AddHeader(name, b"v")], False)
            self.assertEqual(fields, (OWN,))
            self.assertEqual(len(dropped), 1)

    def test_long_lines_are_folded_at_a_blank(self) -> None:
        done = clean_value(b"word " * 400 + b"end", 10)
        self.assertTrue(all(len(line) <= 998 for line in done.split(b"\r\n")))
        self.assertLessEqual(len(done.split(b"\r\n")[0]), 988)
        self.assertEqual(done.replace(b"\r\n", b""), b"word " * 400 + b"end")
        self.assertEqual(clean_value(b"x" * 2000), b"x" * 2000)


class Bodies(SynchronousTestCase):
    def test_pieces_are_joined(self) -> None:
        for pieces, body in (
            ([b"a\r\nb\r\n"], b"a\r\nb\r\n"),
            ([b"a\r", b"\nb"], b"a\r\nb\r\n"),
            ([b"a\nb"], b"a\r\nb\r\n"),
            ([b""], b""),
            ([b"", b"x"], b"x\r\n"),
        ):
            edits: list[Edit] = [ReplaceBody(piece) for piece in pieces]
            edits.insert(1, AddHeader(b"X", b"v"))
            self.assertEqual(replaced_body(edits), body)
        self.assertIsNone(replaced_body([AddHeader(b"X", b"v")]))


NAMES = st.sampled_from([b"A", b"a", b"B", b"Received"])
VALUES = st.sampled_from([b"", b" ", b"1", b" 2", b"\t3", b"x\n\ty"])
RAW = st.sampled_from([b"", b" ", b"1", b" 2", b"  3", b"\tx\r\n\ty"])
PIECES = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\n\r", b"\0"])).map(b"".join)
INDEXES = st.sampled_from([0, 1, 2, 3, 4, 9, 0xFFFFFFFF])
EDITS = st.one_of(
    st.builds(AddHeader, NAMES, VALUES),
    st.builds(InsertHeader, INDEXES, NAMES, VALUES),
    st.builds(ChangeHeader, INDEXES, NAMES, VALUES),
    st.builds(ReplaceBody, PIECES),
)


def model(
    fields: list[tuple[bytes, bytes, bool]], edits: list[Edit], with_blank: bool
) -> list[tuple[bytes, bytes]]:
    """The rules as a person would write them down: names, and values or None for what went."""
    rows: list[list[object]] = [[name, value, hidden] for name, value, hidden in fields]
    for edit in edits:
        if not isinstance(edit, AddHeader | InsertHeader | ChangeHeader):
            continue
        # Filters that do not bring the blank themselves have it put there.
        raw = (b"" if with_blank else b" ") + edit.value.replace(b"\n", b"\r\n")
        if isinstance(edit, AddHeader):
            rows.append([edit.name, raw, False])
        elif isinstance(edit, InsertHeader):
            there = [place for place, row in enumerate(rows) if row[1] is not None]
            place = there[edit.index] if edit.index < len(there) else len(rows)
            rows.insert(place, [edit.name, raw, False])
        else:
            mine = [row for row in rows if row[0].lower() == edit.name.lower() and not row[2]]  # type: ignore[attr-defined]
            if edit.index == 0:
                mine = [row for row in mine if row[1] is not None] or mine
            number = max(1, edit.index)
            if number <= len(mine):
                row = mine[number - 1]
                row[1] = raw if edit.value else None
                if edit.value:
                    row[0] = edit.name
            elif edit.value:
                rows.append([edit.name, raw, False])
    return [(name, value) for name, value, _ in rows if value is not None]  # type: ignore[misc]


def model_of_body(edits: list[Edit]) -> bytes | None:
    """The body octet by octet: line ends become CRLF wherever pieces are cut, and the last line has one."""
    written, replaced = bytearray(), False
    for edit in edits:
        if isinstance(edit, ReplaceBody):
            replaced = True
            for octet in edit.data:
                if octet == 10:
                    written += b"\r\n"
                elif octet != 13:
                    written.append(octet)
    if written and written[-1] != 10:
        written += b"\r\n"
    return bytes(written) if replaced else None


class Model(SynchronousTestCase):
    @given(st.lists(st.tuples(NAMES, RAW), max_size=5), st.lists(EDITS, max_size=8), st.booleans())
    def test_edits_equal_those_of_a_plain_model(
        self, given_: list[tuple[bytes, bytes]], edits: list[Edit], with_blank: bool
    ) -> None:
        rows = [(OWN.name, OWN.value, True), *((name, value, False) for name, value in given_)]
        fields = [Field(name, b"", value, hidden) for name, value, hidden in rows]
        done, dropped = edited_header(fields, edits, with_blank)
        expected = model(rows, edits, with_blank)
        self.assertEqual([bytes(one) for one in done], [b"%b:%b\r\n" % row for row in expected])
        self.assertEqual(dropped, [])
        self.assertEqual(replaced_body(edits), model_of_body(edits))
