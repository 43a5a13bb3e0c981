"""Local commands: requests over the unix socket, and who may ask what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from postoffice import wire
from postoffice.filters.letter import Replaced
from postoffice.interfaces import IContent
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Copy, Explanation, Remote, Step
from postoffice.mail.envelope import Entry, Letter, Recipient
from postoffice.mail.reply import Refusal, Reply
from postoffice.mail.virtual import VirtualDomain
from postoffice.server.local import PER_ACCOUNT, LocalFactory
from postoffice.server.office import Caller, ILetters, IOffice, ISubmission, LocalSettings, Pattern
from tests.doubles import MemoryVirtualFiles

UNKNOWN = Reply(550, (1, 1), "No such user")
FULL = Reply(452, (3, 1), "No room")
NAMES = {0: "root", 100: "postoffice", 1000: "alice", 1001: "bob"}
SETTINGS = LocalSettings("mx.example", 100, 50, everybody_lists=True, recipients=10, idle=300.0)


def entry(letter_id: str, sender: str, *recipients: str, client: str = "alice@localhost") -> Entry:
    letter = Letter(letter_id, Address(sender, "example.org") if sender else None, "7BIT", 123, 5.0, client)
    to = tuple(
        Recipient(n, Address(name, "example.net"), 9.0, 1, "450 later") for n, name in enumerate(recipients)
    )
    second = letter_id == "B1"
    return Entry(letter, to, held=second, busy=second, held_for="odd" if second else "")


@implementer(ISubmission)
class Submission:
    def __init__(self) -> None:
        self.content = b""
        self.state = "open"
        self.wait: Deferred[None] | None = None
        self.refusal: Refusal | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        self.content += data
        return self.wait

    async def finish(self) -> str:
        if self.refusal:
            raise self.refusal
        self.state = "stored"
        return "Q7"

    def abort(self) -> None:
        if self.state == "open":
            self.state = "aborted"


@implementer(ILetters)
class Letters:
    def __init__(self) -> None:
        self.there = [entry("A1", "alice", "carol"), entry("B1", "", "dave", "eve", client="bob@localhost")]
        self.ran: list[Pattern | None] = []
        self.held: list[tuple[str, bool]] = []
        self.deleted: list[str] = []
        self.problem: Exception | None = None

    async def entries(self) -> list[Entry]:
        if self.problem:
            raise self.problem
        return self.there

    async def run(self, pattern: Pattern | None) -> int:
        self.ran.append(pattern)
        return 2

    async def set_held(self, letter_id: str, held: bool) -> bool:
        self.held.append((letter_id, held))
        return letter_id == "A1"

    async def delete(self, letter_id: str) -> bool:
        self.deleted.append(letter_id)
        return letter_id == "A1"

    async def content(self, letter_id: str) -> IContent | None:
        return Replaced(b"Subject: s\r\n\r\n" + b"text\r\n" * 60_000) if letter_id == "A1" else None


@implementer(IOffice)
class Office:
    def __init__(self) -> None:
        self.letters = Letters()
        self.submission = Submission()
        self.begun: list[Any] = []
        self.problem: Exception | None = None
        self.virtual = MemoryVirtualFiles(VirtualDomain("a.example", "alice", active=True))

    async def explain(self, address: Address) -> Explanation:
        if address.local == "nobody":
            return Explanation((Step(0, address, str(UNKNOWN)),), (), UNKNOWN)
        copies = (
            (Copy(Address("bob", "b.example"), (address,), None, Remote("b.example")), None),
            (Copy(Address("gone", ""), (address,)), UNKNOWN),
        )
        return Explanation((Step(0, address, "/etc/aliases"),), copies)

    async def begin(
        self, client: Client, sender: Address | None, recipients: Sequence[Address], warning: str | None
    ) -> tuple[Submission, list[tuple[Address, Reply]]]:
        if self.problem:
            raise self.problem
        self.begun.append((client.user, sender, list(recipients), warning))
        bad = [address for address in recipients if address.local == "nobody"]
        if len(bad) == len(recipients):
            raise Refusal(UNKNOWN)
        return self.submission, [(address, UNKNOWN) for address in bad]


class Journal:
    """Keeps what is reported; only the methods this door uses."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def refused(self, client: Client, what: str, reply: Reply, why: str) -> None:
        self.lines.append((str(client), what, reply))

    def managed(self, client: Client, what: str) -> None:
        self.lines.append((str(client), what))

    def error(self, text: str, failure: BaseException | None = None) -> None:
        self.lines.append((text, failure))


