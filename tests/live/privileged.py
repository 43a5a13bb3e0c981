"""An office that root started, in namespaces with a network, accounts, homes and mailboxes of its own.

The network is a loopback device that the tests are on, too, and nobody else. `/etc`, `/home` and `/var/mail`
are other ones for the service and whatever it starts; the tests see them in the directory of the office, as
`etc`, `homes` and `varmail`. Debian's own tools make the accounts there: `ann`, also in the group `extra`,
and `bob`, who have homes, and `postie`, whom the service runs as. The machine's accounts, such as `daemon`
below min-uid, are there as well, in a copy.
"""

from __future__ import annotations

import os
import smtplib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.live.office import DOMAIN, OfficeCase, furnish, run, settings
from tests.live.raw import Elsewhere
from tests.peers import HOST, Postoffice, passable
from tests.support import need, need_root, program

ANN, BOB, POSTIE, EXTRA = 58001, 58002, 58003, 58101
MAIL = 8
NOBODY = 65534

LETTER = b"Subject: for users\r\n\r\nFrom here on\r\n"

_ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1/etc" /etc
mount --bind "$1/homes" /home
mount --bind "$1/varmail" /var/mail
[ -z "$2" ] || mount -t tmpfs -o "size=$2,mode=2775,gid=8" tmpfs /var/mail
shift 2
exec "$@"
"""

# What a log-in left behind (lastlog) is the machine's, and is not touched.
_ACCOUNTS = f"""
set -e
groupadd --gid {EXTRA} extra
useradd --no-log-init --create-home --uid {ANN} --groups extra ann
useradd --no-log-init --create-home --uid {BOB} bob
useradd --no-log-init --no-create-home --uid {POSTIE} postie
"""


def enter(directory: Path, *command: str | Path, room: str = "") -> list[str | Path]:
    """The words that run a command in the mounts of an office; `room` is the size of a disk for mboxes."""
    return [program("unshare"), "--mount", "sh", "-c", _ENTER, "sh", directory, room, *command]


class PrivilegedOffice(Postoffice):
    """Started by root; it gives root up by itself. With `room`, mboxes lie on a disk of that size."""

    room = ""

    def command(self) -> Sequence[str | Path]:
        return enter(self.directory, *super().command(), room=self.room)


_LISTEN = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(sys.argv[1] + ".new")
os.chmod(sys.argv[1] + ".new", 0o666)
listening.listen()
os.rename(sys.argv[1] + ".new", sys.argv[1])
os.set_inheritable(os.dup2(listening.fileno(), 3), True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
module = "postoffice.commands.postoffice"
os.execv(sys.executable, [sys.executable, "-m", module, "-C", sys.argv[2], "helper"])
"""

_BESIDE = """
"$1" -c "$2" "$3" "$4" &
shift 4
exec setpriv --reuid postie --regid postie --clear-groups "$@"
"""


class UnitOffice(PrivilegedOffice):
    """Not started by root, with a helper that was, as systemd would do it."""

    def command(self) -> Sequence[str | Path]:
        program("setpriv")
        for name in ("state/spool", "run"):
            place = self.directory / name
            place.mkdir(parents=True, exist_ok=True)
            os.chown(place, POSTIE, POSTIE)
        whole = list(super().command())
        at = whole.index(self.python)
        beside = ["sh", "-c", _BESIDE, "sh", self.python, _LISTEN, self.directory / "helper", self.config]
        return [*whole[:at], *beside, *whole[at:]]

    def ready(self) -> bool:
        """The helper listens, too."""
        return (self.directory / "helper").exists() and super().ready()

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "POSTOFFICE_HELPER": f"{self.directory}/helper"}


class PrivilegedCase(OfficeCase):
    """`directory / "office"` holds `etc`, `homes`, `varmail` and what every office has."""

    def setUp(self) -> None:
        need_root()
        need("unshare", "useradd")
        network = Elsewhere()
        self.addCleanup(network.stop)
        super().setUp()
        self.place = passable(self.directory / "office")
        self.mail = self.place / "varmail"
        self.mail.mkdir()
        os.chown(self.mail, 0, MAIL)
        self.mail.chmod(0o2775)
        subprocess.run(["cp", "-a", "/etc", self.place], check=True)
        (self.place / "homes").mkdir(mode=0o755)
        self.run_inside("sh", "-c", _ACCOUNTS)

    def run_inside(self, *command: str, text: str = "") -> None:
        """Run a command of root's where the service sees its `/etc`, `/home` and `/var/mail`."""
        done = subprocess.run(
            enter(self.place, *command), input=text, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def write(self, name: str, text: str, owner: int = 0, mode: int = 0o644) -> None:
        """A file in the office."""
        path = self.place / name
        path.write_text(text)
        os.chown(path, owner, owner)
        path.chmod(mode)

    def started(self, *lines: str, office: type[Postoffice] = PrivilegedOffice) -> Postoffice:
        """The office, running."""
        furnish(self.place)
        virtual = self.place / "mail"
        os.chown(virtual, MAIL, MAIL)
        kept = [
            line
            for line in settings(self.place)
            if not line.startswith(("mailbox=", "spool=", "control=")) or "mailbox=mbox" in line
        ]
        own = [
            "mailbox=mbox:/var/mail",
            f"spool={self.place}/state/spool",
            f"control={self.place}/run/control",
            "user=postie",
            "vuser=mail",
        ]
        running = office([*kept, *own, *lines], self.place, user=None)
        self.addCleanup(running.stop)
        return running

    def send(self, office: Postoffice, *recipients: str, letter: bytes = LETTER) -> None:
        """Hand a letter in."""
        with smtplib.SMTP(HOST, office.port, timeout=30) as client:
            self.assertEqual(client.sendmail(f"alice@{DOMAIN}", recipients, letter), {})

    def nothing_waits(self, office: Postoffice) -> None:
        """Wait until the queue is empty."""
        self.eventually("the queue is empty", lambda: self.queue(office) == "", office)

    def queue(self, office: Postoffice) -> str:
        """What `mailq` lists, empty where that is nothing."""
        listed = run(office, command="mailq").stdout.decode()
        return "" if listed == "Mail queue is empty.\n" else listed

    def owned(self, path: Path) -> tuple[int, int, int]:
        """Owner, group and mode of a file."""
        status = path.lstat()
        return status.st_uid, status.st_gid, status.st_mode & 0o7777
