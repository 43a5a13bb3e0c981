"""Real programs to talk to: Postfix, its test tools, and our own server as a process.

Used by the tests in `tests/live` and by `bench`. Every peer lives in a directory of its own, listens on a
high port of 127.0.0.1, asks no DNS server and leaves the machine's own configuration alone. A peer is
ready when its constructor returns; `stop()` (also on leaving a `with` block, and at the latest when the
interpreter ends) ends exactly the processes that were started, by their process id. The directory stays:
it belongs to the caller.

Needs no reactor, so that the benchmark can use it next to a server under test.

Failures: a missing Debian package goes through `need`; a peer that does not get ready, or dies, raises
`PeerError` with the end of its log.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from twisted.trial.unittest import FailTest, SkipTest

import postoffice
from tests.support import in_ci, need, program

HOST = "127.0.0.1"
NOBODY = "nobody"
ROOT = Path(__file__).resolve().parent.parent
# Where the package is that the tests themselves import: a changed copy, when a seeded defect is tried.
PACKAGE = Path(postoffice.__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")
_running: set[Peer] = set()


class PeerError(Exception):
    """A peer did not start, or ended when it should not have; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def greets(port: int) -> bool:
    """Does an SMTP server on this port answer a connection with 220?"""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            greeting = connection.recv(4096)
            connection.sendall(b"QUIT\r\n")
            return greeting.startswith(b"220")
    except OSError:
        return False


