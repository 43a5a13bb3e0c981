from __future__ import annotations

import errno
import mailbox
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from postoffice.delivery.dotlock import DotLock
from postoffice.delivery.local import LocalDelivery, LocalDeliverySettings
from postoffice.interfaces import IContent, IDelivery, SpoolFailed
from postoffice.mail.address import Address
from postoffice.mail.destination import Mailbox, Remote
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply
from tests.contracts import DeliveryContract
from tests.delivery.children import no_help

T = TypeVar("T")

CONTENT = b"Received: from x\r\n\tby y\r\nSubject: x\r\n\r\nbody\r\nFrom x\r\n"
JOE = Recipient(1, Address("joe", "example.org"), 0.0)
SALLY = Recipient(2, Address("Sally", "Example.org"), 0.0)


@implementer(IContent)
class Held:
    def __init__(self, held: bytes) -> None:
        self.held: bytes | None = held
        self.size = len(held)

    async def pieces(self) -> AsyncIterator[bytes]:
        raise AssertionError("what is in memory is not read")
        yield b""


@implementer(IContent)
class Streamed:
    """Content in pieces; `gate`, where given, is waited for before each piece after the first."""

    held: bytes | None = None

    def __init__(self, pieces: Sequence[bytes], gate: Callable[[], Deferred[None]] | None = None) -> None:
        self._pieces = pieces
        self._gate = gate
        self.size = sum(map(len, pieces))
        self.given = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if self._gate and self.given:
                await self._gate()
            self.given += 1
            yield piece


class MailboxCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        self.settings = LocalDeliverySettings("mx.example.org")
        self.calls = 0
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def in_thread(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        self.calls += 1
        return maybeDeferred(function, *args)

    def delivery(self) -> LocalDelivery:
        return LocalDelivery(self.in_thread, self.clock, self.settings, no_help())

    def start(
        self,
        content: Any,
        recipients: Sequence[Recipient] = (JOE,),
        sender: str | None = "a",
        kind: Any = "maildir",
    ) -> Deferred[dict[int, Outcome]]:
        address = None if sender is None else Address(sender, "b.example")
        letter = Letter("Q1", address, "8BITMIME", content.size, 1e9, "[192.0.2.1]")
        destination = Mailbox(kind, f"{self.top}/joe", "joe@example.org")
        return self.delivery_used.deliver(letter, content, destination, recipients)

    @property
    def delivery_used(self) -> LocalDelivery:
        if not hasattr(self, "_delivery"):
            self._delivery = self.delivery()
        return self._delivery

    def deliver(self, content: bytes, **more: Any) -> dict[int, Outcome]:
        return self.successResultOf(self.start(Held(content), **more))

    def letters(self) -> list[bytes]:
        box = mailbox.Maildir(f"{self.top}/joe", create=False)
        return [box.get_bytes(key) for key in box.keys()]  # noqa: SIM118


class DeliveryTests(MailboxCase):
    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IDelivery, self.delivery()))

    def test_trace_lines_and_one_step(self) -> None:
        outcomes = self.deliver(CONTENT)
        reply = Reply(250, (0, 0), "delivered to the mailbox of joe@example.org")
        self.assertEqual(outcomes, {1: Delivered(reply, f"{self.top}/joe")})
        begin = b"Return-Path: <a@b.example>\nDelivered-To: joe@example.org\n"
        self.assertEqual(self.letters(), [begin + CONTENT.replace(b"\r\n", b"\n")])
        self.assertEqual(self.calls, 1)

    def test_null_sender(self) -> None:
        self.deliver(CONTENT, sender=None)
        self.assertTrue(self.letters()[0].startswith(b"Return-Path: <>\nDelivered-To: "))

    def test_recipients_of_one_mailbox_get_one_copy(self) -> None:
        outcomes = self.deliver(CONTENT, recipients=(JOE, SALLY))
        self.assertEqual([type(outcomes[key]) for key in (1, 2)], [Delivered, Delivered])
        (letter,) = self.letters()
        self.assertIn(b">\nDelivered-To: joe@example.org\nDelivered-To: Sally@Example.org\nReceived:", letter)

    def test_a6_addresses_cannot_add_lines(self) -> None:
        evil = Recipient(1, Address("joe\r\nBcc: x\x00\xe9", "example.org"), 0.0)
        self.deliver(CONTENT, recipients=(evil,), sender="a\nX: y")
        head = self.letters()[0].partition(b"Received:")[0]
        self.assertEqual(
            head, b'Return-Path: <"a?X: y"@b.example>\nDelivered-To: "joe?Bcc: x?"@example.org\n'
        )

    def test_mbox(self) -> None:
        self.deliver(CONTENT, kind="mbox")
        with open(f"{self.top}/joe", "rb") as file:
            text = file.read()
        self.assertEqual(
            text,
            b"From a@b.example Sun Sep  9 01:46:40 2001\nReturn-Path: <a@b.example>\n"
            b"Delivered-To: joe@example.org\nReceived: from x\n\tby y\nSubject: x\n\nbody\n>From x\n\n",
        )
        self.assertEqual(self.calls, 1)

    def test_mbox_without_quoting(self) -> None:
        self.settings = LocalDeliverySettings("mx", escape_from=False)
        self.deliver(CONTENT, kind="mbox", sender=None)
        with open(f"{self.top}/joe", "rb") as file:
            text = file.read()
        self.assertTrue(text.startswith(b"From <> "))
        self.assertIn(b"\nbody\nFrom x\n", text)

    def test_other_destinations_are_a_bug(self) -> None:
        letter = Letter("Q1", None, "7BIT", 1, 0.0, "")
        self.assertRaises(TypeError, self.delivery().deliver, letter, Held(b""), Remote("example.org"), [JOE])


