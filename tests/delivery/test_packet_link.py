"""Packets in the reactor, and what becomes of those that nobody takes any more."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.helper import packets
from postoffice.delivery.packet_link import PacketLink


class Links(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.theirs = packets.pair()
        self.addCleanup(self.theirs.close)
        self.heard: list[Any] = []
        self.reactor = MemoryReactorClock()
        self.link = PacketLink(
            self.reactor,
            ours,
            lambda message, file: self.heard.append(message),
            lambda: self.heard.append("the end"),
        )
        self.addCleanup(self.link.close)

    def test_there_and_back(self) -> None:
        self.link.send({"id": 1})
        self.assertEqual(packets.receive(self.theirs), ({"id": 1}, -1))
        packets.send(self.theirs, {"id": 2})
        self.link.doRead()
        self.assertEqual(self.heard, [{"id": 2}])

    def test_what_was_said_last_is_heard(self) -> None:
        """By who did not wait for what we have to say."""
        packets.send(self.theirs, {"refused": "no"})
        self.theirs.close()
        file = packets.memory_file()
        for _ in range(2):
            self.link.send({"id": 1}, os.dup(file), give=True)
        os.close(file)
        self.reactor.advance(1)
        self.assertEqual(self.heard, [])
        self.link.doRead()
        self.assertEqual(self.heard, [{"refused": "no"}, "the end"])