class Peer:
    """A process we started, its port and its log. The base of the peers below.

    `start()` runs `command()` in a session of its own, with standard output and standard error in files,
    and returns when `ready()` holds. Raises `PeerError` after `patience` seconds, or when the process ends.
    """

    patience = 20.0
    user: str | None = None

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.stdout = directory / "stdout"
        self.stderr = directory / "stderr"

    def command(self) -> Sequence[str | Path]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """The environment of the process."""
        return os.environ

    def ready(self) -> bool:
        """Can the peer be used now? Asked again and again while it starts."""
        return greets(self.port)

    def log(self) -> str:
        """Everything the peer logged so far."""
        return _text(self.stderr)

    def own(self) -> None:
        """Give the directory, with what is in it, to the account the process runs as."""
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    @property
    def pid(self) -> int:
        """Process id. Raises `PeerError` when the peer does not run."""
        if self.process is None:
            raise PeerError(f"{type(self).__name__} is not running")
        return self.process.pid

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        with self.stdout.open("ab") as stdout, self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,
                user=self.user,
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
                extra_groups=None if self.user is None else [],
            )
        _running.add(self)
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def _await_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + self.patience
        while not self.ready():
            status = self.process.poll()
            if status is not None:
                raise PeerError(f"{type(self).__name__} ended with status {status}:\n{self.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise PeerError(
                    f"{type(self).__name__} not ready after {self.patience} s:\n{self.log()[-4000:]}"
                )
            time.sleep(0.02)

    def stop(self, timeout: float = 15) -> int | None:
        """Ask the process to end (SIGTERM) and wait; SIGKILL after `timeout` seconds.

        Returns its exit status, negative for a signal; None when it did not run.
        """
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> int | None:
        """End the process at once (SIGKILL), and whatever of it is left."""
        return self._end(signal.SIGKILL, 15)

    def restart(self) -> None:
        """Stop when running, then start again on the same port and directory."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals, timeout: float) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        family = descendants(process.pid)
        process.send_signal(how)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        # A process that was killed could not tell its children; they are known by number and start time,
        # so that a number used again is not hit.
        _finish(family, 0 if how is signal.SIGKILL else 2)
        _running.discard(self)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@atexit.register
def _stop_all() -> None:
    for peer in list(_running):
        peer.kill()


class Postfix(Peer):
    """A Postfix instance of its own, well away from the system's.

    `deliver` says what becomes of an accepted letter:
    `maildir` and `mbox`  into the mailbox `mailbox`, whoever the recipient in `domains` is; other domains
                          are refused with 554;
    `discard`             thrown away once it was queued;
    `hold`                stays in the queue and is never tried;
    `HOST:PORT`           relayed there, whatever its domain.

    `settings` are added to main.cf and win. Needs root, as Postfix itself does.
    """

    def __init__(
        self,
        directory: Path,
        *,
        domains: Sequence[str] = ("postfix.test",),
        deliver: str = "maildir",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        need("postfix")
        if os.geteuid() != 0:
            raise (FailTest if in_ci() else SkipTest)("postfix starts as root only")
        super().__init__(passable(directory), free_port())
        self.mailbox = self.directory / "mail" / "box"
        self.queue = self.directory / "queue"
        self._layout()
        values = _main_cf(self.directory, domains, deliver) | dict(settings or {})
        config = self.directory / "config"
        (config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
        # Postfix does not trust a main.cf younger than two seconds and would wait.
        os.utime(config / "main.cf", (time.time() - 60,) * 2)
        (config / "master.cf").write_text(_MASTER_CF.format(host=HOST, port=self.port))
        self.start()

    def command(self) -> Sequence[str | Path]:
        """master(8) in the foreground: it is our child, and the parent of all its daemons."""
        return ["/usr/lib/postfix/sbin/master", "-d", "-c", self.directory / "config"]

    def log(self) -> str:
        """What postlogd wrote, after what master said before there was one."""
        return _text(self.stderr) + _text(self.directory / "mail.log")

    def letters(self) -> list[bytes]:
        """The letters delivered to the Maildir so far, in no order, with LF line ends."""
        return [path.read_bytes() for path in self.mailbox.glob("new/*")]

    def queued(self) -> int:
        """How many letters are in the queue, in whatever state."""
        return sum(
            len(files)
            for name in ("maildrop", "incoming", "active", "deferred", "hold")
            for _, _, files in os.walk(self.queue / name)
        )

    def _layout(self) -> None:
        owner = pwd.getpwnam("postfix")
        nobody = pwd.getpwnam(NOBODY)
        postdrop = shutil.which("postdrop")
        drop = owner.pw_gid if postdrop is None else os.stat(postdrop).st_gid
        for name in ("config", "queue", "queue/pid"):
            (self.directory / name).mkdir(mode=0o755)
        for name in ("data", *(f"queue/{state}" for state in _QUEUES)):
            (self.directory / name).mkdir(mode=0o700)
            os.chown(self.directory / name, owner.pw_uid, -1)
        for name, mode in (("public", 0o710), ("maildrop", 0o730)):
            (self.queue / name).mkdir()
            os.chown(self.queue / name, owner.pw_uid, drop)
            (self.queue / name).chmod(mode)
        self.mailbox.parent.mkdir(mode=0o755)
        os.chown(self.mailbox.parent, nobody.pw_uid, nobody.pw_gid)


_QUEUES = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
)

_MASTER_CF = """\
{host}:{port} inet n - n - - smtpd
pickup   unix  n - n 60  1 pickup
cleanup  unix  n - n -   0 cleanup
qmgr     unix  n - n 300 1 qmgr
rewrite  unix  - - n -   - trivial-rewrite
bounce   unix  - - n -   0 bounce
defer    unix  - - n -   0 bounce
trace    unix  - - n -   0 bounce
verify   unix  - - n -   1 verify
flush    unix  n - n 1000? 0 flush
proxymap unix  - - n -   - proxymap
smtp     unix  - - n -   - smtp
relay    unix  - - n -   - smtp
showq    unix  n - n -   - showq
error    unix  - - n -   - error
retry    unix  - - n -   - error
discard  unix  - - n -   - discard
virtual  unix  - n n -   - virtual
anvil    unix  - - n -   1 anvil
scache   unix  - - n -   1 scache
postlog  unix-dgram n - n - 1 postlogd
"""


def _main_cf(directory: Path, domains: Sequence[str], deliver: str) -> dict[str, str]:
    """The settings of a Postfix that knows nothing of the outside world."""
    nobody = pwd.getpwnam(NOBODY)
    values = {
        "compatibility_level": "3.6",
        "queue_directory": f"{directory}/queue",
        "data_directory": f"{directory}/data",
        "maillog_file": f"{directory}/mail.log",
        "maillog_file_prefixes": str(directory),
        "inet_interfaces": "loopback-only",
        "inet_protocols": "ipv4",
        "myhostname": "postfix.test",
        "mydestination": "",
        "local_recipient_maps": "",
        "alias_maps": "",
        "alias_database": "",
        "mynetworks": "127.0.0.0/8",
        "smtp_dns_support_level": "disabled",
        "smtp_host_lookup": "native",
        "smtpd_peername_lookup": "no",
        "message_size_limit": "0",
        "mailbox_size_limit": "0",
        "virtual_mailbox_limit": "0",
        "append_dot_mydomain": "no",
        "biff": "no",
    } | {
        f"smtpd_client_{what}_limit": "0"
        for what in (
            "connection_count",
            "connection_rate",
            "message_rate",
            "recipient_rate",
            "new_tls_session_rate",
            "auth_rate",
        )
    }
    match deliver:
        case "maildir" | "mbox":
            values |= {
                "smtpd_relay_restrictions": "reject_unauth_destination",
                "virtual_mailbox_domains": " ".join(domains),
                "virtual_mailbox_base": f"{directory}/mail",
                "virtual_mailbox_maps": "static:box/" if deliver == "maildir" else "static:box",
                "virtual_uid_maps": f"static:{nobody.pw_uid}",
                "virtual_gid_maps": f"static:{nobody.pw_gid}",
            }
        case "discard":
            values["default_transport"] = "discard:"
        case "hold":
            values |= {"smtpd_client_restrictions": "static:HOLD", "relayhost": f"[{HOST}]:9"}
        case _:
            host, _, port = deliver.rpartition(":")
            values["relayhost"] = f"[{host}]:{port}"
    return values


class SmtpSink(Peer):
    """smtp-sink: takes letters and counts them.

    `dump` keeps them: `"files"` one letter a file, `"file"` all in one file, None keeps nothing. `soft` and
    `hard` are SMTP commands (`"rcpt"`, `"."`) to answer with 450 and with 500. `arguments` go to the program
    as they are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        dump: str | None = None,
        soft: Sequence[str] = (),
        hard: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        need("smtp-sink")
        super().__init__(passable(directory), free_port() if port is None else port)
        self.dumped = self.directory / "dump"
        self.dumped.mkdir(exist_ok=True)
        self._arguments = ["-c", "-m", "1000", *arguments]
        if os.geteuid() == 0:
            os.chown(self.dumped, pwd.getpwnam(NOBODY).pw_uid, -1)
            self._arguments += ["-u", NOBODY]
        for letter, value in (
            ("-r", ",".join(soft)),
            ("-f", ",".join(hard)),
            ({"files": "-d", "file": "-D"}.get(dump or "", ""), "dump/letter"),
        ):
            if letter and value:
                self._arguments += [letter, value]
        self.start()

    def command(self) -> Sequence[str | Path]:
        """smtp-sink with its options, and a backlog that fifty clients at once do not fill."""
        return [program("smtp-sink"), *self._arguments, f"inet:{HOST}:{self.port}", "1000"]

    def count(self) -> int:
        """How many letters it took: end of data seen, and answered unless refused."""
        with self.stdout.open("rb") as counters:
            size = counters.seek(0, os.SEEK_END)
            counters.seek(max(0, size - 200))
            last = counters.read().rpartition(b"mesg=")[2]
        digits = last.split(b"\r", 1)[0].strip()
        return int(digits) if digits.isdigit() else 0

    def wait(self, count: int, timeout: float = 30) -> bool:
        """Wait until `count` letters came. False when they did not within `timeout` seconds."""
        return wait_until(lambda: self.count() >= count, timeout)

    def letters(self) -> list[bytes]:
        """The dump files in the order of their names: for `dump="files"` one a letter, with LF line ends.

        Before the letter stand the sink's own lines: X-Client-Addr, X-Helo-Args, X-Mail-Args, X-Rcpt-Args.
        """
        return [path.read_bytes() for path in sorted(self.dumped.iterdir())]


