"""What goes wrong around a running service: full disks, damage, signals, wrong settings, ports taken."""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import FailTest, SkipTest

from tests.live.office import DOMAIN, OfficeCase, furnish, run, settings, stored
from tests.live.test_nothing_lost import Broken, Client, Crowd, check, make_letter, whole
from tests.peers import HOST, NOBODY, PeerError, Postoffice, SmtpSink, free_port, interpreter, passable
from tests.support import in_ci, need, need_root, program

SOURCE = random.Random(5)


def letters(prefix: str, count: int) -> dict[str, bytes]:
    """Letters by their names; every fourth is large."""
    names = [f"{prefix}-{number}" for number in range(count)]
    return {name: make_letter(name, SOURCE, large=at % 4 == 3) for at, name in enumerate(names)}


class FullDisk(OfficeCase):
    """A spool on a file system of its own that gets full."""

    def room(self, directory: Path, size: int) -> None:
        """A file system of `size` octets at `directory`, gone with the test."""
        need_root()
        directory.mkdir(parents=True)
        library = ctypes.CDLL(None, use_errno=True)
        if library.mount(b"tmpfs", bytes(directory), b"tmpfs", 0, b"mode=700,size=%d" % size):
            if ctypes.get_errno() == errno.EPERM:
                raise (FailTest if in_ci() else SkipTest)("root may not mount here")
            raise OSError(ctypes.get_errno(), "mount")
        self.addCleanup(library.umount2, bytes(directory), 2)

    def fill(self, ballast: Path, leave: int = 0) -> None:
        """Take all room on the file system of `ballast`, but for `leave` octets."""
        try:
            with ballast.open("ab", buffering=0) as file:
                while room := os.statvfs(ballast.parent).f_bavail * 4096 - leave:
                    if room < 0 or not file.write(bytes(min(room, 1 << 16))):
                        return
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def spoolful(self, *lines: str) -> tuple[Postoffice, Path, int]:
        """An office with 24 MiB for its spool, the path for a ballast, and the port it relays to."""
        spool = self.directory / "office/spool"
        self.room(spool, 24 << 20)
        port = free_port()
        office = self.office(f"relay-host=[{HOST}]:{port}", *lines)
        return office, spool / "ballast", port

    def everything_arrives(self, office: Postoffice, port: int, there: set[str], here: set[str]) -> None:
        """All letters acknowledged are at the other host and in the mailbox, and whole."""
        with SmtpSink(self.directory / "sink", port=port, dump="files") as sink:
            self.eventually("answer to -bq", lambda: run(office, "-bq").returncode == 0, office)
            self.eventually(
                "every letter",
                lambda: there <= whole(sink.letters()) and here <= whole(stored(office)),
                office,
                40,
            )
            self.eventually("an empty queue", lambda: b"empty" in run(office, command="mailq").stdout, office)
            for letter in (*sink.letters(), *stored(office)):
                check(letter)
        self.assertNotIn("Traceback", office.log())

    def test_no_room_at_all(self) -> None:
        """Until there is room letters are refused with 452 4.3.1, in sessions that go on."""
        need("smtp-sink")
        office, ballast, port = self.spoolful("minfree=0")
        taken: dict[str, set[str]] = {"far.test": set(), DOMAIN: set()}
        client = Client(office.port)

        def offer(name: str, text: bytes) -> str | None:
            """The refusal of a letter, None if it was taken."""
            domain = (DOMAIN, "far.test")[len(taken[DOMAIN]) > len(taken["far.test"])]
            try:
                client.letter(f"alice@{domain}", text)
            except Broken as refused:
                client.ask(b"RSET", b"250")
                return str(refused)
            taken[domain].add(name)
            return None

        for name, text in letters("before", 24).items():
            self.assertIsNone(offer(name, text), "there is room")
        refusals = []
        for name, text in letters("full", 100).items():
            self.fill(ballast)
            refusals.append(offer(name, text))
        refused = [reply for reply in refusals if reply]
        self.assertGreater(len(refused), 50)
        self.assertEqual({reply[:9] for reply in refused}, {"452 4.3.1"})
        ballast.unlink()
        for name, text in letters("after", 24).items():
            self.assertIsNone(offer(name, text), "there is room again")
        client.close()
        self.everything_arrives(office, port, taken["far.test"], taken[DOMAIN])

    def test_less_than_minfree(self) -> None:
        """What must stay free stays free: refused at MAIL already."""
        need("smtp-sink")
        office, ballast, port = self.spoolful("minfree=4m")
        client = Client(office.port)
        client.letter("a@far.test", make_letter("before", SOURCE))
        self.fill(ballast, leave=3 << 20)
        time.sleep(1.1)
        refused = self.assertRaises(Broken, client.ask, b"MAIL FROM:<a@far.test>", b"250")
        self.assertIn("452 4.3.1", str(refused))
        ballast.unlink()
        time.sleep(1.1)
        client.letter("a@far.test", make_letter("after", SOURCE))
        client.close()
        self.everything_arrives(office, port, {"before", "after"}, set())


