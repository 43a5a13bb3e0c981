"""Remote delivery against smtp-sink and Postfix, over real connections."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from postoffice.delivery.remote import Outcomes, RemoteDelivery, RemoteSettings
from postoffice.interfaces import IContent
from postoffice.mail.address import Address
from postoffice.mail.destination import Remote
from postoffice.mail.envelope import Body, Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Postponed
from tests.doubles import StaticResolver
from tests.peers import HOST, Peer, Postfix, SmtpSink, free_port

HEADER = b"From: ann@here.test\r\nSubject: test\r\n\r\n"
TRICKY = (
    HEADER
    + b".\r\n..\r\n.dot\r\n"
    + b"x" * 998
    + b"\r\n\xe4\xf6\r\nbare\nlf\rcr\n.\nMAIL FROM:<a@b>\r\nno end"
)
STRAIGHT = TRICKY.replace(b"\r", b"") + b"\n"


@implementer(IContent)
class Content:
    """Content in memory, or in pieces of 256 KiB of the same octets."""

    def __init__(self, data: bytes = b"", repeat: int = 0) -> None:
        self.held = None if repeat else data
        self.size = len(data) * (repeat or 1)
        self._data = data
        self._repeat = repeat

    async def pieces(self) -> AsyncIterator[bytes]:
        for _ in range(self._repeat):
            yield self._data


class LiveTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="remote-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.addCleanup(lambda: self.delivery.stop())
        self.office()

    def office(self) -> None:
        world: Any = reactor
        self.delivery = RemoteDelivery(
            world, StaticResolver(), RemoteSettings("me.test"), lambda: frozenset(), Random(1)
        )

    def sink(self, *arguments: str, **more: Any) -> SmtpSink:
        sink = SmtpSink(self.directory, arguments=arguments, **more)
        self.addCleanup(sink.stop)
        return sink

    async def send(
        self,
        peer: Peer | int,
        data: bytes = TRICKY,
        recipients: Sequence[str] = ("bob@postfix.test",),
        body: Body = "7BIT",
        repeat: int = 0,
    ) -> Outcomes:
        content = Content(data, repeat)
        letter = Letter("L1", Address("ann", "here.test"), body, content.size, 0.0, "test")
        addressed = [Recipient(at, Address(*text.split("@")), 0.0) for at, text in enumerate(recipients)]
        route = Remote(f"[{HOST}]", peer if isinstance(peer, int) else peer.port, True)
        return await self.delivery.deliver(letter, content, route, addressed)

    async def send_one(self, peer: Peer | int, **more: Any) -> Any:
        return (await self.send(peer, **more))[0]


class SinkTests(LiveTests):
    async def test_byte_for_byte(self) -> None:
        for arguments in ((), ("-p",), ("-e",), ("-8",)):
            sink = self.sink(*arguments, dump="files")
            outcome = await self.send_one(sink, body="8BITMIME")
            self.assertIsInstance(outcome, Delivered, outcome)
            self.assertEqual(outcome.where, f"[{HOST}]:{sink.port}")
            (letter,) = sink.letters()
            self.assertTrue(letter.endswith(b"\n" + STRAIGHT + b"\n"), letter[-200:])
            sink.stop()
            for path in sink.dumped.iterdir():
                path.unlink()

    async def test_many_letters_over_one_session(self) -> None:
        for arguments in ((), ("-p",)):
            sink = self.sink(*arguments)
            for _ in range(50):
                self.assertIsInstance(await self.send_one(sink), Delivered)
            self.assertEqual(sink.count(), 50)
            await self.delivery.stop()
            self.office()
            ended: list[bytes] = []
            for _ in range(50):
                # The sink counts a session some time after we have left.
                ended = re.findall(rb"sess=([0-9]+)", sink.stdout.read_bytes())
                if ended[-1] == b"2":
                    break
                await deferLater(reactor, 0.1)
            self.assertEqual(ended[-1], b"2", "ours, and that of the readiness check")
            sink.stop()
            sink.stdout.unlink()

    async def test_many_letters_at_once(self) -> None:
        sink = self.sink()
        outcomes = await gatherResults([Deferred.fromCoroutine(self.send_one(sink)) for _ in range(200)])
        self.assertTrue(all(isinstance(outcome, Delivered) for outcome in outcomes))
        self.assertEqual(sink.count(), 200)

    async def test_many_recipients(self) -> None:
        for arguments in ((), ("-p",)):
            sink = self.sink(*arguments)
            outcomes = await self.send(sink, recipients=[f"r{at}@postfix.test" for at in range(300)])
            self.assertEqual({type(outcome) for outcome in outcomes.values()}, {Delivered})
            self.assertEqual(len(outcomes), 300)

    async def test_refusals(self) -> None:
        """Without pipelining, which these options of the sink switch off."""
        for command, hard in (("mail", Failed), ("rcpt", Failed), ("data", Postponed), (".", Failed)):
            for option, code, kind in (("hard", 500, hard), ("soft", 450, Postponed)):
                sink = self.sink(**{option: [command]})
                for _ in range(2):
                    outcome = await self.send_one(sink)
                    self.assertIsInstance(outcome, kind, f"{option} {command}: {outcome}")
                    self.assertEqual(outcome.reply.code, code)
                    self.assertEqual(outcome.reply.enhanced, (3, 0))
                sink.stop()

    async def test_no_ehlo(self) -> None:
        self.assertIsInstance(await self.send_one(self.sink(hard=["ehlo"])), Delivered)

    async def test_refused_sessions(self) -> None:
        for command in ("ehlo", "helo"):
            outcome = await self.send_one(self.sink(soft=["ehlo", command]))
            self.assertIsInstance(outcome, Postponed)

    async def test_disconnected(self) -> None:
        for option in ("-q", "-Q"):
            for command in ("ehlo", "mail", "rcpt", "data", "."):
                sink = self.sink(option, command)
                outcome = await self.send_one(sink)
                self.assertIsInstance(outcome, Postponed, f"{option} {command}: {outcome}")
                self.assertIn(outcome.reply.code, (421, 442), f"{option} {command}: {outcome}")
                sink.stop()

    async def test_aborted_in_the_content(self) -> None:
        outcome = await self.send_one(self.sink("-A", "0"), data=b"x" * 250_000 + b"\r\n", repeat=20)
        self.assertIsInstance(outcome, Postponed)

    async def test_nobody_listens(self) -> None:
        outcome = await self.send_one(free_port())
        self.assertIsInstance(outcome, Postponed)
        self.assertEqual(outcome.reply.status, "4.4.1")

    async def test_restarted_between_two_letters(self) -> None:
        sink = self.sink()
        for _ in range(2):
            self.assertIsInstance(await self.send_one(sink), Delivered)
            sink.restart()

    async def test_memory_of_a_large_letter(self) -> None:
        sink = self.sink()
        await self.send_one(sink)
        line = b"x" * 70 + b"\r\n"
        before = _resident()
        outcome = await self.send_one(sink, data=line * (256 * 1024 // len(line)), repeat=200)
        self.assertIsInstance(outcome, Delivered)
        self.assertLess(_peak() - before, 4096, "KiB for 50 MiB")


class PostfixTests(LiveTests):
    async def test_delivered_and_refused(self) -> None:
        postfix = Postfix(self.directory)
        self.addCleanup(postfix.stop)
        outcomes = await self.send(
            postfix, recipients=("bob@postfix.test", "eve@elsewhere.test"), body="8BITMIME"
        )
        self.assertIsInstance(outcomes[0], Delivered)
        self.assertIsInstance(outcomes[1], Failed)
        self.assertEqual(outcomes[1].reply.status[0:4], "5.7.")
        refused = await self.send(postfix, recipients=("eve@elsewhere.test",))
        self.assertIsInstance(refused[0], Failed)
        self.assertIsInstance(await self.send_one(postfix), Delivered)
        self.assertEqual(postfix.log().count(" connect from "), 2, "ours and that of the readiness check")

    async def test_size(self) -> None:
        postfix = Postfix(self.directory, settings={"message_size_limit": "3000"})
        self.addCleanup(postfix.stop)
        outcome = await self.send_one(postfix, data=HEADER + b"x\r\n" * 2000)
        self.assertIsInstance(outcome, Failed)
        self.assertEqual(outcome.reply.status, "5.3.4")


def _resident() -> int:
    """The resident size of this process in KiB; its peak starts anew here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)
