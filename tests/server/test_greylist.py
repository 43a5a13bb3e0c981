"""The greylist as clients meet it, and the requests of local commands that look after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice import wire
from postoffice.config.values import Rate
from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.greylist import Record
from postoffice.policy.greylist import Greylist, GreylistSettings
from postoffice.server.greylist import answer
from postoffice.server.office import NotDone
from tests.doubles import MemoryGreylist, StaticResolver
from tests.queue.support import Directory
from tests.server.support import INSIDE, OUTSIDE, Door, Visit

HOUR = 3600


class Greylisted(SynchronousTestCase):
    """An office that greylists, in memory."""

    def setUp(self) -> None:
        self.door = Door()
        self.clock = self.door.office.clock
        self.store = MemoryGreylist(self.clock.seconds)
        self.store.open()
        self.journal = self.door.office.journal
        self.greylist = Greylist(self.store, GreylistSettings(HOUR), self.journal, self.clock.seconds)
        self.door.greylist = self.greylist
        self.door.judge()

    def visit(self, ip: str = OUTSIDE) -> Visit:
        visit = self.door.visit(ip)
        self.addCleanup(visit.leave)
        self.assertTrue(visit.heard().startswith(b"220 "))
        return visit

    def tried(self, sender: str = "alice@example.net", ip: str = OUTSIDE) -> str:
        """What DATA is answered, at first, with the letter sent where it may be."""
        visit = self.visit(ip)
        visit.send(b"EHLO x\r\n")
        said = visit.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n".encode())
        *_, last = said.decode("ascii").splitlines()
        if last.startswith("354"):
            self.assertTrue(visit.send(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith(b"250 "))
        return last


class Conversation(Greylisted):
    """What is said, and when."""

    def test_a_letter_that_is_put_off_counts_towards_no_rate(self) -> None:
        self.door.judge(rates=[Rate("", 1, 10 * HOUR)])
        for _ in range(5):
            self.assertTrue(self.tried().startswith("451 4.7.1 "))
        self.clock.advance(HOUR)
        self.assertTrue(self.tried().startswith("354 "))
        self.assertTrue(self.tried().startswith("450 4.7.1 "))

    def test_nobody_waits_while_we_learn_whom_our_users_write_to(self) -> None:
        held: Deferred[None] = Deferred()

        class Slow(Directory):
            async def is_local(self, domain: str) -> bool:
                await held
                return await super().is_local(domain)

        with mock.patch("tests.server.support.Directory", Slow):
            self.door.judge()
        visit = self.visit(INSIDE)
        visit.send(b"EHLO x\r\n")
        visit.send(b"MAIL FROM:<bob@example.org>\r\nRCPT TO:<alice@example.net>\r\nDATA\r\n")
        self.assertTrue(visit.send(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith(b"250 "))
        self.assertEqual(self.journal.named("delivered"), ["alice@example.net"])
        self.assertTrue(self.tried().startswith("451 "))
        held.callback(None)
        self.assertTrue(self.tried().startswith("354 "))

    def test_recipients_are_heard_and_DATA_is_put_off(self) -> None:
        visit = self.visit()
        visit.play(
            """
            C: HELO client.example
            S: 250 *
            C: MAIL FROM:<alice@example.net>
            S: 250 2.1.0 *
            C: RCPT TO:<bob@example.org>
            S: 250 2.1.5 *
            C: RCPT TO:<bob@elsewhere.example>
            S: 550 5.7.1 *
            C: DATA
            S: 451 4.7.1 * 3600 seconds*
            C: NOOP
            S: 250 *
            C: MAIL FROM:<alice@example.net>
            S: 250 2.1.0 *
            C: RCPT TO:<bob@example.org>
            S: 250 2.1.5 *
            C: DATA
            S: 451 4.7.1 * 3600 seconds*
            C: QUIT
            S: 221 *
            """
        )
        self.assertEqual(self.door.contents(), [])
        self.assertTrue(any("greylist" in text for text in self.journal.named("refused")))

    def test_the_same_pair_is_let_in_once_its_time_came(self) -> None:
        self.assertIn("451 4.7.1", self.tried())
        self.clock.advance(HOUR - 60)
        self.assertIn("try again in 60 seconds", self.tried())
        self.clock.advance(60)
        self.assertIn("354", self.tried())
        self.assertEqual(len(self.door.contents()), 1)
        self.assertIn("354", self.tried())
        self.assertIn("451 4.7.1", self.tried("carol@example.net"))

    def test_the_null_sender_waits_longer(self) -> None:
        self.assertIn("try again in 18000 seconds", self.tried(""))

    def test_who_is_forbidden_hears_no_number(self) -> None:
        self.greylist.forbid("alice@example.net")
        self.greylist.forbid(f"carol@[{OUTSIDE}]")
        for sender in ("alice@example.net", "carol@example.net"):
            self.assertEqual(self.tried(sender), "451 4.7.1 System busy. Try again later")

    def test_a_wrong_number_begins_anew(self) -> None:
        self.tried()
        self.clock.advance(HOUR)
        visit = self.visit()
        visit.send(b"EHLO x\r\n")
        visit.send(b"MAIL FROM:<alice@example.net>\r\n")
        self.assertTrue(visit.send(b"RCPT TO:<nobody@example.org>\r\n").startswith(b"550 5.1.1"))
        self.assertIn("3600 seconds", self.tried())

    def test_clients_that_may_relay_do_not_wait_and_teach_us_whom_they_know(self) -> None:
        visit = self.visit(INSIDE)
        visit.send(b"EHLO x\r\n")
        visit.send(b"MAIL FROM:<bob@example.org>\r\n")
        said = visit.send(b"RCPT TO:<alice@example.net>\r\nRCPT TO:<carol@example.org>\r\nDATA\r\n")
        self.assertIn(b"\r\n354", said)
        self.assertEqual(self.store.pairs, {})
        visit.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        # carol@example.org is ours: nobody passes for forging it.
        self.assertEqual(list(self.store.pairs), ["alice@example.net"])
        self.assertIn("354", self.tried())

    def test_bounces_of_clients_that_may_relay_teach_us_nothing(self) -> None:
        self.tried("", INSIDE)
        self.assertEqual(self.store.pairs, {})

    def test_clients_that_a_list_welcomes_do_not_wait(self) -> None:
        resolver = StaticResolver(listed={"9.2.0.192.list.example": ["127.0.0.5"]})
        self.door.judge(resolver, dnswl=(("list.example", "127.0.0.5"),))
        self.assertIn("354", self.tried())
        self.assertEqual(self.store.pairs, {})
        self.door.judge(resolver, dnswl=(("list.example", "127.0.0.6"),))
        self.assertIn("451", self.tried())

    def test_it_can_be_turned_off(self) -> None:
        self.door.greylist = None
        self.door.judge()
        self.assertIn("354", self.tried())
        self.assertEqual(self.store.pairs, {})


class Requests(Greylisted):
    """What local commands ask, and hear."""

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """The frames of the answer."""
        decoder, frames = wire.Decoder(), list[Any]()

        async def write(pieces: Iterator[bytes]) -> None:
            for piece in pieces:
                frames.extend(decoder.feed(piece))

        work = answer({"verb": "greylist", **request}, self.greylist, write)
        last = self.successResultOf(Deferred.fromCoroutine(work))
        return [*frames, last]

    def refused(self, error: type[Exception], **request: Any) -> Exception:
        """The error a request ends with."""

        async def write(pieces: Iterator[bytes]) -> None:
            raise AssertionError("there is nothing to write")

        work = Deferred.fromCoroutine(answer({"verb": "greylist", **request}, self.greylist, write))
        found: Exception = self.failureResultOf(work, error).value
        return found

    def test_list(self) -> None:
        self.assertEqual(self.ask(do="list"), [{"done": True}])
        self.greylist.consult(Client("192.0.2.1", name="x"), Address("a", "example.net"))
        self.greylist.forbid("b@example.net")
        now = int(self.clock.seconds())
        self.assertEqual(
            self.ask(do="list"),
            [
                {"record": "a@[192.0.2.1]", "accepted": now + HOUR, "seen": now},
                {"record": "b@example.net", "accepted": None, "seen": now},
                {"done": True},
            ],
        )

    def test_approve_and_forbid(self) -> None:
        self.assertEqual(self.ask(do="approve", record="A@example.net"), [{"done": True}])
        now = int(self.clock.seconds())
        self.assertEqual(self.store.get("a@example.net"), Record(now - 1, now, kept=True))
        self.assertEqual(self.ask(do="forbid", record="a@example.net"), [{"done": True}])
        self.assertEqual(self.store.get("a@example.net"), Record(None, now, kept=True))
        error = self.refused(NotDone, do="approve", record="no address")
        self.assertIn("'no address' names no record", str(error))

    def test_expire(self) -> None:
        now = int(self.clock.seconds())
        for number in range(25):
            self.store.put(f"a{number:02}@example.net", Record(5, now - number), "")
        gone = [{"record": f"a{number:02}@example.net"} for number in range(11, 25)]
        last = {"done": True, "records": 25, "expired": 14}
        self.assertEqual(self.ask(do="expire", age=10, dry=True), [*gone, last])
        self.assertEqual(self.ask(do="expire", age=10), [*gone, last])
        self.assertEqual(self.ask(do="expire", age=10), [{"done": True, "records": 11, "expired": 0}])
        self.assertEqual(
            [self.ask(do="expire", age=9999, **{flag: True})[-1]["expired"] for flag in ("unused", "null")],
            [0, 0],
        )

    def test_when_the_store_fails(self) -> None:
        self.store.broken = True
        for request in (
            {"do": "list"},
            {"do": "approve", "record": "a@example.net"},
            {"do": "expire", "age": 60},
        ):
            self.assertIn("cannot be used now", str(self.refused(NotDone, **request)))

    def test_what_is_no_request(self) -> None:
        for request in (
            {},
            {"do": "burn"},
            {"do": "approve"},
            {"do": "forbid", "record": 5},
            {"do": "expire"},
            {"do": "expire", "age": "14d"},
        ):
            self.refused(wire.WireError, **request)