class LoopTests(MailboxCase):
    """C4"""

    def test_own_line_is_a_loop(self) -> None:
        for line in (
            b"Delivered-To: joe@example.org",
            b"DELIVERED-TO :  JOE@Example.Org",
            b"delivered-to:\r\n joe@example.org",
        ):
            outcomes = self.deliver(b"Subject: x\r\n" + line + b"\r\nTo: x\r\n\r\n")
            reply = Reply(554, (4, 6), "The letter is looping: it was delivered to joe@example.org before")
            self.assertEqual(outcomes, {1: Failed(reply)})
        self.assertEqual(os.listdir(self.top), [])

    def test_other_lines_are_none(self) -> None:
        for content in (
            b"Delivered-To: joe@example.com\r\n\r\n",
            b"X-Delivered-To: joe@example.org\r\n\r\n",
            b"Subject: x\r\n Delivered-To: joe@example.org\r\n\r\n",
            b"Subject: x\r\n\r\nDelivered-To: joe@example.org\r\n",
            b"\r\nDelivered-To: joe@example.org\r\n",
            b"Delivered-To: other@example.org\r\n\r\nDelivered-To: joe@example.org\r\n",
        ):
            self.assertIsInstance(self.deliver(content)[1], Delivered)

    def test_only_the_recipient_that_loops(self) -> None:
        outcomes = self.deliver(b"Delivered-To: sally@example.org\r\n\r\n", recipients=(JOE, SALLY))
        self.assertIsInstance(outcomes[1], Delivered)
        self.assertIsInstance(outcomes[2], Failed)
        self.assertNotIn(b"Sally", self.letters()[0])

    def test_header_in_pieces(self) -> None:
        header = b"Subject: x\r\nDelivered-To: joe@example.org\r\n\r\n"
        pieces = [bytes([octet]) for octet in header]
        self.assertIsInstance(self.successResultOf(self.start(Streamed(pieces)))[1], Failed)