@dataclass(frozen=True)
class Run:
    """How a run of smtp-source went: wall-clock seconds, exit status (None: timed out), its complaints."""

    seconds: float
    status: int | None
    stderr: str


def smtp_source(
    port: int,
    *,
    sessions: int = 1,
    messages: int = 1,
    length: int | None = 1024,
    persistent: bool = False,
    sender: str = "sender@far.test",
    recipient: str = "rcpt@postfix.test",
    timeout: float = 60,
    arguments: Sequence[str] = (),
) -> Run:
    """Send `messages` letters of about `length` bytes in `sessions` sessions at once, and wait for the end.

    With `length=None` the `arguments` say which letter (`-F FILE`, LF line ends). One session a letter unless
    `persistent`. The status is 0 only if every letter was answered 2xx.
    """
    command = [
        program("smtp-source"),
        "-s",
        str(sessions),
        "-m",
        str(messages),
        *([] if length is None else ["-l", str(length)]),
        "-f",
        sender,
        "-t",
        recipient,
        "-M",
        "source.test",
        *(["-d"] if persistent else []),
        *arguments,
        f"inet:{HOST}:{port}",
    ]
    began = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        return Run(time.monotonic() - began, None, (late.stderr or b"").decode(errors="replace"))
    return Run(time.monotonic() - began, done.returncode, done.stderr.decode(errors="replace"))


