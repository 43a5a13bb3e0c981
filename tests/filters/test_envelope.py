"""What filters change in an envelope: the rules one by one, and against a straightforward model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.filters.envelope import edited_envelope
from postoffice.mail.address import Address
from postoffice.mail.envelope import Envelope, ReportRequest
from postoffice.milter.edits import AddRecipient, ChangeSender, Edit, RemoveRecipient

HOST = "mx.example.org"


def address_of(text: str) -> Address:
    local, _, domain = text.partition("@")
    return Address(local, domain)


def left(recipients: list[str], *edits: Edit) -> list[str]:
    """The recipients there are after these edits."""
    envelope, _ = edited_envelope(Envelope(None, tuple(map(address_of, recipients))), edits, HOST)
    return [str(address) for address in envelope.recipients]


class BareNames(SynchronousTestCase):
    """Who is named without a domain is one of this host."""

    def test_they_are_removed_by_either_name(self) -> None:
        for written, named in (
            ("bob", b"<bob@mx.example.org>"),
            ("bob", b"bob@MX.example.org"),
            ("bob@mx.example.org", b"<bob>"),
            ("bob", b"<BOB>"),
        ):
            self.assertEqual(left([written, "bob@example.net"], RemoveRecipient(named)), ["bob@example.net"])
        self.assertEqual(left(["bob"], RemoveRecipient(b"<bob@example.net>")), ["bob"])

    def test_they_are_not_added_again(self) -> None:
        for written, named in (("bob", b"<bob@mx.example.org>"), ("bob@mx.example.org", b"bob")):
            self.assertEqual(left([written], AddRecipient(named)), [written])


class Requests(SynchronousTestCase):
    def test_who_is_added_again_brings_nothing_from_before(self) -> None:
        bob = address_of("bob@example.net")
        begin = Envelope(None, (bob,), requests={bob: ReportRequest("NEVER")})
        edits = [RemoveRecipient(b"<bob@example.net>"), AddRecipient(b"<bob@example.net>")]
        envelope, _ = edited_envelope(begin, edits, HOST)
        self.assertEqual((envelope.recipients, envelope.requests), ((bob,), {}))


WRITTEN = ["bob", "bob@mx.example.org", "bob@MX.example.ORG", "Bob@example.net", "bob@example.net",
           "bob@Example.net", "BOB@mx.example.org", "carol@example.net"]  # fmt: skip
FORMS = ["%s", "<%s>", " <%s> "]
TEXTS = st.builds(lambda form, text: (form % text).encode(), st.sampled_from(FORMS), st.sampled_from(WRITTEN))
NOTIFY = st.sampled_from([b"", b"NOTIFY=NEVER", b"NOTIFY=FAILURE ODD=1"])
RETURN = st.sampled_from([b"", b"RET=HDRS", b"ENVID=e1 AUTH=<>", b"ret=FULL ENVID=e2"])
EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(AddRecipient, TEXTS, NOTIFY),
    st.builds(RemoveRecipient, TEXTS),
    st.builds(ChangeSender, st.one_of(TEXTS, st.just(b"<>")), RETURN),
)


def plain(text: bytes) -> tuple[str, str]:
    """Local part and domain of an address as a filter writes it, for comparison."""
    local, _, domain = text.decode().strip(" <>").partition("@")
    return local, (domain or HOST).lower()


class Model(SynchronousTestCase):
    @given(st.lists(st.sampled_from(WRITTEN), max_size=4), st.lists(EDITS, max_size=6))
    def test_edits_equal_those_of_a_plain_model(self, recipients: list[str], edits: list[Edit]) -> None:
        rows = [[text, ""] for text in recipients]
        sender, ret, envid = "ann@example.net", "", ""
        for edit in edits:
            if isinstance(edit, AddRecipient):
                if plain(edit.address) not in [plain(text.encode()) for text, _ in rows]:
                    notify = edit.parameters.decode().partition(" ")[0].partition("=")[2]
                    rows.append([edit.address.decode().strip(" <>"), notify])
            elif isinstance(edit, RemoveRecipient):
                local, domain = plain(edit.address)
                there = [row for row in rows if plain(row[0].encode())[1] == domain]
                exact = [row for row in there if plain(row[0].encode())[0] == local]
                alike = [row for row in there if plain(row[0].encode())[0].lower() == local.lower()]
                rows = [row for row in rows if row not in (exact or alike)]
            elif isinstance(edit, ChangeSender):
                sender = edit.address.decode().strip(" <>")
                for word in edit.parameters.decode().split():
                    name, _, value = word.partition("=")
                    ret = value if name.upper() == "RET" else ret
                    envid = value if name == "ENVID" else envid
        begin = Envelope(address_of("ann@example.net"), tuple(map(address_of, recipients)))
        done, _ = edited_envelope(begin, edits, HOST)
        self.assertEqual([str(address) for address in done.recipients], [text for text, _ in rows])
        requests = [done.requests.get(address, ReportRequest()).notify or "" for address in done.recipients]
        self.assertEqual(requests, [notify for _, notify in rows])
        self.assertEqual((str(done.sender or ""), done.ret or "", done.envid or ""), (sender, ret, envid))
