"""Postfix, and the tools that come with it: smtp-sink takes letters, smtp-source sends them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import FailTest, SkipTest

from tests.peers.peer import HOST, NOBODY, Peer, free_port, passable, text_of, wait_until
from tests.support import in_ci, need, program


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
        return text_of(self.stderr) + text_of(self.directory / "mail.log")

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
tlsmgr   unix  - - n 1000? 1 tlsmgr
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
