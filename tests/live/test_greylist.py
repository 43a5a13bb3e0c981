"""The greylist of a running service, and the commands that look after it, with the service up and down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pwd import getpwnam

from tests.live.office import OfficeCase, run, stored
from tests.live.raw import Elsewhere, Wire
from tests.peers import HOST, NOBODY, Postoffice, free_port
from tests.support import need, need_root


class Commands(OfficeCase):
    """authexpire and postoffice greylist."""

    def did(self, office: Postoffice, *words: str, command: str = "authexpire") -> str:
        """What a command printed; it succeeded. It runs as the service's account."""
        done = run(office, *words, command=command, prefix=self.as_service)
        self.assertEqual((done.returncode, done.stderr), (0, b""), words)
        return done.stdout.decode()

    @property
    def as_service(self) -> Sequence[str]:
        if os.geteuid() != 0:
            return ()
        need("setpriv")
        return ("setpriv", f"--reuid={NOBODY}", f"--regid={getpwnam(NOBODY).pw_gid}", "--clear-groups")

    def names(self, office: Postoffice) -> list[str]:
        return sorted(line.split("\t")[0] for line in self.did(office, "-l").splitlines())

    def test_with_the_service_up_and_down(self) -> None:
        office = self.office()
        self.assertEqual(self.did(office, "-l"), "")
        self.did(office, "-a", "alice@far.test")
        self.did(office, "greylist", "forbid", "bob@[192.0.2.1]", command="postoffice")
        self.assertEqual(self.names(office), ["alice@far.test", "bob@[192.0.2.1]"])
        office.stop()
        self.assertEqual(self.names(office), ["alice@far.test", "bob@[192.0.2.1]"])
        self.did(office, "-d", "<>@[192.0.2.2]")
        self.did(office, "-a", "carol@far.test")
        self.assertEqual(
            self.names(office),
            ["<>@[192.0.2.2]", "alice@far.test", "bob@[192.0.2.1]", "carol@far.test"],
        )
        self.assertEqual(self.did(office, "-zEv"), "delete [<>@[192.0.2.2]]\n3 records; expired 1.\n")
        office.start()
        listing = self.did(office, "greylist", "list", command="postoffice").splitlines()
        self.assertEqual(len(listing), 3)
        for line in listing:
            self.assertRegex(line, r"\A\S+@\S+\t(<[^>]+> #|\*{4} forbidden \*{4}  )<[^>]+>\Z")
        self.assertEqual(self.did(office, "-v", "1d"), "3 records; expired 0.\n")

    def test_what_cannot_be_done(self) -> None:
        office = self.office()
        done = run(office, "-a", "no address", command="authexpire")
        self.assertEqual(done.returncode, os.EX_USAGE)
        self.assertIn(b"names no record", done.stderr)
        office.stop()
        done = run(office, "-a", "no address", command="authexpire", prefix=self.as_service)
        self.assertEqual(done.returncode, os.EX_USAGE)
        self.assertIn(b"names no record", done.stderr)

    def test_only_administrators(self) -> None:
        need_root()
        need("setpriv")
        office = self.office()
        stranger = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        for words in (("-l",), ("-a", "me@far.test"), ("-E",)):
            done = run(office, *words, command="authexpire", prefix=stranger)
            self.assertEqual((done.returncode, done.stdout), (os.EX_NOPERM, b""))
            self.assertIn(b"only root", done.stderr)

    def test_root_leaves_nothing_of_its_own_behind(self) -> None:
        """With the service down root's command becomes the service's account, and then opens the database."""
        need_root()
        office = self.office()
        office.stop()
        # A temporary directory is open to everybody, so root believes nothing that is in it.
        place = f"/run/postoffice-test-{os.getpid()}"
        os.mkdir(place, 0o755)
        self.addCleanup(shutil.rmtree, place)
        file = f"{place}/postoffice.cf"
        with open(file, "w") as opened:
            opened.write(office.config.read_text() + f"user={NOBODY}\n")
        words = [office.python, "-m", "postoffice.commands.authexpire", "-C", file, "-a", "a@far.test"]
        done = subprocess.run(words, capture_output=True, env=office.environment(), timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        spool = office.directory / "spool"
        self.assertEqual({path.stat().st_uid for path in spool.iterdir()}, {spool.stat().st_uid})
        self.assertEqual(self.names(office), ["a@far.test"])


class Surviving(OfficeCase):
    """What outlives a restart, and a damaged database."""

    def setUp(self) -> None:
        super().setUp()
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)

    def tried(self, office: Postoffice, sender: bytes) -> bytes:
        """The answer to DATA from outside, with the letter sent where it may be."""
        with Wire(office.port, source="192.0.2.9") as wire:
            wire.replies(1)
            wire.ask(b"HELO x.test")
            wire.ask(b"MAIL FROM:<" + sender + b"@far.test>")
            wire.ask(b"RCPT TO:<alice@here.test>")
            answer = wire.ask(b"DATA")
            if answer.startswith(b"354"):
                self.assertEqual(wire.ask(b"Subject: x\r\n\r\nx\r\n.")[:3], b"250")
            return answer

    def test_a_restart_and_a_damaged_database(self) -> None:
        office = self.office(f"nameserver={HOST}:{free_port()}", "delay=1")
        database = office.directory / "spool/policy.db"
        self.assertIn(b"451 4.7.1", self.tried(office, b"first"))
        office.restart()
        self.eventually("let in", lambda: self.tried(office, b"first").startswith(b"354"), office)
        self.assertIn(b"451 4.7.1", self.tried(office, b"second"))
        office.stop()
        database.write_bytes(b"not a database" * 1000)
        office.own()
        office.start()
        self.eventually("told", lambda: "policy.db.damaged" in office.log(), office)
        self.assertIn(b"451 4.7.1", self.tried(office, b"first"))
        self.eventually("let in", lambda: self.tried(office, b"first").startswith(b"354"), office)
        self.eventually("delivered", lambda: len(stored(office)) == 2, office)

    def test_mail_is_let_through_where_the_database_cannot_be_opened(self) -> None:
        office = self.office(f"nameserver={HOST}:{free_port()}")
        office.stop()
        database = office.directory / "spool/policy.db"
        for path in database.parent.glob("policy.db*"):
            path.unlink()
        database.mkdir()
        office.start()
        self.assertIn(b"354", self.tried(office, b"first"))
        self.eventually("told", lambda: "the greylist lets everybody through" in office.log(), office)
        self.eventually("delivered", lambda: len(stored(office)) == 1, office)
