"""Every input of the corpus keeps what the fuzzer asks of it, and the fuzzer sees what it is there for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Reply
from postoffice.smtp.server import ServerEngine
from tests.fuzz.__main__ import CORPUS, smaller
from tests.fuzz.harness import STATES, check, read
from tests.fuzz.sessions import VISITORS

INPUTS = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}


class Corpus(SynchronousTestCase):
    def test_no_defect(self) -> None:
        for name, data in INPUTS.items():
            try:
                check(data)
            except Exception as error:
                raise AssertionError(f"{name}: {data!r}") from error

    def test_every_state_is_begun_from(self) -> None:
        self.assertEqual({read(data)[0] for data in INPUTS.values()}, {*STATES, *VISITORS})


class AnyNewline(ServerEngine):
    """Ends content at LF.LF."""

    def receive(self, data: bytes) -> None:
        super().receive(data.replace(b"\n.\n", b"\r\n.\r\n"))


class Talkative(ServerEngine):
    """Gives two replies to one command."""

    def answer(self, reply: Reply) -> bytes:
        return super().answer(reply) * 2


class Greedy(ServerEngine):
    """Takes what follows a command for more of the group, whatever the command."""

    def receive(self, data: bytes) -> None:
        super().receive(data.replace(b"DATA\r\n", b"DATA\r\nMAIL FROM:<ceo@b.test>\r\n"))


class Hoarding(ServerEngine):
    """Waits for the end of a line for ever."""

    @property
    def buffered(self) -> int:
        return super().buffered + 20_000


class Defects(SynchronousTestCase):
    """Engines with a defect do not come through the corpus, and a finding is made small."""

    def seen(self, engine: type[ServerEngine]) -> int:
        """How many inputs fail."""
        failed = 0
        for data in INPUTS.values():
            try:
                check(data, engine)
            except AssertionError:
                failed += 1
        return failed

    def test_seen(self) -> None:
        for engine in (AnyNewline, Talkative, Greedy, Hoarding):
            self.assertTrue(self.seen(engine), engine.__name__)
        self.assertFalse(self.seen(ServerEngine))

    def test_made_smaller(self) -> None:
        self.assertEqual(smaller(b"abcXdeYf", lambda data: b"X" in data and b"Y" in data), b"XY")
