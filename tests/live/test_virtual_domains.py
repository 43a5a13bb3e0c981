"""newaliases, valias and vpasswd on a running service and without one, as the owner, a stranger and root."""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from postoffice.services.hashes import PasswordHashes
from tests.live.office import DOMAIN, OfficeCase, becoming, run, stored
from tests.live.raw import Wire
from tests.peers import HOST, NOBODY, Postoffice
from tests.support import need_root

ALICE = f"alice@{DOMAIN}"
PASSWORD = "correct horse"


class Case(OfficeCase):
    """A domain that belongs to `mail`, an account every Debian has, and another that is root's."""

    def setUp(self) -> None:
        super().setUp()
        self.running = self.office(users={DOMAIN: ("alice", "bob:*"), "other.test": ("carol",)})
        self.place = self.running.directory / "virtual"
        owners = f"mail:{DOMAIN}:1:for tests\nroot:other.test:1:\n"
        (self.place / "domains.cf").write_text(owners)
        if self.running.user is not None:
            for path in (*self.place.glob("*.test"), *self.place.glob("*.test/*")):
                shutil.chown(path, self.running.user, pwd.getpwnam(self.running.user).pw_gid)

    def did(self, command: str, *words: str, data: bytes = b"", prefix: Sequence[str] = ()) -> str:
        """What a command printed on standard output; it succeeded."""
        done = run(self.running, *words, command=command, data=data, prefix=prefix)
        self.assertEqual((done.returncode, done.stderr), (0, b""), words)
        return done.stdout.decode()

    def refused(
        self, code: int, command: str, *words: str, data: bytes = b"", prefix: Sequence[str] = ()
    ) -> str:
        done = run(self.running, *words, command=command, data=data, prefix=prefix)
        self.assertEqual((done.returncode, done.stdout), (code, b""), (words, done.stderr))
        return done.stderr.decode()

    def logs_in(self, user: str, password: str, office: Postoffice | None = None) -> bool:
        with smtplib.SMTP(HOST, (office or self.running).port) as client:
            try:
                client.login(user, password)
            except smtplib.SMTPAuthenticationError:
                return False
            return True

    @property
    def passwd(self) -> Path:
        return self.place / DOMAIN / "passwd"


