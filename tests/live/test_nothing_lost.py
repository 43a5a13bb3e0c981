"""Nothing that was acknowledged is lost, and nothing is ever half there, however often the service is killed.

Twenty sessions hand in letters, half for a Maildir and half for another host, while the process is ended
by SIGKILL at random moments and started again. Each letter tells its own length and hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import socket
import threading
import time
from collections.abc import Iterable

from tests.live.office import DOMAIN, OfficeCase, stored
from tests.peers import HOST, Postoffice, SmtpSink, free_port, wait_until
from tests.support import need

SESSIONS = 20
LETTERS = 2000
KILLS = 20
LIMIT = 90.0
"""Seconds that handing in may take, restarts included."""

REPLY = re.compile(rb"(?:[0-9]{3}-[^\n]*\n)*([0-9]{3}) ([^\n]*)\n")


class Broken(Exception):
    """The conversation ended, or a reply was not what lets it go on."""


class Client:
    """One SMTP session at a time, in blocking calls."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=20)
        self._read = b""
        self.reply(b"220")
        self.ask(b"EHLO client.far.test", b"250")

    def reply(self, wanted: bytes) -> bytes:
        """The text of the next reply, which must have the code `wanted`."""
        while (found := REPLY.match(self._read)) is None:
            data = self._socket.recv(4096)
            if not data:
                raise Broken("closed")
            self._read += data
        self._read = self._read[found.end() :]
        text = found[2].rstrip(b"\r")
        if found[1] != wanted:
            raise Broken(f"{found[1].decode()} {text.decode()}")
        return text

    def ask(self, line: bytes, wanted: bytes) -> bytes:
        """Send a command and take its reply."""
        self._socket.sendall(line + b"\r\n")
        return self.reply(wanted)

    def letter(self, recipient: str, text: bytes) -> str:
        """Hand a letter in; its queue id."""
        # In a group, as most clients do.
        self._socket.sendall(b"MAIL FROM:<a@far.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % recipient.encode())
        self.reply(b"250")
        self.reply(b"250")
        self.reply(b"354")
        self._socket.sendall(text + b".\r\n")
        return self.reply(b"250").split()[-1].decode()

    def close(self) -> None:
        """Without a word."""
        self._socket.close()


def make_letter(name: str, source: random.Random, large: bool = False) -> bytes:
    """A letter, CRLF line ends, that can be checked; a large one is kept in a file, not in the database."""
    length = source.randrange(120_000, 400_000) if large else source.randrange(1, 8000)
    text = source.randbytes(length // 2 + 1).hex().encode()[:length]
    body = b"".join(text[at : at + 200] + b"\n" for at in range(0, length, 200))
    head = b"From: a@far.test\nX-Name: %s\nX-Check: %d %s\n\n" % (
        name.encode(),
        len(body),
        hashlib.sha256(body).hexdigest().encode(),
    )
    return (head + body).replace(b"\n", b"\r\n")


def check(letter: bytes) -> str:
    """The name of a letter with LF line ends that is whole; AssertionError for one that is not."""
    header, gap, body = letter.partition(b"\n\n")
    name = re.search(rb"^X-Name: (\S+)$", header, re.MULTILINE)
    seal = re.search(rb"^X-Check: ([0-9]+) (\S+)$", header, re.MULTILINE)
    assert gap and name and seal, f"the header is cut short: {letter[:1000]!r}"
    length = int(seal[1])
    whole = len(body) >= length and not body[length:].strip(b"\n")
    assert whole, f"{name[1]!r} has {len(body)} octets of {length}"
    assert hashlib.sha256(body[:length]).hexdigest().encode() == seal[2], f"{name[1]!r} was changed"
    return name[1].decode()


def whole(letters: Iterable[bytes]) -> set[str]:
    """The names of those letters that are whole: smtp-sink writes into its files while a letter comes in."""
    names = set()
    for letter in letters:
        with contextlib.suppress(AssertionError):
            names.add(check(letter))
    return names


class Crowd:
    """The sessions: each hands letters in until its share is acknowledged."""

    def __init__(self, port: int, seed: int, letters: int) -> None:
        self.port = port
        self.acknowledged: dict[str, str] = {}
        """The recipient by the name of the letter."""
        self.ids: set[str] = set()
        self.complaints: set[str] = set()
        self.give_up = threading.Event()
        share = letters // SESSIONS
        self.threads = [
            threading.Thread(target=self._run, args=(number, share, random.Random(seed * 100 + number)))
            for number in range(SESSIONS)
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the sessions, which end soon when they were told to give up."""
        for thread in self.threads:
            thread.join()

    def _run(self, number: int, share: int, source: random.Random) -> None:
        client: Client | None = None
        tries = 0
        while share and not self.give_up.is_set():
            # A name is used once: what was not acknowledged may be there as well.
            name = f"{number}-{tries}"
            tries += 1
            recipient = f"alice@{DOMAIN}" if tries % 2 else f"{number}@far.test"
            try:
                client = client or Client(self.port)
                letter_id = client.letter(recipient, make_letter(name, source, source.random() < 0.04))
            except (OSError, Broken) as error:
                if isinstance(error, Broken) and str(error) != "closed":
                    self.complaints.add(str(error))
                if client is not None:
                    client.close()
                client = None
                self.give_up.wait(source.uniform(0.01, 0.1))
            else:
                share -= 1
                self.acknowledged[name] = recipient
                self.ids.add(letter_id)
                if source.random() < 0.1:
                    client.close()
                    client = None
        if client is not None:
            client.close()


class NothingLost(OfficeCase):
    """Ends the service without warning."""

    def found(self, office: Postoffice, sink: SmtpSink) -> tuple[set[str], set[str]]:
        """The letters in the mailbox and at the other host; each of them is whole."""
        return {check(one) for one in stored(office)}, {check(one) for one in sink.letters()}

    def test_killed_twenty_times(self) -> None:
        need("smtp-sink")
        seed = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
        try:
            self.killed(seed)
        except BaseException:
            print(f"SEED={seed}")
            raise

    def killed(self, seed: int) -> None:
        """The sessions, the kills, and the search for every letter."""
        source = random.Random(seed)
        sink = SmtpSink(self.directory / "sink", dump="files")
        self.addCleanup(sink.stop)
        office = self.office(f"relay-host=[{HOST}]:{sink.port}")
        crowd = Crowd(office.port, seed, LETTERS)
        self.addCleanup(crowd.stop)
        self.addCleanup(crowd.give_up.set)
        deadline = time.monotonic() + LIMIT
        crowd.start()
        # By what was acknowledged, not by the clock: so they all come amid the work, on any machine.
        for mark in sorted(source.sample(range(LETTERS // 50, LETTERS - LETTERS // 50), KILLS)):
            while len(crowd.acknowledged) < mark:
                self.assertLess(time.monotonic(), deadline, f"{len(crowd.acknowledged)} letters acknowledged")
                time.sleep(0.001)
            time.sleep(source.uniform(0, 0.05))
            office.kill()
            office.start()
        for thread in crowd.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.assertEqual((len(crowd.acknowledged), crowd.complaints), (LETTERS, set()))
        self.assertEqual(len(crowd.ids), LETTERS, "no queue id is given twice")

        here = {name for name, recipient in crowd.acknowledged.items() if recipient.endswith(DOMAIN)}
        there = crowd.acknowledged.keys() - here
        self.assertGreater(min(len(here), len(there)), LETTERS // 3)
        self.eventually(
            "as many letters as were acknowledged",
            lambda: (
                len(os.listdir(office.directory / "mail" / DOMAIN / "alice/new")) >= len(here)
                and len(os.listdir(sink.dumped)) >= len(there)
            ),
            office,
            30,
        )

        def missing() -> tuple[set[str], set[str]]:
            in_box, at_sink = self.found(office, sink)
            return here - in_box, there - at_sink

        def settled() -> bool:
            try:
                return missing() == (set(), set())
            except AssertionError:
                # The sink has the file of a letter that is coming in among the others.
                return False

        self.eventually("every acknowledged letter", settled, office, 10)
        office.stop()
        wait_until(settled, 10)
        self.assertEqual(missing(), (set(), set()))
        self.assertNotIn("Traceback", office.log())

    def test_resumes_at_once(self) -> None:
        """What was being tried when the service was killed is tried again at the start, not a lease later."""
        need("smtp-sink")
        port = free_port()
        office = self.office(f"relay-host=[{HOST}]:{port}")
        with socket.create_server((HOST, port)) as silent:
            silent.settimeout(10)
            client = Client(office.port)
            client.letter("far@far.test", make_letter("hanging", random.Random(1)))
            client.close()
            connection, _ = silent.accept()
            office.kill()
            connection.close()
        with SmtpSink(self.directory / "sink", port=port, dump="files") as sink:
            office.start()
            self.assertTrue(sink.wait(1, 5), office.log())
            self.assertEqual([check(one) for one in sink.letters()], ["hanging"])
