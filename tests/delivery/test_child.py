"""What a child does not take, from whoever speaks to it, and what it does not hand on."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.helper import command, packets
from postoffice.delivery.helper.child import ENDING, Child
from postoffice.delivery.helper.identity import Rules
from postoffice.wire import WireError

ME = pwd.getpwuid(os.geteuid())


class RefusedJobs(SynchronousTestCase):
    """A child for deliveries, in this process."""

    def setUp(self) -> None:
        self.place = os.path.abspath(self.mktemp())
        self.patch(packets, "receive", partial(self.received, packets.receive))

    def received(self, usual: Any, connection: socket.socket, flags: int) -> Any:
        """As usual; files that are still open when the test is over are closed."""
        packet = usual(connection, flags)
        if packet is not None:
            self.addCleanup(packets.close, [packet[1]])
        return packet

    def refused(self, job: dict[str, Any], letter: int) -> str:
        """Why it does not do the job; the child ends by that."""
        whole = {"id": 1, "path": self.place, "sender": "", "now": 1e9, "tree": "", "quote": True, **job}
        ours, theirs = packets.pair()
        with ours, theirs:
            packets.send(ours, whole, [letter] if letter >= 0 else [])
            ours.shutdown(socket.SHUT_WR)
            child = Child(theirs, ME, "files", Rules(0, frozenset(), "", ""), None)
            error = self.assertRaises(WireError, child.serve)
        self.assertFalse(os.path.exists(self.place))
        return str(error)

    def test_D3_a_letter_that_could_change(self) -> None:
        open_one = packets.memory_file()
        self.addCleanup(os.close, open_one)
        os.write(open_one, b"Subject: x\r\n\r\n")
        with open(self.mktemp(), "wb+") as file:
            file.write(b"Subject: x\r\n\r\n")
            for letter in (open_one, file.fileno(), -1):
                for kind in ("mbox", "maildir", "append"):
                    self.assertEqual(self.refused({"do": kind}, letter), "a letter that could change")

    def test_D2_a_job_of_another_kind(self) -> None:
        letter = packets.memory_file()
        self.addCleanup(os.close, letter)
        packets.seal(letter)
        for kind in ("command", "password", "", None):
            told = self.refused({"do": kind, "text": f"> {self.place}"}, letter)
            self.assertEqual(told, f"a job that is not one for this child: {kind!r}")


class Commands(SynchronousTestCase):
    """What a command is begun with. Shells may mend some of it, so another program stands for one."""

    def test_D2_no_signal_is_blocked(self) -> None:
        self.patch(command, "SHELL", sys.executable)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        letter = packets.memory_file()
        self.addCleanup(os.close, letter)
        text = "print(*(line for line in open('/proc/self/status') if line.startswith('SigBlk')))"
        job = {"text": text, "environment": {}, "sender": "", "now": 0.0, "timeout": 20.0}
        ours, theirs = packets.pair()
        with ours, theirs:
            answer = command.run(job, letter, ME, theirs)
        self.assertEqual(answer, {"status": 0, "output": "SigBlk:\t0000000000000000\n\n"})