class Owners(Case):
    def setUp(self) -> None:
        need_root()
        super().setUp()
        mail = pwd.getpwnam("mail")
        self.owner = becoming(mail.pw_uid, mail.pw_gid)

    def test_passwords_are_set_and_count_at_once(self) -> None:
        self.assertFalse(self.logs_in(ALICE, PASSWORD))
        self.did("vpasswd", "--stdin", ALICE, data=PASSWORD.encode(), prefix=self.owner)
        self.assertTrue(self.logs_in(ALICE, PASSWORD))
        self.did("vpasswd", "-a", "--stdin", f"Dave@{DOMAIN}", data=PASSWORD.encode(), prefix=self.owner)
        self.assertTrue(self.logs_in(f"dave@{DOMAIN}", PASSWORD))
        listing = self.did("vpasswd", "-l", DOMAIN, prefix=self.owner)
        self.assertEqual(listing, "alice\nbob\t(cannot log in)\nDave\n")
        self.did("vpasswd", "-d", ALICE, prefix=self.owner)
        self.assertFalse(self.logs_in(ALICE, PASSWORD))
        self.assertRegex(self.passwd.read_text(), r"\Abob:\*\nDave:\$argon2id\$[^\n]+\n\Z")
        log = self.running.log()
        self.assertIn(f"mail@localhost: set the password of {ALICE}", log)
        self.assertIn(f"mail@localhost: added Dave@{DOMAIN}", log)
        self.assertIn(f"mail@localhost: removed {ALICE}", log)
        self.assertNotIn(PASSWORD, log)

    def test_D5_of_their_own_domain_only(self) -> None:
        before = [(path, path.read_bytes()) for path in self.place.glob("*/*")]
        stranger = becoming(12345, 12345)
        for prefix, domain in ((self.owner, "other.test"), (self.owner, "no.test"), (stranger, DOMAIN)):
            for words in (("--stdin", f"alice@{domain}"), ("-a", "--stdin", f"eve@{domain}")):
                self.refused(os.EX_NOPERM, "vpasswd", *words, data=PASSWORD.encode(), prefix=prefix)
            self.refused(os.EX_NOPERM, "vpasswd", "-d", f"carol@{domain}", prefix=prefix)
            self.refused(os.EX_NOPERM, "vpasswd", "-l", domain, prefix=prefix)
            self.refused(os.EX_NOPERM, "valias", domain, prefix=prefix)
            self.refused(os.EX_NOPERM, "valias", f"x@{domain}", "y", prefix=prefix)
            self.refused(os.EX_NOPERM, "valias", "-d", f"x@{domain}", prefix=prefix)
            self.refused(os.EX_NOPERM, "newaliases", domain, prefix=prefix)
        self.refused(os.EX_NOPERM, "newaliases", prefix=self.owner)
        self.assertEqual([(path, path.read_bytes()) for path in self.place.glob("*/*")], before)
        # A domain that was given to somebody else is theirs from that moment on.
        (self.place / "domains.cf").write_text(f"games:{DOMAIN}:1:\n")
        self.refused(os.EX_NOPERM, "vpasswd", "-l", DOMAIN, prefix=self.owner)

    def test_aliases_are_set_and_count_at_once(self) -> None:
        self.did("valias", f"info@{DOMAIN}", ALICE, prefix=self.owner)
        with Wire(self.running.port) as wire:
            wire.reply()
            wire.ask(b"HELO x.test")
            wire.ask(b"MAIL FROM:<>")
            self.assertEqual(wire.ask(f"RCPT TO:<info@{DOMAIN}>".encode())[:3], b"250")
            self.assertEqual(wire.ask(f"RCPT TO:<all@{DOMAIN}>".encode())[:3], b"550")
            self.did("valias", f"*@{DOMAIN}", "bob", prefix=self.owner)
            self.assertEqual(wire.ask(f"RCPT TO:<all@{DOMAIN}>".encode())[:3], b"250")
            self.assertEqual(wire.ask(b"DATA")[:3], b"354")
            self.assertEqual(wire.ask(b"Subject: x\r\n\r\nx\r\n.")[:3], b"250")
        for user in ("alice", "bob"):
            self.eventually("delivered", lambda: len(stored(self.running, user)) == 1, self.running)  # noqa: B023
        listing = self.did("valias", DOMAIN, prefix=self.owner)
        self.assertEqual(listing, f"info: {ALICE}\n*: bob\n")
        self.did("valias", "-d", f"*@{DOMAIN}", prefix=self.owner)
        done = run(self.running, DOMAIN, command="newaliases", prefix=self.owner)
        path = self.place / DOMAIN / "aliases"
        self.assertEqual(done.stderr.decode(), f"{path}: 1 alias, {len(ALICE) + 4} bytes total.\n")

    def test_what_cannot_be_written_is_told(self) -> None:
        folder = self.place / DOMAIN
        os.chown(folder, 0, 0)
        folder.chmod(0o755)
        for words in (("vpasswd", "-d", ALICE), ("valias", f"x@{DOMAIN}", "y")):
            said = self.refused(os.EX_NOPERM, *words, prefix=self.owner)
            self.assertIn(f"{folder} and the files in it must belong to {NOBODY}", said)
        os.chown(folder, pwd.getpwnam(NOBODY).pw_uid, 0)
        os.chown(self.passwd, 0, 0)
        self.passwd.chmod(0o644)
        said = self.refused(os.EX_NOPERM, "vpasswd", "-d", ALICE, prefix=self.owner)
        self.assertIn(f"{self.passwd}: Operation not permitted; ", said)
        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["passwd"])


class Administrators(Case):
    def test_two_at_once_lose_nothing(self) -> None:
        words = [self.running.python, "-m", "postoffice.commands.vpasswd", "-C", str(self.running.config)]
        processes = [
            subprocess.Popen(
                [*words, "-a", "--stdin", f"user{n}@{DOMAIN}"],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.running.environment(),
                cwd="/",
            )
            for n in range(10)
        ]
        for process in processes:
            _, err = process.communicate(PASSWORD.encode(), timeout=60)
            self.assertEqual((process.returncode, err), (0, b""))
        names = {line.partition(":")[0] for line in self.passwd.read_text().split()}
        self.assertEqual(names, {"alice", "bob", *(f"user{n}" for n in range(10))})

    def test_a_mistake_is_told_with_its_line(self) -> None:
        aliases = self.running.directory / "aliases"
        aliases.write_text("a: b\n\nc: :include:x\n")
        for command, words in (("newaliases", ()), ("postoffice", ("-bi",))):
            said = self.refused(os.EX_DATAERR, command, *words)
            self.assertIn(f"{command}: {aliases}:3: ", said)
        team = self.running.directory / "team"
        aliases.write_text(f"team: :include:{team}\n")
        team.write_text("bob\n\n(ann)\n")
        self.assertIn(f"newaliases: {team}:3: ", self.refused(os.EX_DATAERR, "newaliases"))
        team.unlink()
        done = run(self.running, command="newaliases")
        self.assertEqual(done.returncode, 0)
        self.assertIn(f"warning: {aliases}:1: {team}: No such file", done.stderr.decode())

    def test_virtual_domains_by_name(self) -> None:
        (self.place / DOMAIN / "aliases").write_text("a: |cmd\n")
        (self.place / "other.test/aliases").write_text("a: b, c@d.test\nbb: c\n")
        done = run(self.running, "no.test", "other.test", DOMAIN, command="newaliases")
        self.assertEqual(done.returncode, os.EX_NOHOST)
        lines = done.stderr.decode().splitlines()
        self.assertEqual(lines[0], "newaliases: no.test: no virtual domain")
        self.assertEqual(
            lines[1], f"{self.place}/other.test/aliases: 2 aliases, longest is 10 bytes, 14 bytes total."
        )
        self.assertIn(f"{self.place}/{DOMAIN}/aliases:1: only addresses", lines[2])