class Postoffice(Peer):
    """Our server as a process: `python -m postoffice.commands.postoffice -C FILE -bD` in `directory`.

    `lines` is the configuration; its first `listen=127.0.0.1:PORT` says where it answers. Ready when a line
    logged since this start has the word `ready` and the port greets. `log()` is standard error and, when a
    `log=` line names a file, that file. Root starts it as `user`, who then owns the directory.
    """

    def __init__(
        self,
        lines: Iterable[str],
        directory: Path,
        python: str = sys.executable,
        *,
        user: str | None = NOBODY,
    ) -> None:
        self._lines = list(lines)
        listen = [line.partition("=")[2].strip() for line in self._lines if line.startswith("listen=")]
        if not listen:
            raise PeerError("the configuration has no line listen=127.0.0.1:PORT")
        super().__init__(passable(directory), int(listen[0].rpartition(":")[2]))
        self.user = user if os.geteuid() == 0 else None
        self.python, self._path = interpreter(python, self.user)
        if self.user is not None and not _reachable(PACKAGE / "postoffice", self.user):
            raise PeerError(f"{self.user} may not pass to {PACKAGE}")
        self.config = self.directory / "postoffice.cf"
        self.config.write_text("".join(f"{line}\n" for line in self._lines))
        self._logs = [
            self.stderr,
            *(
                self.directory / value
                for line in self._lines
                if line.startswith("log=")
                if "/" in (value := line.removeprefix("log=").removeprefix("json:").strip())
            ),
        ]
        self.own()
        self._seen = 0
        self.start()

    def command(self) -> Sequence[str | Path]:
        """The foreground daemon."""
        return [self.python, "-m", "postoffice.commands.postoffice", "-C", self.config, "-bD"]

    def environment(self) -> Mapping[str, str]:
        """The source tree, and the libraries of the interpreter asked for."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT), *self._path]),
            "HOME": str(self.directory),
        }

    def start(self) -> None:
        """As for every peer, from what is logged from here on."""
        self._seen = len(self.log())
        super().start()

    def ready(self) -> bool:
        """Logged `ready`, and greets."""
        return "ready" in self.log()[self._seen :] and greets(self.port)

    def log(self) -> str:
        """Standard error, then the log file."""
        return "".join(_text(path) for path in self._logs)


def service_user() -> str | None:
    """The account for a server that needs no privileges: ours, unless we are root."""
    return NOBODY if os.geteuid() == 0 else None


def interpreter(python: str, user: str | None) -> tuple[str, list[str]]:
    """An interpreter that `user` may execute, and what it needs on its path: `python` itself if possible.

    A virtual environment below a home directory is closed to everybody else; the system's Python of the
    same version can then run with the libraries of the environment.
    """
    if user is None or _reachable(Path(python), user):
        return python, []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = Path("/usr/bin") / version
    if python == sys.executable and system.exists():
        return str(system), [sysconfig.get_path("purelib")]
    raise PeerError(f"{user} may not execute {python}, and there is no {system}")


def _reachable(program: Path, user: str) -> bool:
    """May `user` execute the program, the links on the way to it included?"""
    uid = pwd.getpwnam(user).pw_uid
    for part in {program.resolve(), *program.resolve().parents, *program.absolute().parents}:
        info = part.stat()
        if not info.st_mode & (0o100 if info.st_uid == uid else 0o001):
            return False
    return True


def tree_cpu(pid: int) -> float:
    """CPU seconds, user and system, that a process and all its descendants have used so far.

    Children that ended count through their parent, which waited for them (cutime and cstime). The kernel
    rounds these figures down to 1/100 s a process; for living ones its scheduler's nanoseconds are used.
    A child whose parent died before it is lost.
    """
    family = descendants(pid)
    for _ in range(5):
        seconds = sum(_seconds(member) for member in family)
        # A child that ends between two looks would be counted twice or not at all: look again.
        if (now := descendants(pid)) == family:
            break
        family = now
    return seconds


def descendants(pid: int) -> dict[int, int]:
    """The process and everything below it: process id to start time in clock ticks since boot."""
    table = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name)))}
    members = {pid} & table.keys()
    while below := {child for child, stat in table.items() if stat[1] in members} - members:
        members |= below
    return {member: table[member][19] for member in members}


def alive(family: Mapping[int, int]) -> list[int]:
    """Which of these processes still run. One that waits for its parent to notice its end does not."""
    return [pid for pid, began in family.items() if (stat := _stat(pid)) and stat[0] and stat[19] == began]


def _stat(pid: int) -> list[int]:
    """/proc/PID/stat from the state on; the state is 0 for a zombie, else 1. Empty: no such process."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [0 if state in "ZX" else 1, *map(int, fields)]


def _seconds(pid: int) -> float:
    stat = _stat(pid)
    if not stat:
        return 0.0
    running = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            running += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return max((stat[11] + stat[12]) / _TICKS, running / 1e9) + (stat[13] + stat[14]) / _TICKS


def _finish(family: Mapping[int, int], grace: float) -> None:
    """Wait `grace` seconds until the processes of a family are gone, then SIGKILL what is left."""
    deadline = time.monotonic() + grace
    while left := alive(family):
        if time.monotonic() >= deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Ask every 5 ms until `condition` holds. False when it did not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def passable(path: Path) -> Path:
    """Make sure the directory is there, and that the accounts peers change to can pass through it."""
    path = path.resolve()
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(path.stat().st_mode | 0o755)
    return path


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