class Damage(OfficeCase):
    """A spool that is not as it was left: reported by name, never run on, never changed."""

    def stopped(self) -> Postoffice:
        """An office that ended with letters in its queue; the port they wait for is `self.port`."""
        self.port = free_port()
        office = self.office(f"relay-host=[{HOST}]:{self.port}")
        client = Client(office.port)
        for text in letters("kept", 8).values():
            client.letter("a@far.test", text)
        client.close()
        self.eventually("all tried", lambda: office.log().count("postpone") >= 8, office)
        office.stop()
        return office

    def refuses(self, damage: Callable[[Path], Path]) -> None:
        """The service does not start on the damage, names the file, leaves all as it is, and recovers."""
        need("smtp-sink")
        office = self.stopped()
        spool = office.directory / "spool"
        good = self.directory / "good"
        shutil.copytree(spool, good)
        named = damage(spool)
        before = {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()}
        error = self.assertRaises(PeerError, office.start)
        self.assertIn("ended with status", str(error))
        self.assertNotIn("ended with status 0", str(error))
        said = office.log()[office.log().rindex("cannot use the spool") :]
        self.assertIn(str(named), said)
        self.assertNotIn("Traceback", office.log())
        for path, data in before.items():
            if path.suffix != ".lock":
                self.assertTrue(path.read_bytes() == data, f"{path} was changed")
        for path in spool.rglob("*"):
            if path.is_file():
                path.unlink()
        shutil.copytree(good, spool, dirs_exist_ok=True)
        owner = pwd.getpwnam(NOBODY) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        for path in (spool, *spool.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        with SmtpSink(self.directory / "sink", port=self.port, dump="files") as sink:
            office.start()
            self.assertEqual(run(office, "-bq").returncode, 0)
            self.assertTrue(sink.wait(8, 20), office.log())
            self.assertEqual({check(one) for one in sink.letters()}, {f"kept-{at}" for at in range(8)})

    def test_overwritten(self) -> None:
        def damage(spool: Path) -> Path:
            (spool / "spool.db").write_bytes(b"something else" * 1000)
            return spool / "spool.db"

        self.refuses(damage)

    def test_pages_lost(self) -> None:
        def damage(spool: Path) -> Path:
            with (spool / "spool.db").open("r+b") as file:
                file.seek(4096)
                file.write(bytes(4 * 4096))
            return spool / "spool.db"

        self.refuses(damage)

    def test_a_bit_of_a_letter_changed(self) -> None:
        def damage(spool: Path) -> Path:
            data = (spool / "spool.db").read_bytes()
            # Also where SQLite left a copy in free space.
            text = re.search(rb"X-Name: kept-0\r\nX-Check: [0-9]+ (\w+)", data)
            assert text is not None
            (spool / "spool.db").write_bytes(data.replace(text[1], text[1].swapcase()))
            return spool / "spool.db"

        self.refuses(damage)

    def test_cut_short(self) -> None:
        def damage(spool: Path) -> Path:
            os.truncate(spool / "spool.db", 8192)
            return spool / "spool.db"

        self.refuses(damage)

    def test_empty(self) -> None:
        def damage(spool: Path) -> Path:
            os.truncate(spool / "spool.db", 0)
            return spool / "spool.db"

        self.refuses(damage)

    def test_a_content_file_lost(self) -> None:
        def damage(spool: Path) -> Path:
            lost = next((spool / "content").iterdir())
            lost.unlink()
            return lost

        self.refuses(damage)


class Terminated(OfficeCase):
    """SIGTERM: what is in hand is finished within ten seconds, and nothing is lost."""

    def terminate(self, office: Postoffice) -> float:
        """Seconds it took to end, in good order."""
        began = time.monotonic()
        office.stop(timeout=20)
        took = time.monotonic() - began
        self.assertIn("stopped", office.log()[-300:])
        self.assertNotIn("Traceback", office.log())
        self.assertLess(took, 10)
        return took

    def test_under_load(self) -> None:
        need("smtp-sink")
        sink = SmtpSink(self.directory / "sink", dump="files")
        self.addCleanup(sink.stop)
        office = self.office(f"relay-host=[{HOST}]:{sink.port}")
        crowd = Crowd(office.port, SOURCE.getrandbits(32), 4000)
        self.addCleanup(crowd.stop)
        self.addCleanup(crowd.give_up.set)
        crowd.start()
        self.eventually("some letters", lambda: len(crowd.acknowledged) > 300, office)
        self.terminate(office)
        crowd.give_up.set()
        crowd.stop()
        self.assertEqual({said[:3] for said in crowd.complaints} - {"421"}, set())
        office.start()
        here = {name for name, to in crowd.acknowledged.items() if to.endswith(DOMAIN)}
        self.eventually(
            "every acknowledged letter",
            lambda: (
                here <= whole(stored(office)) and crowd.acknowledged.keys() - here <= whole(sink.letters())
            ),
            office,
        )

    def test_with_a_host_that_never_answers(self) -> None:
        """One letter on its way to it and another half handed in; both sides hang."""
        need("smtp-sink")
        port = free_port()
        office = self.office(f"relay-host=[{HOST}]:{port}")
        with socket.create_server((HOST, port)):
            client = Client(office.port)
            client.letter("a@far.test", make_letter("hanging", SOURCE))
            client.ask(b"MAIL FROM:<a@far.test>", b"250")
            client.ask(b"RCPT TO:<a@far.test>", b"250")
            client.ask(b"DATA", b"354")
            half = make_letter("half", SOURCE)
            client._socket.sendall(half[: len(half) // 2])
            time.sleep(0.3)
            took = self.terminate(office)
            self.assertRaises((Broken, OSError), client.reply, b"250")
            client.close()
        self.assertGreater(took, 1, "what is in hand gets its time")
        with SmtpSink(self.directory / "sink", port=port, dump="files") as sink:
            office.start()
            self.assertTrue(sink.wait(1, 5), office.log())
            self.assertFalse(sink.wait(2, 0.5))
            self.assertEqual([check(one) for one in sink.letters()], ["hanging"])

    def test_twice_is_once(self) -> None:
        """A second signal while stopping cuts nothing short."""
        port = free_port()
        office = self.office(f"relay-host=[{HOST}]:{port}")
        with socket.create_server((HOST, port)):
            client = Client(office.port)
            client.letter("a@far.test", make_letter("hanging", SOURCE))
            client.close()
            time.sleep(0.3)
            again = threading.Timer(0.5, os.kill, (office.pid, 15))
            again.start()
            self.addCleanup(again.join)
            self.terminate(office)


BAD: Mapping[str, tuple[str, Sequence[str]]] = {
    "unknown": ("lisen=25", ("lisen", "listen")),
    "underscore": ("relay_hosts=mx.test", ("relay_hosts", "relay-host")),
    "number": ("clients=many", ("clients", "many")),
    "negative": ("recipients=-1", ("recipients", "-1")),
    "unit": ("timeout=5y", ("timeout", "5y")),
    "size": ("size=10q", ("size", "10q")),
    "port": ("listen=127.0.0.1:99999", ("listen", "99999")),
    "choice": ("bare-newline=perhaps", ("bare-newline", "perhaps")),
    "unreadable": ("banner=/no/such/file", ("banner", "/no/such/file")),
    "directory": ("aliases=/etc", ("aliases", "/etc is a directory")),
    "no directory": ("virtual=/etc/hostname", ("virtual", "/etc/hostname is no directory")),
    "no room": ("spool=/etc/hostname/spool", ("spool", "/etc/hostname is no directory")),
    "nobody": ("user=no-such-user", ("user", "no-such-user")),
    "no name": ("=25", ()),
    "account": ("hostname=not a name", ("hostname", "not a name")),
}


class BadSettings(OfficeCase):
    """Every door tells what is wrong: file, line, option, and what it should have been."""

    DOORS: Mapping[str, Sequence[str]] = {
        "-bt": ("-m", "postoffice.commands.postoffice", "-bt"),
        "-bD": ("-m", "postoffice.commands.postoffice", "-bD"),
        "twistd": ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "postoffice"),
    }

    def setUp(self) -> None:
        super().setUp()
        furnish(self.directory)

    def ask(self, door: str, lines: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Start a door with a configuration of these lines."""
        self.config = self.directory / "bad.cf"
        self.config.write_text("".join(f"{line}\n" for line in lines))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return subprocess.run(
            [sys.executable, *self.DOORS[door], "-C", str(self.config)],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment,
            cwd=self.directory,
            check=False,
        )

    def refused(self, door: str) -> None:
        """Each bad line is named by this door, and the service does not start."""
        good = settings(self.directory)
        for what, (line, words) in BAD.items():
            done = self.ask(door, [*good, line])
            self.assertEqual((what, done.returncode), (what, os.EX_CONFIG), done.stderr)
            self.assertIn(f"{self.config}:{len(good) + 1}: ", done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertFalse((self.directory / "spool").exists(), "nothing was made")

    def test_checked(self) -> None:
        self.refused("-bt")

    def test_foreground(self) -> None:
        self.refused("-bD")

    def test_twistd(self) -> None:
        self.refused("twistd")

    def test_all_at_once(self) -> None:
        """Every bad line is told in one go, in the order of the file."""
        # Files and accounts are looked at when nothing else is wrong.
        late = {"unreadable", "directory", "no directory", "no room", "nobody"}
        lines = [line for what, (line, _) in BAD.items() if what not in late]
        done = self.ask("-bt", lines)
        self.assertEqual(done.returncode, os.EX_CONFIG)
        places = [line.partition(".cf:")[2].partition(":")[0] for line in done.stderr.splitlines()]
        self.assertEqual(places, [str(number) for number in range(1, len(lines) + 1)], done.stderr)

    def test_good(self) -> None:
        """`-bt` shows every setting and where it came from, and what has no effect yet."""
        lines = [*settings(self.directory), "history=8d"]
        done = self.ask("-bt", lines)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("hostname=mail.here.test", done.stdout)
        self.assertIn(f"{self.config}:2", done.stdout)
        self.assertIn(f"{self.config}:{len(lines)}: history: not yet available", done.stdout)

    def test_no_file(self) -> None:
        for door in self.DOORS:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            done = subprocess.run(
                [sys.executable, *self.DOORS[door], "-C", str(self.directory / "none.cf")],
                capture_output=True,
                text=True,
                timeout=30,
                env=environment,
                cwd=self.directory,
                check=False,
            )
            self.assertEqual(done.returncode, os.EX_NOINPUT, done.stderr)
            self.assertIn("none.cf", done.stderr)


class Taken(OfficeCase):
    """What the service needs is somebody else's already."""

    def second(self, *lines: str) -> str:
        """The log of an office that cannot start."""
        error = self.assertRaises(PeerError, self.office, *lines, name="second")
        self.assertNotIn("ended with status 0", str(error))
        self.assertIn("ended with status", str(error))
        self.assertNotIn("Traceback", str(error))
        return str(error)

    def test_port(self) -> None:
        first = self.office()
        self.assertIn(
            f"cannot listen on {HOST}:{first.port}: Address already in use",
            self.second(f"listen={HOST}:{first.port}"),
        )

    def test_port_of_a_daemon(self) -> None:
        """The command that started it says what is wrong, and does not wait for it."""
        first = self.office()
        furnish(self.directory / "third")
        config = self.directory / "third.cf"
        lines = [*settings(self.directory / "third", port=first.port)[:-1], f"log={self.directory}/log"]
        config.write_text("\n".join([*lines, *([f"user={NOBODY}"] if os.geteuid() == 0 else [])]))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(
            [sys.executable, "-m", "postoffice.commands.postoffice", "-C", str(config), "-bd"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            env=environment,
            check=False,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"cannot listen on {HOST}:{first.port}".encode(), done.stdout + done.stderr)
        self.assertIn("cannot start: ", (self.directory / "log").read_text())

    def test_no_room_for_directories(self) -> None:
        (self.directory / "file").touch()
        said = self.second(f"spool={self.directory}/file/spool")
        self.assertIn(f"spool: {self.directory}/file is no directory; name another place", said)

    def test_spool(self) -> None:
        first = self.office()
        said = self.second(f"spool={first.directory}/spool")
        self.assertIn(f"{first.directory}/spool", said)
        self.assertIn(f"pid {first.pid}", said)
        Client(first.port).close()


class Rooted(Postoffice):
    """A service that root starts, and that becomes nobody."""

    def __init__(self, lines: Sequence[str], directory: Path) -> None:
        python, self._libraries = interpreter(sys.executable, NOBODY)
        super().__init__(lines, directory, python, user=None)

    def environment(self) -> Mapping[str, str]:
        inherited = super().environment()
        path = os.pathsep.join([inherited["PYTHONPATH"], *self._libraries])
        return {**inherited, "PYTHONPATH": path}


class Privileges(OfficeCase):
    """Started by root the service is somebody else, and so are those who use it."""

    def test_started_by_root(self) -> None:
        need_root()
        home = passable(self.directory / "office")
        furnish(home)
        nobody = pwd.getpwnam(NOBODY)
        os.chown(home / "mail", nobody.pw_uid, nobody.pw_gid)
        lines = [line.replace(f"{home}/control", f"{home}/run/control") for line in settings(home)]
        office = Rooted([*lines, f"user={NOBODY}", f"vuser={NOBODY}"], home)
        self.addCleanup(office.stop)
        status = Path(f"/proc/{office.pid}/status").read_text()
        ids = dict(line.split(":\t", 1) for line in status.splitlines())
        self.assertEqual(set(ids["Uid"].split()), {str(nobody.pw_uid)})
        self.assertEqual(set(ids["Gid"].split()), {str(nobody.pw_gid)})
        self.assertEqual(ids["CapEff"].strip("0"), "")
        self.assertEqual(ids["CapPrm"].strip("0"), "")
        for path in ("spool", "spool/spool.db", "run"):
            self.assertEqual((home / path).stat().st_uid, nobody.pw_uid, path)
        self.assertEqual((home / "spool").stat().st_mode & 0o777, 0o700)
        client = Client(office.port)
        client.letter(f"alice@{DOMAIN}", make_letter("x", SOURCE))
        client.close()
        self.eventually("the letter", lambda: [check(one) for one in stored(office)] == ["x"], office)

    def test_commands_of_another_account(self) -> None:
        """Everybody may submit, under their own name, and look; the queue is run for administrators."""
        need_root()
        daemon = pwd.getpwnam("daemon")
        become = [
            program("setpriv"),
            f"--reuid={daemon.pw_uid}",
            f"--regid={daemon.pw_gid}",
            "--clear-groups",
        ]
        office = self.office(f"relay-host=[{HOST}]:{free_port()}")
        text = b"Subject: from daemon\n\nhello\n.\nnot this\n"
        done = run(office, "-bm", f"alice@{DOMAIN}", "b@far.test", data=text, prefix=become)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        self.eventually("the letter", lambda: stored(office), office)
        (letter,) = stored(office)
        self.assertTrue(letter.endswith(b"\n\nhello\n"), letter)
        self.assertIn(b"Return-Path: <daemon>\n", letter)
        self.assertRegex(letter, rb"\nFrom: (daemon@mail\.here\.test|[^\n]+ <daemon@mail\.here\.test>)\n")
        self.assertIn(b"(from daemon on this machine)", letter)

        shown = run(office, command="mailq", prefix=become)
        self.assertEqual((shown.returncode, shown.stderr), (0, b""))
        self.assertIn(b"b@far.test", shown.stdout)
        self.assertNotIn(b"alice@", shown.stdout)
        self.assertEqual(run(office, "-bp", prefix=become).stdout, shown.stdout)

        theirs = run(office, "-bq", prefix=become)
        self.assertEqual(theirs.returncode, os.EX_NOPERM, theirs.stderr)
        self.assertEqual(run(office, "-bq").returncode, 0)

    def test_the_queue_of_others_may_be_hidden(self) -> None:
        need_root()
        office = self.office(f"relay-host=[{HOST}]:{free_port()}", "mailq-all=0")
        setpriv = program("setpriv")
        for name in ("daemon", "bin"):
            user = pwd.getpwnam(name)
            become = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            done = run(office, "-bm", f"{name}@far.test", data=b"Subject: x\n\n", prefix=become)
            self.assertEqual(done.returncode, 0, done.stderr)
            shown = run(office, command="mailq", prefix=become).stdout
            self.assertIn(f"{name}@far.test".encode(), shown)
            self.assertEqual(shown.count(b"@far.test"), 1, shown)
        self.assertEqual(run(office, command="mailq").stdout.count(b"@far.test"), 2)

    def test_nobody_answers(self) -> None:
        office = self.office()
        office.stop()
        for words in (("-bm", "a@b.test"), ("explain", "a@b.test")):
            done = run(office, *words)
            self.assertEqual(done.returncode, os.EX_TEMPFAIL)
            self.assertIn(b"the service is not running", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1)