class StreamTests(MailboxCase):
    def test_pieces_are_written_as_they_come(self) -> None:
        for kind in ("maildir", "mbox"):
            gates: list[Deferred[None]] = []

            def gate(gates: list[Deferred[None]] = gates) -> Deferred[None]:
                gates.append(Deferred())
                return gates[-1]

            content = Streamed([CONTENT, b"x" * 1000 + b"\r", b"\nFr", b"om y\r\n"], gate)
            self.top = os.path.abspath(self.mktemp())
            os.mkdir(self.top)
            done = self.start(content, kind=kind)
            for count in range(3):
                self.assertEqual((len(gates), content.given), (count + 1, count + 1))
                self.assertNoResult(done)
                gates[count].callback(None)
            self.assertIsInstance(self.successResultOf(done)[1], Delivered)
            box = mailbox.Maildir(f"{self.top}/joe") if kind == "maildir" else mailbox.mbox(f"{self.top}/joe")
            (letter,) = [box.get_bytes(key) for key in box.iterkeys()]
            box.close()
            end = CONTENT.replace(b"\r\n", b"\n") + b"x" * 1000 + b"\nFrom y\n"
            self.assertTrue(letter.replace(b"\n>From", b"\nFrom").endswith(end))

    def test_a_failure_of_the_content_leaves_nothing(self) -> None:
        def gate() -> Deferred[None]:
            raise ValueError("spool")

        for kind in ("maildir", "mbox"):
            done = self.start(Streamed([CONTENT, b"x"], gate), kind=kind)
            self.failureResultOf(done, ValueError)
            self.assertEqual([file for _, _, files in os.walk(self.top) for file in files], [])
            shutil.rmtree(f"{self.top}/joe", ignore_errors=True)

    def test_content_that_cannot_be_read_is_postponed(self) -> None:
        def gate() -> Deferred[None]:
            raise SpoolFailed("disk")

        for kind in ("maildir", "mbox"):
            # The header lies in the first piece, or runs on into the one that cannot be had.
            for beginning in (CONTENT, b"Subject: x\r\n"):
                done = self.start(Streamed([beginning, b"x"], gate), kind=kind)
                (outcome,) = self.successResultOf(done).values()
                self.assertEqual((type(outcome), outcome.reply.status), (Postponed, "4.3.0"))
                self.assertEqual([file for _, _, files in os.walk(self.top) for file in files], [])
                shutil.rmtree(f"{self.top}/joe", ignore_errors=True)

    def test_cancelled_between_pieces(self) -> None:
        for kind in ("maildir", "mbox"):
            waiting: Deferred[None] = Deferred()
            content = Streamed([CONTENT, b"x", b"y"], lambda waiting=waiting: waiting)  # type: ignore[misc]
            done = self.start(content, kind=kind)
            done.cancel()
            self.failureResultOf(done, CancelledError)
            stopped = self.delivery_used.stop()
            self.assertNoResult(stopped)
            waiting.callback(None)
            self.successResultOf(stopped)
            self.assertEqual([file for _, _, files in os.walk(self.top) for file in files], [])
            shutil.rmtree(f"{self.top}/joe", ignore_errors=True)

    def test_an_endless_header_is_not_gathered(self) -> None:
        pieces = [b"X: " + b"x" * (1 << 18)] * 8
        content = Streamed(pieces, Deferred)
        content._gate = lambda: Deferred() if content.given > 5 else maybeDeferred(lambda: None)
        self.start(content)
        (name,) = os.listdir(f"{self.top}/joe/tmp")
        self.assertGreater(os.path.getsize(f"{self.top}/joe/tmp/{name}"), 1 << 20)


class ErrorTests(MailboxCase):
    def failing(self, number: int) -> Outcome:
        def in_thread(function: Callable[..., T], *args: object) -> Deferred[T]:
            return maybeDeferred(self.fail_with, number)

        delivery = LocalDelivery(in_thread, self.clock, self.settings, no_help())
        letter = Letter("Q1", None, "7BIT", 1, 0.0, "")
        destination = Mailbox("maildir", "/secret/path", "joe@example.org")
        return self.successResultOf(delivery.deliver(letter, Held(CONTENT), destination, [JOE]))[1]

    def fail_with(self, number: int) -> Any:
        raise OSError(number, os.strerror(number), "/secret/path")

    def test_what_the_system_says(self) -> None:
        for number, kind, text in (
            (errno.ENOSPC, Postponed, "452 4.3.1 mailbox of joe@example.org: No space left on device"),
            (errno.EDQUOT, Postponed, "452 4.2.2 mailbox of joe@example.org: Disk quota exceeded"),
            (errno.EFBIG, Postponed, "452 4.2.2 mailbox of joe@example.org: File too large"),
            (errno.EACCES, Postponed, "451 4.2.0 mailbox of joe@example.org: Permission denied"),
            (
                errno.ELOOP,
                Postponed,
                "451 4.2.0 mailbox of joe@example.org: Too many levels of symbolic links",
            ),
            (errno.EIO, Postponed, "451 4.3.0 mailbox of joe@example.org: Input/output error"),
            (errno.EROFS, Postponed, "451 4.3.0 mailbox of joe@example.org: Read-only file system"),
            (errno.ENAMETOOLONG, Failed, "550 5.2.0 mailbox of joe@example.org: File name too long"),
        ):
            outcome = self.failing(number)
            self.assertEqual((type(outcome), str(outcome.reply)), (kind, text))

    def test_missing_home(self) -> None:
        self.top = f"{self.top}/missing"
        outcome = self.deliver(CONTENT)[1]
        self.assertEqual(outcome.reply.status, "4.2.0")

    def test_missing_folders_are_made_in_the_tree(self) -> None:
        self.settings = LocalDeliverySettings("mx", tree=self.top)
        self.top = f"{self.top}/example.org"
        self.assertIsInstance(self.deliver(CONTENT)[1], Delivered)
        self.assertIsInstance(self.deliver(CONTENT, kind="mbox")[1], Postponed)

    def test_a_folder_may_come_before_its_maildir(self) -> None:
        for home, expected in (("/home/joe", Delivered), (f"{self.top}/joe", Delivered), ("", Postponed)):
            place = Mailbox("maildir", f"{self.top}/joe/.suspect", "joe", home)
            letter = Letter("Q1", None, "8BITMIME", len(CONTENT), 1e9, "[192.0.2.1]")
            outcome = self.successResultOf(self.delivery().deliver(letter, Held(CONTENT), place, (JOE,)))[1]
            self.assertIsInstance(outcome, expected, home)
            shutil.rmtree(f"{self.top}/joe", ignore_errors=True)

    def test_unsafe_mailbox(self) -> None:
        with open(f"{self.top}/joe", "w"):
            os.link(f"{self.top}/joe", f"{self.top}/other")
        outcome = self.deliver(CONTENT, kind="mbox")[1]
        self.assertEqual(
            outcome, Postponed(Reply(451, (2, 0), "mailbox of joe@example.org: the file has several names"))
        )


