"""The peers of the live tests and of the benchmark, tried on one another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import peers
from tests.support import need


class PeersCase(SynchronousTestCase):
    """A directory that other accounts can pass through, and a look for left-over processes."""

    def setUp(self) -> None:
        need("postfix")
        directory = tempfile.TemporaryDirectory(prefix="peers-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.directory.chmod(0o755)

    def assert_gone(self, family: dict[int, int]) -> None:
        """No process of the family runs any more."""
        self.assertTrue(family)
        self.assertEqual(peers.alive(family), [])

    def nothing_left(self, peer: peers.Peer) -> None:
        """Stop the peer; its processes are gone and its port is closed."""
        family = peers.descendants(peer.pid)
        peer.stop()
        self.assert_gone(family)
        self.assertFalse(peers.greets(peer.port))


class PostfixTests(PeersCase):
    """smtp-source -> Postfix -> wherever it is told to."""

    def postfix(self, name: str = "postfix", **options: object) -> peers.Postfix:
        """A Postfix that ends with the test."""
        peer = peers.Postfix(self.directory / name, **options)  # type: ignore[arg-type]
        self.addCleanup(peer.stop)
        return peer

    def test_maildir(self) -> None:
        peer = self.postfix()
        run = peers.smtp_source(peer.port, sessions=3, messages=20, length=4096)
        self.assertEqual((run.status, run.stderr), (0, ""))
        self.assertTrue(peers.wait_until(lambda: len(peer.letters()) == 20, 20), peer.log())
        for letter in peer.letters():
            self.assertIn(b"\nDelivered-To: rcpt@postfix.test\n", letter)
            self.assertGreater(len(letter), 4096)
        # Postfix removes a queue file some time after it delivered the letter.
        self.assertTrue(peers.wait_until(lambda: peer.queued() == 0, 10), peer.log())
        self.nothing_left(peer)

    def test_mbox(self) -> None:
        peer = self.postfix(deliver="mbox")
        self.assertEqual(peers.smtp_source(peer.port, messages=5, persistent=True).status, 0)
        self.assertTrue(
            peers.wait_until(
                lambda: (
                    peer.mailbox.exists() and peer.mailbox.read_bytes().count(b"From sender@far.test ") == 5
                ),
                20,
            )
        )

    def test_foreign_domain_refused(self) -> None:
        peer = self.postfix()
        run = peers.smtp_source(peer.port, recipient="rcpt@elsewhere.test")
        self.assertNotEqual(run.status, 0)
        self.assertIn("554", run.stderr)

    def test_held(self) -> None:
        peer = self.postfix(deliver="hold")
        self.assertEqual(peers.smtp_source(peer.port, sessions=2, messages=10).status, 0)
        self.assertEqual(peer.queued(), 10)
        self.assertEqual(len(list((peer.queue / "hold").iterdir())), 10)

    def test_discard(self) -> None:
        peer = self.postfix(deliver="discard")
        self.assertEqual(peers.smtp_source(peer.port, messages=3).status, 0)
        self.assertTrue(
            peers.wait_until(lambda: peer.log().count("status=sent") == 3 and not peer.queued(), 20)
        )

    def test_relay(self) -> None:
        sink = peers.SmtpSink(self.directory / "sink")
        self.addCleanup(sink.stop)
        peer = self.postfix(deliver=f"127.0.0.1:{sink.port}")
        self.assertEqual(
            peers.smtp_source(peer.port, sessions=2, messages=10, recipient="rcpt@sink.test").status, 0
        )
        self.assertTrue(sink.wait(10), peer.log())

    def test_two_at_once_and_again(self) -> None:
        first, second = self.postfix("first"), self.postfix("second")
        self.assertNotEqual(first.port, second.port)
        first.restart()
        for peer in (first, second):
            self.assertEqual(peers.smtp_source(peer.port).status, 0)

    def test_killed_leaves_nothing(self) -> None:
        peer = self.postfix()
        peers.smtp_source(peer.port, sessions=3, messages=6)
        family = peers.descendants(peer.pid)
        self.assertGreater(len(family), 3)
        peer.kill()
        self.assert_gone(family)

    def test_bad_setting(self) -> None:
        with self.assertRaises(peers.PeerError) as caught:
            self.postfix(settings={"inet_interfaces": "no-such-host.invalid"})
        self.assertIn("Postfix ended with status 1", str(caught.exception))


class SinkTests(PeersCase):
    """smtp-source -> smtp-sink."""

    def sink(self, **options: object) -> peers.SmtpSink:
        """A sink that ends with the test."""
        peer = peers.SmtpSink(self.directory / "sink", **options)  # type: ignore[arg-type]
        self.addCleanup(peer.stop)
        return peer

    def test_counts(self) -> None:
        peer = self.sink()
        self.assertEqual(peer.count(), 0)
        self.assertEqual(peers.smtp_source(peer.port, sessions=5, messages=50).status, 0)
        self.assertTrue(peer.wait(50))
        self.assertFalse(peer.wait(51, 0.1))
        self.nothing_left(peer)

    def test_dump(self) -> None:
        peer = self.sink(dump="files")
        peers.smtp_source(peer.port, messages=2, recipient="one@sink.test")
        self.assertTrue(peer.wait(2))
        self.assertEqual(
            [b"X-Rcpt-Args: <one@sink.test>" in letter for letter in peer.letters()], [True, True]
        )

    def test_dump_in_one_file(self) -> None:
        peer = self.sink(dump="file")
        peers.smtp_source(peer.port, messages=2)
        self.assertTrue(peer.wait(2))
        self.assertEqual([letter.count(b"X-Rcpt-Args: ") for letter in peer.letters()], [2])

    def test_refusals(self) -> None:
        peer = self.sink(soft=["rcpt"])
        self.assertIn("450", peers.smtp_source(peer.port).stderr)
        peer.stop()
        self.assertIn("500", peers.smtp_source(self.sink(hard=["."]).port).stderr)


class ProcessTests(PeersCase):
    """CPU accounting, and what becomes of a peer that fails."""

    def test_tree_cpu(self) -> None:
        burn = "import time\nwhile time.process_time() < {}: pass\n"
        program = (
            f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn.format(0.3)!r}])\n"
            f"child = subprocess.Popen([sys.executable, '-c', {(burn.format(0.2) + 'time.sleep(60)')!r}])\n"
            "print('burnt', flush=True)\ntime.sleep(60)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
        )
        self.addCleanup(process.wait)
        self.addCleanup(self.end, process)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        process.stdout.readline()
        self.assertTrue(peers.wait_until(lambda: peers.tree_cpu(process.pid) >= 0.5, 10))
        # Three interpreters also start, for some hundredths of a second each.
        time.sleep(0.1)
        self.assertLess(peers.tree_cpu(process.pid), 0.9)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process and its children."""
        for pid in peers.descendants(process.pid):
            os.kill(pid, signal.SIGKILL)

    def test_timeout_of_source(self) -> None:
        peer = peers.SmtpSink(self.directory / "slow", arguments=["-w", "60"])
        self.addCleanup(peer.stop)
        run = peers.smtp_source(peer.port, timeout=0.5)
        self.assertEqual(run.status, None)
        self.assertLess(run.seconds, 5)

    def test_a_peer_that_cannot_start(self) -> None:
        with self.assertRaises(peers.PeerError):
            peers.SmtpSink(self.directory / "bad", arguments=["-no-such-option"])

    def test_configuration_without_a_port(self) -> None:
        with self.assertRaises(peers.PeerError):
            peers.Postoffice(["hostname=x.test"], self.directory / "office")