class Down(Case):
    """Without a service, root and the service's account work on the files, as the service's account."""

    def setUp(self) -> None:
        super().setUp()
        self.running.stop()
        self.prefix: Sequence[str] = ()
        if os.geteuid() == 0:
            account = pwd.getpwnam(NOBODY)
            self.prefix = becoming(account.pw_uid, account.pw_gid)

    def changed(self, command: str, *words: str, data: bytes = b"") -> str:
        """What the log, which is standard error, says of a change."""
        done = run(self.running, *words, command=command, data=data, prefix=self.prefix)
        self.assertEqual((done.returncode, done.stdout), (0, b""), done.stderr)
        return done.stderr.decode()

    def test_the_same_commands(self) -> None:
        said = self.changed("vpasswd", "--stdin", ALICE, data=PASSWORD.encode())
        self.assertIn(f"@localhost: set the password of {ALICE}\n", said)
        self.assertNotIn(PASSWORD, said)
        stored_hash = self.passwd.read_text().splitlines()[0].partition(":")[2]
        self.assertTrue(PasswordHashes().verify(stored_hash, PASSWORD.encode()))
        said = self.changed("valias", f"info@{DOMAIN}", ALICE)
        self.assertIn(f"@localhost: set the alias info@{DOMAIN}\n", said)
        self.assertEqual(self.did("valias", DOMAIN, prefix=self.prefix), f"info: {ALICE}\n")
        done = run(self.running, DOMAIN, command="newaliases", prefix=self.prefix)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"1 alias, ", done.stderr)
        said = self.refused(os.EX_NOUSER, "vpasswd", "-d", f"no@{DOMAIN}", prefix=self.prefix)
        self.assertEqual(said, "vpasswd: there is no user no\n")
        self.running.start()
        self.assertTrue(self.logs_in(ALICE, PASSWORD))

    def test_root_works_as_the_service(self) -> None:
        """What is made belongs to the service's account."""
        need_root()
        # A temporary directory is open to everybody, so root believes no configuration that is in it.
        place = f"/run/postoffice-domains-{os.getpid()}"
        os.mkdir(place, 0o755)
        self.addCleanup(shutil.rmtree, place)
        file = f"{place}/postoffice.cf"
        with open(file, "w") as opened:
            opened.write(self.running.config.read_text() + f"user={NOBODY}\n")
        words = [self.running.python, "-m", "postoffice.commands.valias", "-C", file, f"x@{DOMAIN}", "alice"]
        done = subprocess.run(
            words, capture_output=True, env=self.running.environment(), timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, rb"\A[^\n]+ root@localhost: set the alias x@here\.test\n\Z")
        made = self.place / DOMAIN / "aliases"
        self.assertEqual(made.read_text(), "x: alice\n")
        self.assertEqual(made.stat().st_uid, pwd.getpwnam(NOBODY).pw_uid)

    def test_D5_others_may_not(self) -> None:
        need_root()
        before = self.passwd.read_bytes()
        self.passwd.chmod(0o640)
        (self.place / DOMAIN).chmod(0o750)
        mail = pwd.getpwnam("mail")
        prefix = becoming(mail.pw_uid, mail.pw_gid)
        done = run(self.running, "--stdin", ALICE, command="vpasswd", data=PASSWORD.encode(), prefix=prefix)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn(PASSWORD.encode(), done.stderr)
        self.assertEqual(self.passwd.read_bytes(), before)
