"""A machine whose first process is Debian's systemd: a container over the files of this machine.

In namespaces of its own (processes, mounts, network, host name, control groups) and over a file system
whose changes are kept in memory and are gone with it. None of this machine's own services is enabled there,
and what is the kernel's own is out of its reach: `/proc/sys` and `/sys` are read-only, and it has none of
the capabilities that change the clock, load modules or boot. Needs root, and a kernel with overlayfs and
cgroup2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.peers.peer import Peer, PeerError, passable, wait_until
from tests.support import need_root, program

SYSTEMD = "/lib/systemd/systemd"

_KEPT_AWAY = "-sys_module,-sys_time,-sys_rawio,-sys_boot,-syslog,-mac_admin,-mac_override,-wake_alarm"

_CLEAN = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")

# The control group is made where all of them are seen, and left to whoever stops the machine.
_OUTSIDE = """
set -e
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$1"
mkdir "$1/$2"
echo 0 > "$1/$2/cgroup.procs"
umount "$1"
shift 2
exec "$@"
"""

_INSIDE = """
set -e
top=$1 libraries=$2 setup=$3
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
root=$top/root
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" overlay "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,mode=620,gid=5,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for name in run tmp; do
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/$name"
done
chmod 755 "$root/run"
mkdir "$root/opt/libraries"
mount --bind "$libraries" "$root/opt/libraries"
mount -o remount,bind,ro "$root/opt/libraries"
rm -rf "$root"/etc/systemd/system/* "$root"/etc/rc?.d/* "$root/var/log/journal"
: > "$root/etc/machine-id"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
sh -e "$setup" "$root"
cd "$root"
mkdir old
pivot_root . old
umount -l old
rmdir old
exec env -i container=test "PATH=$PATH" "$4" --unit=multi-user.target --log-target=journal --show-status=no
"""

_AFTERWARDS = """
set -e
mount -t cgroup2 cgroup2 "$1"
cd "$1"
[ ! -d "$2" ] || find "$2" -depth -type d -delete
"""


class Machine(Peer):
    """Ready when everything that starts with it has started. `name` is that of its control group.

    `setup` is a shell script that is run before that, with the root of its files as the only argument. The
    libraries of the interpreter of the tests are in `/opt/libraries` there.
    """

    patience = 60.0

    def __init__(self, directory: Path, setup: str) -> None:
        need_root()
        if not os.path.exists(SYSTEMD):
            program("systemctl")
        super().__init__(passable(directory), 0)
        self.name = f"postoffice-test-{os.getpid()}-{os.urandom(4).hex()}"
        self.setup = self.directory / "setup"
        self.setup.write_text(setup)
        self.start()

    def command(self) -> Sequence[str | Path]:
        """The first process, behind those that make the place for it."""
        for name in ("top", "groups"):
            (self.directory / name).mkdir(exist_ok=True)
        unshare, mount = program("unshare"), "--mount"
        namespaces = [mount, "--cgroup", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]
        return [
            *(unshare, mount, "sh", "-c", _OUTSIDE, "sh", self.directory / "groups", self.name),
            *(program("setpriv"), f"--bounding-set={_KEPT_AWAY}", unshare, *namespaces),
            *("sh", "-c", _INSIDE, "sh", self.directory / "top", sysconfig.get_path("purelib")),
            *(self.setup, SYSTEMD),
        ]

    def enter(self, *command: str | Path) -> list[str | Path]:
        """The words that run a command on this machine."""
        try:
            (first,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            # Before that, what is seen there is still this machine.
            up = Path(f"/proc/{first}/comm").read_text() == "systemd\n"
        except (OSError, ValueError):
            up = False
        if not up:
            raise PeerError(f"the machine is not up:\n{self.log()[-4000:]}")
        return [program("nsenter"), "--target", first, "--all", "--", "env", "-i", *_CLEAN, *command]

    def run(
        self, *command: str | Path, data: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of root's there; how it ended, with its two outputs as one."""
        return subprocess.run(
            self.enter(*command),
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ready(self) -> bool:
        """The files of before are out of reach, and systemd has nothing left to start."""
        try:
            up = self.run("systemctl", "is-system-running").stdout.strip()
        except PeerError:
            return False
        return up in ("running", "degraded")

    def _end(self, how: signal.Signals, timeout: float) -> int | None:
        """All its processes end at once, with all that was mounted; the control group goes, too."""
        status = super()._end(signal.SIGKILL, timeout)
        with tempfile.TemporaryDirectory() as place:
            words = [program("unshare"), "--mount", "sh", "-c", _AFTERWARDS, "sh", place, self.name]
            gone = wait_until(lambda: subprocess.run(words, capture_output=True).returncode == 0, timeout)
        if not gone:
            raise PeerError(f"the control group {self.name} is still in use")
        return status
