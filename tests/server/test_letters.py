"""The requests about letters of the queue, on a spool in memory that no queue looks at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice import wire
from postoffice.interfaces import NewLetter
from postoffice.mail.address import Address
from postoffice.server.letters import Asker, Letters, answer
from postoffice.server.office import NotDone
from postoffice.spool.memory import MemorySpool

START, LATER = 1_700_000_000.0, 3600.0
TO = {"A1": ("carol",), "B1": ("dave", "eve")}


class Requests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.spool = MemorySpool(self.clock)
        for letter_id, names in TO.items():
            due = tuple((Address(name, "example.net"), START + LATER) for name in names)
            sender = Address("alice", "example.org")
            client = f"{names[0]}@localhost"
            self.spool.store(NewLetter(sender, due, "7BIT", START, client, letter_id), b"x\r\n", False)
        self.letters = Letters(self.spool, self.spool.requeue)
        self.noted: list[str] = []
        self.frames: list[Any] = []
        self.asker = Asker(None, self.noted.append)

    async def write(self, frames: Iterator[bytes]) -> None:
        self.frames.extend(wire.Decoder().feed(b"".join(frames)))

    def begin(self, verb: str, **more: Any) -> Deferred[Any]:
        self.frames.clear()
        work = answer({"verb": verb} | more, self.letters, self.asker, self.write)
        return Deferred.fromCoroutine(work)

    def ask(self, verb: str, **more: Any) -> dict[str, Any]:
        """The last frame; the others are in `frames`."""
        last: dict[str, Any] = self.successResultOf(self.begin(verb, **more))
        self.assertEqual(last["done"], True)
        return last

    def waiting(self) -> dict[str, float]:
        """The letters that are there, and in how many seconds each is due."""
        entries = self.successResultOf(self.spool.entries())
        return {one.letter.id: one.recipients[0].due - START for one in entries}

    def listed(self, **more: Any) -> list[str]:
        self.ask("list", **more)
        return [frame["id"] for frame in self.frames]

    def test_letters_are_listed(self) -> None:
        self.assertEqual(self.listed(), ["A1", "B1"])
        self.assertEqual(self.listed(pattern={"field": "recipient", "text": "EVE@"}), ["B1"])
        self.asker = Asker("carol@localhost", self.noted.append)
        self.assertEqual(self.listed(), ["A1"])
        self.assertEqual(self.listed(pattern={"field": "id", "text": "b1"}), [])
        self.assertEqual(self.noted, [])

    def test_letters_are_made_due(self) -> None:
        self.assertEqual(self.ask("run", pattern={"field": "any", "text": "dave"})["letters"], 2)
        self.assertEqual(self.waiting(), {"A1": LATER, "B1": 0.0})
        self.assertEqual(self.ask("run")["letters"], 3)
        self.assertEqual(self.waiting(), {"A1": 0.0, "B1": 0.0})

    def test_letters_are_held_and_released(self) -> None:
        self.ask("hold", ids=["A1", "B1"])
        self.ask("list")
        self.assertEqual([frame["held"] for frame in self.frames], [True, True])
        self.assertEqual(self.waiting(), {"A1": LATER, "B1": LATER})
        self.ask("release", ids=["B1"])
        self.assertEqual(self.waiting(), {"A1": LATER, "B1": 0.0})
        self.assertEqual(self.noted, ["hold letter A1", "hold letter B1", "release letter B1"])

    def test_what_was_named_before_one_that_is_not_there_is_done(self) -> None:
        for verb, left in (("hold", 2), ("release", 2), ("delete", 1)):
            self.noted.clear()
            error = self.failureResultOf(self.begin(verb, ids=["A1", "C1\n", "B1"]), NotDone).value
            self.assertEqual((str(error), error.exit_code), ("there is no letter C1?", os.EX_DATAERR))
            self.assertEqual(self.noted, [f"{verb} letter A1"])
            self.assertEqual(len(self.waiting()), left)

    def test_a_letter_is_shown(self) -> None:
        self.ask("show", id="A1")
        self.assertEqual(self.frames, [b"x\r\n"])
        self.assertEqual(self.failureResultOf(self.begin("show", id="C1"), NotDone).value.exit_code, 65)
        self.assertEqual(self.noted, [])

    def test_what_is_not_understood(self) -> None:
        for verb, more in (
            ("burn", {"ids": ["A1"]}), ("delete", {"id": "A1"}), ("delete", {"ids": "A1"}),
            ("delete", {"ids": [1]}), ("show", {}), ("list", {"pattern": "x"}),
            ("run", {"pattern": {"field": "size", "text": "x"}}),
        ):  # fmt: skip
            self.failureResultOf(self.begin(verb, **more), wire.WireError)
        self.assertEqual(len(self.waiting()), 2)