class Door(SynchronousTestCase):
    def setUp(self) -> None:
        self.office, self.journal, self.clock = Office(), Journal(), Clock()
        self.caller = Caller(1000, 77, frozenset({1000}))
        self.factory = self.make(SETTINGS)

    def make(self, settings: LocalSettings) -> LocalFactory:
        self.factory = LocalFactory(
            self.office,
            NAMES.get,
            lambda _: self.caller,
            self.journal,
            settings,
            self.clock,
        )
        return self.factory

    def connect(self) -> tuple[Any, StringTransport]:
        protocol, transport = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        self.addCleanup(self.lose, protocol)
        return protocol, transport

    def lose(self, protocol: Any) -> None:
        if protocol in self.factory.conversations:
            protocol.connectionLost(Failure(ConnectionLost()))

    def tearDown(self) -> None:
        for protocol in list(self.factory.conversations):
            self.lose(protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.conversations, set())

    def ask(self, *frames: Any) -> list[Any]:
        """Everything answered to a request, which must end the connection."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"".join(encoded(frame) for frame in frames))
        while transport.producer:
            transport.producer.resumeProducing()
        self.assertTrue(transport.disconnecting)
        return wire.Decoder().feed(transport.value())

    def refused(self, *frames: Any) -> tuple[str, int]:
        (answer,) = self.ask(*frames)
        self.assertEqual(set(answer), {"error", "exit"})
        return answer["error"], answer["exit"]


def encoded(frame: Any) -> bytes:
    match frame:
        case dict():
            return wire.encode_json(frame)
        case bytes():
            return wire.encode_content(frame)
    return wire.encode_end()


def submit(*recipients: str, **more: Any) -> dict[str, Any]:
    return {"verb": "submit", "recipients": list(recipients), **more}


class Listing(Door):
    def test_every_letter_then_done(self) -> None:
        first, second, last = self.ask({"verb": "list", "pattern": None})
        self.assertEqual(
            first,
            {
                "id": "A1",
                "size": 123,
                "received": 5.0,
                "sender": "alice@example.org",
                "held": False,
                "held_for": "",
                "busy": False,
                "recipients": [{"address": "carol@example.net", "last": "450 later"}],
            },
        )
        self.assertEqual((second["sender"], second["busy"], len(second["recipients"])), (None, True, 2))
        self.assertEqual((second["held"], second["held_for"]), (True, "odd"))
        self.assertEqual(last, {"done": True})

    def test_patterns(self) -> None:
        for field, text, ids in (
            ("id", "a1", ["A1"]),
            ("sender", "ALICE", ["A1"]),
            ("sender", "<>", ["B1"]),
            ("recipient", "eve@", ["B1"]),
            ("any", "example", ["A1", "B1"]),
            ("any", "b1", ["B1"]),
            ("id", "alice", []),
        ):
            answer = self.ask({"verb": "list", "pattern": {"field": field, "text": text}})
            self.assertEqual([one["id"] for one in answer[:-1]], ids, (field, text))

    def test_own_letters_only(self) -> None:
        self.make(LocalSettings("mx.example", 100, 50, everybody_lists=False, recipients=10, idle=300.0))
        self.assertEqual([one.get("id") for one in self.ask({"verb": "list"})], ["A1", None])
        for caller in (
            Caller(0, 1, frozenset()),
            Caller(100, 1, frozenset()),
            Caller(1001, 1, frozenset({50})),
        ):
            self.caller = caller
            self.assertEqual(len(self.ask({"verb": "list"})), 3)

    def test_is_written_as_it_is_read(self) -> None:
        self.office.letters.there = [entry(f"L{n}", "alice", "carol") for n in range(1000)]
        protocol, transport = self.connect()
        protocol.dataReceived(wire.encode_json({"verb": "list"}))
        self.assertEqual(transport.value(), b"")
        transport.producer.resumeProducing()
        self.assertEqual(len(wire.Decoder().feed(transport.value())), 100)

    def test_reader_that_stops(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(wire.encode_json({"verb": "list"}))
        transport.producer.resumeProducing()
        self.clock.advance(301)
        self.assertTrue(transport.disconnecting)
        transport.producer.stopProducing()
        self.lose(protocol)

    def test_spool_that_fails(self) -> None:
        self.office.letters.problem = RuntimeError("broken")
        text, code = self.refused({"verb": "list"})
        self.assertEqual(code, os.EX_TEMPFAIL)
        self.assertNotIn("broken", text)
        self.assertEqual(self.journal.lines, [("a local request failed", self.office.letters.problem)])


class Rights(Door):
    def test_D5_run_is_for_administrators(self) -> None:
        text, code = self.refused({"verb": "run", "pattern": None})
        self.assertEqual(code, os.EX_NOPERM)
        self.assertIn("control-group", text)
        self.assertEqual(self.office.letters.ran, [])

    def test_administrators(self) -> None:
        for uid, groups in ((0, ()), (100, ()), (1001, (50, 1001))):
            self.caller = Caller(uid, 1, frozenset(groups))
            self.assertEqual(self.ask({"verb": "run"}), [{"done": True, "letters": 2}])
        self.ask({"verb": "run", "pattern": {"field": "any", "text": "X"}})
        self.assertEqual(self.office.letters.ran, [None, None, None, Pattern("any", "x")])

    def test_D5_letters_of_others_are_for_administrators(self) -> None:
        for verb in ("hold", "release", "delete", "show"):
            self.assertEqual(self.refused({"verb": verb, "id": "A1", "ids": ["A1"]})[1], os.EX_NOPERM)
        self.assertEqual((self.office.letters.held, self.office.letters.deleted), ([], []))

    def test_holding_letters(self) -> None:
        self.caller = Caller(0, 1, frozenset())
        self.assertEqual(self.ask({"verb": "hold", "ids": ["A1"]}), [{"done": True}])
        self.assertEqual(self.ask({"verb": "release", "ids": ["A1"]}), [{"done": True}])
        text, code = self.refused({"verb": "release", "ids": ["X\n"]})
        self.assertEqual((text, code), ("there is no letter X?", os.EX_DATAERR))
        self.assertEqual(self.office.letters.held, [("A1", True), ("A1", False), ("X\n", False)])
        said = [("root@localhost", "hold letter A1"), ("root@localhost", "release letter A1")]
        self.assertEqual(self.journal.lines, said)

    def test_deleting_letters(self) -> None:
        self.caller = Caller(0, 1, frozenset())
        self.assertEqual(self.ask({"verb": "delete", "ids": ["A1"]}), [{"done": True}])
        self.assertEqual(self.refused({"verb": "delete", "ids": ["B2"]})[1], os.EX_DATAERR)
        self.assertEqual(self.office.letters.deleted, ["A1", "B2"])
        self.assertEqual(self.journal.lines, [("root@localhost", "delete letter A1")])

    def test_showing_a_letter(self) -> None:
        self.caller = Caller(0, 1, frozenset())
        *pieces, last = self.ask({"verb": "show", "id": "A1"})
        self.assertEqual(b"".join(pieces), b"Subject: s\r\n\r\n" + b"text\r\n" * 60_000)
        self.assertEqual(last, {"done": True})
        self.assertEqual(self.refused({"verb": "show", "id": "B2"})[1], os.EX_DATAERR)

    def test_D5_explanations_are_for_administrators(self) -> None:
        self.assertEqual(self.refused({"verb": "explain", "address": "all"})[1], os.EX_NOPERM)

    def test_explanations(self) -> None:
        self.caller = Caller(0, 1, frozenset())
        self.assertEqual(
            self.ask({"verb": "explain", "address": "all"}),
            [
                {"depth": 0, "address": "all", "what": "/etc/aliases"},
                {"copy": "bob@b.example", "path": ["all"], "destination": "smtp b.example", "refusal": None},
                {"copy": "gone", "path": ["all"], "destination": None, "refusal": str(UNKNOWN)},
                {"done": True, "refusal": None},
            ],
        )
        self.assertEqual(
            self.ask({"verb": "explain", "address": "nobody"})[-1], {"done": True, "refusal": str(UNKNOWN)}
        )
        self.assertEqual(self.refused({"verb": "explain", "address": "a b"})[1], os.EX_USAGE)

    def test_D5_domains_are_for_their_owners_and_administrators(self) -> None:
        request = {
            "verb": "virtual",
            "domain": "a.example",
            "do": "set-alias",
            "alias": "x",
            "targets": ["y"],
        }
        may = {0: True, 100: True, 1000: True, 1001: False, 1234: False}
        for uid, expected in may.items():
            self.caller = Caller(uid, 1, frozenset({uid}))
            if expected:
                self.assertEqual(self.ask(request), [{"done": True}])
            else:
                self.assertEqual(self.refused(request)[1], os.EX_NOPERM)
        self.caller = Caller(1001, 1, frozenset({50}))
        self.assertEqual(self.ask(request), [{"done": True}])
        names = [name for name, _ in self.journal.lines]
        self.assertEqual(names, [f"{name}@localhost" for name in ("root", "postoffice", "alice", "bob")])
        self.assertEqual({what for _, what in self.journal.lines}, {"set the alias x@a.example"})

    def test_D5_alias_files_are_for_administrators(self) -> None:
        request = {"verb": "newaliases", "domains": [None, "a.example"]}
        system, own, _ = self.ask(request)
        self.assertEqual((system["exit"], own["file"]), (os.EX_NOPERM, "aliases of a.example"))

    def test_no_group_is_nobodys_group(self) -> None:
        self.make(LocalSettings("mx.example", 100, None, everybody_lists=True, recipients=10, idle=300.0))
        self.assertEqual(self.refused({"verb": "run"})[1], os.EX_NOPERM)

    def test_status(self) -> None:
        (answer,) = self.ask({"verb": "status"})
        self.assertEqual((answer["done"], answer["pid"], answer["administrator"]), (True, os.getpid(), False))


class Submitting(Door):
    def test_letter(self) -> None:
        answer = self.ask(submit("carol@example.net", "dave"), b"Subject: x\n\nbo", b"dy\n", None)
        self.assertEqual(answer, [{"done": True, "id": "Q7", "refused": []}])
        self.assertEqual(self.office.submission.content, b"Subject: x\r\n\r\nbody\r\n")
        self.assertEqual(
            self.office.begun,
            [("alice", Address("alice", ""), [Address("carol", "example.net"), Address("dave", "")], None)],
        )

    def test_line_ends(self) -> None:
        for content, stored in (
            ([], b""),
            ([b"a"], b"a\r\n"),
            ([b"a\r", b"\nb\rc\n"], b"a\r\nbc\r\n"),
            ([b"a\n", b"\r"], b"a\r\n"),
            ([b"\r\n.\r\n"], b"\r\n.\r\n"),
            ([b"a", b"\r"], b"a\r\n"),
        ):
            self.office.submission = Submission()
            self.ask(submit("carol"), *content, None)
            self.assertEqual(self.office.submission.content, stored)

    @given(st.lists(st.binary(max_size=9).map(lambda data: data.replace(b"x", b"\r").replace(b"y", b"\n"))))
    def test_any_content_gets_crlf(self, pieces: list[bytes]) -> None:
        self.office.submission = Submission()
        self.ask(submit("carol"), *pieces, None)
        stored = self.office.submission.content
        plain = stored.replace(b"\r\n", b"")
        self.assertNotIn(b"\r", plain)
        self.assertNotIn(b"\n", plain)
        self.assertEqual(
            stored.replace(b"\r\n", b"\n").removesuffix(b"\n"),
            b"".join(pieces).replace(b"\r", b"").removesuffix(b"\n"),
        )

    def test_some_recipients_are_bad(self) -> None:
        (answer,) = self.ask(submit("carol", "nobody", "a b\n"), b"x\n", None)
        self.assertEqual(answer["id"], "Q7")
        self.assertEqual(
            answer["refused"],
            [
                ["a b?", "501 5.1.3 The recipient address is not well-formed"],
                ["nobody", "550 5.1.1 No such user"],
            ],
        )

    def test_no_recipient_is_good(self) -> None:
        self.assertEqual(self.refused(submit("nobody")), ("nobody: 550 5.1.1 No such user", os.EX_NOUSER))
        self.assertEqual(self.refused(submit("a b"))[1], os.EX_NOUSER)
        self.assertEqual(self.refused(submit())[1], os.EX_NOUSER)
        self.assertEqual(self.office.submission.state, "open")
        self.assertEqual(self.journal.lines, [("alice@localhost", "letter for nobody", UNKNOWN)])

    def test_recipients_are_limited(self) -> None:
        self.assertEqual(self.refused(submit(*["carol"] * 11))[1], os.EX_UNAVAILABLE)
        (answer,) = self.ask(submit(*["carol"] * 10), None)
        self.assertEqual(answer["id"], "Q7")
        self.assertEqual(self.office.begun[0][2], [Address("carol", "")])

    def test_not_now(self) -> None:
        self.office.problem = Refusal(FULL)
        self.assertEqual(self.refused(submit("carol")), ("452 4.3.1 No room", os.EX_TEMPFAIL))

    def test_refused_at_the_end(self) -> None:
        for reply, code in ((FULL, os.EX_TEMPFAIL), (Reply(554, (4, 6), "Loop"), os.EX_UNAVAILABLE)):
            self.office.submission = Submission()
            self.office.submission.refusal = Refusal(reply)
            self.assertEqual(self.refused(submit("carol"), b"x", None), (str(reply), code))
            self.assertEqual(self.office.submission.state, "aborted")

    def test_breaking_off_leaves_nothing(self) -> None:
        protocol, _ = self.connect()
        protocol.dataReceived(encoded(submit("carol")) + encoded(b"half"))
        self.lose(protocol)
        self.assertEqual((self.office.submission.content, self.office.submission.state), (b"half", "aborted"))

    def test_malformed_inside_leaves_nothing(self) -> None:
        for bad in (b"\xff\xff\xff\xff", encoded({"verb": "run"})):
            self.office.submission = Submission()
            protocol, transport = self.connect()
            protocol.dataReceived(encoded(submit("carol")) + encoded(b"half"))
            protocol.dataReceived(bad)
            self.assertEqual(wire.Decoder().feed(transport.value())[0]["exit"], os.EX_PROTOCOL)
            self.assertTrue(transport.disconnecting)
            self.assertEqual(self.office.submission.state, "aborted")

    def test_back_pressure(self) -> None:
        self.office.submission.wait = Deferred()
        protocol, transport = self.connect()
        protocol.dataReceived(encoded(submit("carol")))
        protocol.dataReceived(encoded(b"one"))
        protocol.dataReceived(encoded(b"two"))
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(self.office.submission.content, b"one")
        waiting, self.office.submission.wait = self.office.submission.wait, None
        waiting.callback(None)
        self.assertEqual(self.office.submission.content, b"onetwo")
        self.assertEqual(transport.producerState, "producing")

    def test_a_slow_store_is_not_silence(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.office.submission.wait = waiting
        protocol, transport = self.connect()
        protocol.dataReceived(encoded(submit("carol")) + encoded(b"x\n"))
        self.clock.advance(1000)
        self.assertFalse(transport.disconnecting)
        self.office.submission.wait = None
        waiting.callback(None)
        protocol.dataReceived(encoded(None))
        self.assertEqual(self.office.submission.state, "stored")


class Senders(Door):
    def begin(self, uid: int, **more: Any) -> tuple[Any, Any]:
        self.caller = Caller(uid, 1, frozenset())
        self.office.submission = Submission()
        (answer,) = self.ask(submit("carol", **more), None)
        self.assertIn("id", answer)
        _, sender, _, warning = self.office.begun[-1]
        return sender, warning

    def test_own_name(self) -> None:
        for text in ("alice", "alice@mx.example", "<alice@MX.Example>"):
            sender, warning = self.begin(1000, sender=text)
            self.assertEqual((sender.local, warning), ("alice", None))

    def test_somebody_else(self) -> None:
        for text, shown in (("bob", "<bob>"), ("alice@elsewhere.example", "<alice@elsewhere.example>")):
            _, warning = self.begin(1000, sender=text)
            self.assertEqual(warning, f"alice set sender to {shown}")
        self.assertEqual(self.begin(1000, sender=None), (None, "alice set sender to <>"))

    def test_those_who_may(self) -> None:
        for uid in (0, 100):
            self.assertEqual(self.begin(uid, sender="bob@x.example"), (Address("bob", "x.example"), None))

    def test_account_without_a_name(self) -> None:
        self.assertEqual(self.begin(4242), (Address("4242", ""), None))

    def test_bad_ones(self) -> None:
        self.assertEqual(self.refused(submit("carol", sender="a b"))[1], os.EX_USAGE)
        self.assertEqual(self.refused(submit("carol", sender=""))[1], os.EX_USAGE)
        self.assertEqual(self.refused(submit("carol", sender=1))[1], os.EX_PROTOCOL)


class Behaviour(Door):
    def test_malformed_requests(self) -> None:
        for frame in (
            {},
            {"verb": "shutdown"},
            {"verb": 1},
            {"verb": "submit"},
            {"verb": "submit", "recipients": "x"},
            b"x",
            None,
            {"verb": "submit", "recipients": [1]},
            {"verb": "list", "pattern": "x"},
            {"verb": "list", "pattern": {"field": "size", "text": "x"}},
            {"verb": "run", "pattern": []},
            {"verb": "explain", "address": 5},
        ):
            self.caller = Caller(0, 1, frozenset())
            self.assertEqual(self.refused(frame)[1], os.EX_PROTOCOL, frame)

    @given(st.lists(st.binary(max_size=30)))
    def test_D5_any_octets_end_in_an_answer_or_waiting(self, pieces: list[bytes]) -> None:
        protocol, transport = self.connect()
        for piece in pieces:
            protocol.dataReceived(piece)
        answers = wire.Decoder().feed(transport.value())
        self.assertEqual(bool(answers), transport.disconnecting)
        self.lose(protocol)
        self.assertEqual(self.journal.lines, [])

    def test_silence(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(b"\0\0")
        self.clock.advance(299)
        self.assertFalse(transport.disconnecting)
        protocol.dataReceived(b"\0")
        self.clock.advance(1)
        self.assertTrue(transport.disconnecting)

    def test_accounts_have_a_limit(self) -> None:
        for _ in range(PER_ACCOUNT):
            self.connect()
        _, transport = self.connect()
        self.assertEqual(wire.Decoder().feed(transport.value())[0]["exit"], os.EX_TEMPFAIL)
        self.caller = Caller(1001, 1, frozenset())
        self.assertEqual(self.connect()[1].value(), b"")
        self.caller = Caller(0, 1, frozenset())
        for _ in range(PER_ACCOUNT + 1):
            self.assertEqual(self.connect()[1].value(), b"")

    def test_caller_that_cannot_be_told(self) -> None:
        def identify(_: object) -> Caller:
            raise OSError

        self.factory.identify = identify
        _, transport = self.connect()
        self.assertTrue(transport.disconnecting)

    def test_drain(self) -> None:
        busy, idle = self.connect(), self.connect()
        busy[0].dataReceived(encoded(submit("carol")))
        drained = Deferred.fromCoroutine(self.factory.drain())
        self.assertTrue(idle[1].disconnecting)
        self.assertFalse(busy[1].disconnecting)
        self.lose(idle[0])
        self.assertNoResult(drained)
        busy[0].dataReceived(encoded(b"x") + encoded(None))
        self.assertEqual(self.office.submission.state, "stored")
        self.lose(busy[0])
        self.successResultOf(drained)
        self.successResultOf(Deferred.fromCoroutine(self.factory.drain()))

    def test_drain_has_an_end(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(encoded(submit("carol")))
        drained = Deferred.fromCoroutine(self.factory.drain(3.0))
        self.clock.advance(2.9)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnecting)
        self.assertNoResult(drained)
        self.lose(protocol)
        self.successResultOf(drained)
        self.assertEqual(self.office.submission.state, "aborted")