class BusyTests(MailboxCase):
    def setUp(self) -> None:
        super().setUp()
        self.lock = DotLock(f"{self.top}/joe", 1e9)
        self.addCleanup(self.lock.release)

    def test_waits_for_the_lock(self) -> None:
        for content in (Held(CONTENT), Streamed([CONTENT])):
            done = self.start(content, kind="mbox")
            self.clock.pump([0.25] * 8)
            self.assertNoResult(done)
            self.lock.release()
            self.clock.pump([0.25])
            self.assertIsInstance(self.successResultOf(done)[1], Delivered)
            self.lock = DotLock(f"{self.top}/joe", 1e9)

    def test_gives_up_in_time(self) -> None:
        done = self.start(Held(CONTENT), kind="mbox")
        self.clock.pump([0.25] * 39)
        self.assertNoResult(done)
        self.clock.pump([0.25])
        reply = Reply(451, (2, 0), "mailbox of joe@example.org: busy")
        self.assertEqual(self.successResultOf(done), {1: Postponed(reply)})

    def test_letters_wait_in_turn_and_not_in_threads(self) -> None:
        waiting = [self.start(Held(CONTENT), kind="mbox") for _ in range(5)]
        self.assertEqual(self.calls, 1)
        self.lock.release()
        self.clock.pump([0.25])
        for done in waiting:
            self.assertIsInstance(self.successResultOf(done)[1], Delivered)
        self.assertEqual(self.delivery_used._turns._turns, {})

    def test_cancelled_while_waiting(self) -> None:
        first, second = (self.start(Held(CONTENT), kind="mbox") for _ in range(2))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.successResultOf(self.delivery_used.stop())
        self.assertEqual(os.listdir(self.top), ["joe.lock"])


class ThreadTests(TestCase):
    """With real threads and the real reactor."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        self.pool = ThreadPool(0, 4)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        in_thread = partial(deferToThreadPool, reactor, self.pool)  # type: ignore[arg-type]
        self.delivery = LocalDelivery(in_thread, reactor, LocalDeliverySettings("mx.example.org"), no_help())

    def deliver(self, number: int, kind: Any) -> Deferred[dict[int, Outcome]]:
        letter = Letter("Q1", None, "7BIT", 1, 0.0, "")
        pieces = [b"Subject: %d\r\n\r\n" % number, b"x" * 70_000 + b"\r\n"]
        content: Any = Streamed(pieces) if number % 2 else Held(b"".join(pieces))
        return self.delivery.deliver(letter, content, Mailbox(kind, f"{self.top}/joe", "joe"), [JOE])

    async def check(self, kind: Any) -> None:
        outcomes = await gatherResults([self.deliver(number, kind) for number in range(30)])
        self.assertEqual({type(outcome[1]) for outcome in outcomes}, {Delivered})
        await self.delivery.stop()
        box = mailbox.Maildir(f"{self.top}/joe") if kind == "maildir" else mailbox.mbox(f"{self.top}/joe")
        self.addCleanup(box.close)
        self.assertEqual(sorted(int(message["subject"]) for message in box), list(range(30)))
        self.assertEqual({len(message.get_payload()) for message in box}, {70_001})
        self.assertLessEqual(len(self.pool.threads), 4)
        self.assertNotIn(threading.current_thread(), self.pool.threads)

    def test_maildir(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.check("maildir"))

    def test_mbox(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.check("mbox"))


class Contract(DeliveryContract):
    kind: Literal["mbox", "maildir"]

    def make_delivery(self: Any) -> IDelivery:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        return LocalDelivery(maybeDeferred, Clock(), LocalDeliverySettings("mx.example.org"), no_help())  # type: ignore[arg-type]

    def destination(self: Any) -> Mailbox:
        return Mailbox(self.kind, f"{self.top}/ann", "ann")

    def content(self) -> IContent:
        return Held(CONTENT)


class MaildirContractTests(Contract, SynchronousTestCase):
    kind = "maildir"


class MboxContractTests(Contract, SynchronousTestCase):
    kind = "mbox"


class StreamedContractTests(MaildirContractTests):
    def content(self) -> IContent:
        return Streamed([CONTENT, CONTENT])
