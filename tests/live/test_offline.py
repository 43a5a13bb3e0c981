"""The queue of a service that is down: the real commands, as the service's account, as root and as others."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import smtplib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from pwd import getpwnam

from tests.live.office import DOMAIN, OfficeCase, becoming, furnish, run, settings
from tests.peers import HOST, NOBODY, Postoffice, SmtpSink, free_port, passable
from tests.support import need_root

DOWN = b"the service is not running"
STRANGER = 12345
# Longer than what is a row of the spool.
LARGE = "Subject: large\n\n" + ("x" * 70 + "\n") * 3000


class Case(OfficeCase):
    """A service that is down, with letters for a host that was not there."""

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        self.service = self.stopped()
        self.spool = self.service.directory / "spool"
        self.as_service: Sequence[str] = ()
        if os.geteuid() == 0:
            self.as_service = becoming(getpwnam(NOBODY).pw_uid, getpwnam(NOBODY).pw_gid)

    def stopped(self) -> Postoffice:
        """A service that tried to send each of these letters, and stopped."""
        home = passable(self.directory / "office")
        furnish(home)
        lines = [line for line in settings(home) if not line.startswith("log=")]
        office = Postoffice([*lines, f"relay-host=[{HOST}]:{self.port}", f"log={home}/log"], home)
        self.addCleanup(office.stop)
        with smtplib.SMTP(HOST, office.port, timeout=30) as client:
            for name, text in (("small", "Subject: small\n\nGr\u00fc\u00dfe\n"), ("large", LARGE)):
                client.sendmail(f"alice@{DOMAIN}", [f"{name}@far.test"], text.encode())
        self.eventually("tried", lambda: office.log().count("postpone mail") == 2, office)
        office.stop()
        said = re.findall(r" (\w+): accepted \d+ octets [^\n]* for <?(small|large)@", office.log())
        self.ids = {name: letter_id for letter_id, name in said}
        self.assertEqual(set(self.ids), {"small", "large"}, office.log())
        return office

    def done(
        self, *words: str, code: int = 0, command: str = "postoffice", prefix: Sequence[str] | None = None
    ) -> tuple[bytes, bytes]:
        """What was printed, and what was complained of."""
        prefix = self.as_service if prefix is None else prefix
        done = run(self.service, *words, command=command, prefix=prefix)
        self.assertEqual(done.returncode, code, (words, done.stderr))
        return done.stdout, done.stderr

    def refused(self, *words: str, code: int = os.EX_TEMPFAIL, prefix: Sequence[str] | None = None) -> bytes:
        """The one line that is complained of."""
        out, err = self.done(*words, code=code, prefix=prefix)
        self.assertEqual((out, err.count(b"\n")), (b"", 1), err)
        return err


class Queue(Case):
    """Everything that can be done."""

    def test_letters_are_looked_after_and_the_service_goes_on_from_there(self) -> None:
        small, large = self.ids["small"], self.ids["large"]
        listing, warning = self.done(command="mailq")
        self.assertEqual(warning, b"mailq: warning: the service is not running\n")
        for words in ("(2 requests)", f"{small} ", f"{large} ", "small@far.test", "refused"):
            self.assertIn(words.encode(), listing)
        self.assertNotIn(b"*", listing)
        self.assertIn(b"(1 request)", self.done("-bp", "-qRlarge")[0])

        shown, complaint = self.done("show", small)
        self.assertEqual(complaint, b"")
        self.assertIn("Subject: small\n\nGr\u00fc\u00dfe\n".encode(), shown)
        self.assertIn(LARGE.encode(), self.done("show", large)[0])

        self.assertEqual(self.done("hold", large, small), (b"", b""))
        self.assertEqual(self.done(command="mailq")[0].count(b"on hold: "), 2)
        self.assertEqual(self.done("release", small), (b"", b""))
        self.assertIn(b"as soon as it starts", self.done("-qRsmall")[1])
        self.assertIn(b"there is no letter X", self.refused("delete", "X", code=os.EX_DATAERR))
        log = self.service.log()
        for what in (f"hold letter {large}", f"hold letter {small}", f"release letter {small}"):
            self.assertRegex(log, rf"info \S+@localhost: {what}\n")

        sink = self.sink()
        self.service.start()
        self.assertTrue(sink.wait(1, 20), self.service.log())
        self.eventually("one waits", lambda: b"(1 request)" in self.listed(), self.service)
        self.assertIn(b"on hold", self.listed())
        self.service.stop()
        self.assertEqual(self.done("delete", large), (b"", b""))
        self.assertEqual(list((self.spool / "content").iterdir()), [])
        self.service.start()
        self.assertEqual(self.listed(), b"Mail queue is empty.\n")

    def test_all_that_waits_is_due_at_the_next_start(self) -> None:
        sink = self.sink()
        self.assertIn(DOWN, self.done("-bq")[1])
        self.service.start()
        self.assertTrue(sink.wait(2, 20), self.service.log())

    def test_after_a_crash(self) -> None:
        """Nobody works on what the service had in hand."""
        self.service.start()
        held = self.ids["large"]
        self.assertEqual(run(self.service, "hold", held).returncode, 0)
        self.service.kill()
        listing, _ = self.done(command="mailq")
        self.assertIn(b"(2 requests)", listing)
        self.assertIn(b"on hold", listing)

    def test_whoever_reads_no_further_is_no_trouble(self) -> None:
        words = [self.service.python, "-m", "postoffice.commands.postoffice", "-C", str(self.service.config)]
        process = subprocess.Popen(
            [*self.as_service, *words, "show", self.ids["large"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.service.environment(),
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        self.assertEqual((process.stderr.read(), process.wait(60)), (b"", 0))
        process.stderr.close()

    def sink(self) -> SmtpSink:
        sink = SmtpSink(self.directory / "sink", port=self.port)
        self.addCleanup(sink.stop)
        return sink

    def listed(self) -> bytes:
        return self.done(command="mailq", prefix=())[0]


class Trouble(Case):
    """What is refused, and how."""

    def test_no_spool(self) -> None:
        for path in self.spool.glob("spool.db*"):
            path.unlink()
        shutil.rmtree(self.spool / "content")
        for words in (("-bp",), ("-q",), ("hold", "X"), ("show", "X")):
            self.assertIn(f"{self.spool}/spool.db: there is none".encode(), self.refused(*words))
        self.assertEqual(list(self.spool.glob("spool.db*")), [])
        shutil.rmtree(self.spool)
        for words in (("-bp",), ("delete", "X")):
            self.assertIn(f"{self.spool} does not exist".encode(), self.refused(*words))
        self.assertFalse(self.spool.exists())

    def test_a_spool_that_somebody_has(self) -> None:
        with (self.spool / "postoffice.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for words in (("-bp",), ("-q",), ("delete", self.ids["small"]), ("show", "X")):
                said = self.refused(*words)
                self.assertIn(b"it is starting or stopping", said)
                self.assertNotIn(DOWN, said)
        self.assertIn(b"(2 requests)", self.done("-bp")[0])

    def test_a_damaged_spool(self) -> None:
        database = self.spool / "spool.db"
        database.write_bytes(b"not a database" * 1000)
        for words in (("-bp",), ("hold", "X")):
            said = self.refused(*words, code=os.EX_OSERR)
            self.assertIn(f"{database}: not an SQLite database".encode(), said)
            self.assertIn(DOWN, said)
        self.assertEqual(database.read_bytes(), b"not a database" * 1000)

    def test_a_log_that_cannot_be_written(self) -> None:
        log = self.service.directory / "log"
        log.unlink()
        log.mkdir()
        _, err = self.done("hold", self.ids["small"])
        self.assertIn(f"{log}".encode(), err)
        self.assertIn(f"hold letter {self.ids['small']}".encode(), err)

    def believed(self, *lines: str) -> str:
        """The configuration, with further lines, where root and strangers believe it."""
        # A temporary directory is open to everybody, so nobody believes what is in it.
        place = Path(f"/run/postoffice-test-{os.getpid()}")
        place.mkdir(0o755)
        self.addCleanup(shutil.rmtree, place)
        file = place / "postoffice.cf"
        file.write_text(self.service.config.read_text() + "".join(f"{line}\n" for line in lines))
        file.chmod(0o644)
        return str(file)

    def test_others(self) -> None:
        need_root()
        stranger = becoming(STRANGER, STRANGER)
        small = self.ids["small"]
        # The file that is named last is read.
        file = self.believed()
        for more in ((), ("-o", f"user={NOBODY}")):
            for words in (("-bp",), ("-q",), ("delete", small), ("show", small)):
                said = self.refused("-C", file, *more, *words, prefix=stranger)
                self.assertIn(f"{self.spool} is for root and the service's account".encode(), said)
        self.assertEqual(self.done("-bp")[0].count(b"far.test"), 2)

    def test_root_leaves_nothing_of_its_own_behind(self) -> None:
        need_root()
        file = self.believed(f"user={NOBODY}")
        for words in (("-bp",), ("hold", *self.ids.values()), ("show", self.ids["large"]), ("-q",)):
            self.done("-C", file, *words, prefix=())
        self.assertRegex(self.service.log(), rf"info root@localhost: hold letter {self.ids['small']}\n")
        owner = self.spool.stat().st_uid
        self.assertEqual({path.stat().st_uid for path in self.spool.rglob("*")}, {owner})
        self.service.start()
        self.assertEqual(run(self.service, command="mailq").stdout.count(b"on hold"), 2)
