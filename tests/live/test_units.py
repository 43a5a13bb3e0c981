"""The units of `contrib/systemd` on a machine that systemd started, installed as `docs/operating.md` says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.live.office import OfficeCase
from tests.live.test_packaging import build, interpreter
from tests.peers import wait_until
from tests.peers.machine import Machine
from tests.support import CHECKOUT, need, need_root

UNITS = ("postoffice.service", "postoffice-helper.service", "postoffice-helper.socket")

# The libraries are there already; all else is done as an administrator would.
_SETUP = """
root=$1
rm -rf "$root/etc/virtual" "$root/var/spool/postoffice" "$root/var/spool/virtual"
cp {place}/wheels/*.whl "$root/root/"
cp {checkout}/contrib/systemd/* "$root/etc/systemd/system/"
chroot "$root" sh -e <<'END'
{python} -m venv --without-pip /opt/postoffice
echo /opt/libraries > "$(echo /opt/postoffice/lib/python3*/site-packages)/libraries.pth"
/opt/postoffice/bin/python -m pip install --quiet --no-index --no-deps --ignore-installed /root/*.whl
for name in postoffice mailq vpasswd valias; do ln -s "/opt/postoffice/bin/$name" /usr/local/bin/; done
{installing}
useradd --no-log-init --create-home ann
useradd --no-log-init --create-home tim
printf 'hostname=mail.here.test\\nload=0\\n' > /etc/postoffice.cf
: > /etc/aliases
END
"""


def printed(heading: str, *first: str) -> list[str]:
    """The commands below a heading of the manual that begin with one of these words."""
    text = (CHECKOUT / "docs/operating.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    commands = [line.strip() for line in part.splitlines() if line.startswith("    ")]
    return [command for command in commands if command.split()[0] in first]


AS_TIM = ("setpriv", "--reuid", "tim", "--regid", "tim", "--init-groups")
AS_ANN = ("setpriv", "--reuid", "ann", "--regid", "ann", "--init-groups")

_ARRIVED = 'postoffice -bq; grep -q "^Subject: $1$" /var/mail/ann'

# Asked at once, since between two questions a unit goes from active to restarting.
_ANOTHER = """
state=$(systemctl show --property ActiveState,MainPID "$1")
echo "$state" | grep -qx ActiveState=active && ! echo "$state" | grep -qx -e "MainPID=$2" -e MainPID=0
"""


class Units(OfficeCase):
    def setUp(self) -> None:
        need_root()
        need("useradd", "swaks", "systemctl")
        super().setUp()
        build(self.directory)
        installing = "\n".join(printed("Installing", "useradd", "install"))
        setup = _SETUP.format(
            place=self.directory, checkout=CHECKOUT, python=interpreter(), installing=installing
        )
        self.machine = Machine(self.directory / "machine", setup)
        self.addCleanup(self.machine.stop)

    def does(self, *command: str | Path) -> str:
        """What a command on the machine prints; it must succeed."""
        done = self.machine.run(*command)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}")
        return done.stdout

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.does("systemctl", "show", "--value", "--property", name, unit).strip()

    def until(self, what: str, *command: str) -> None:
        """Fail unless the command succeeds within a while."""
        if not wait_until(lambda: self.machine.run(*command).returncode == 0, 20):
            self.fail(f"{what}: not within 20 s\n{self.journal()[-4000:]}")

    def journal(self) -> str:
        self.does("journalctl", "--sync")
        return self.does("journalctl", "--no-pager", "--boot")

    def send(self, subject: str) -> None:
        """A letter of ann's to herself is in her mailbox."""
        letter = ("--from", "ann@mail.here.test", "--to", "ann@mail.here.test", "--h-Subject", subject)
        self.does("swaks", "--server", "127.0.0.1", *letter)
        self.until(f"the letter {subject}", "sh", "-c", _ARRIVED, "sh", subject)

    def start(self) -> None:
        """Both run from now on, and again when the machine starts."""
        for command in printed("Under systemd", "systemctl"):
            self.does(*command.split())

    def is_another(self, unit: str, before: str) -> None:
        """The unit is up, with another process than before."""
        self.until(f"another {unit}", "sh", "-c", _ANOTHER, "sh", unit, before)

    def test_mail_of_the_machines_users(self) -> None:
        self.assertEqual(self.does("systemd-analyze", "verify", *UNITS), "")
        lines = 'ann\n/home/ann/log\n"|id > ~/said; grep -e ^CapPrm -e ^NoNew /proc/self/status >> ~/said"\n'
        self.does("sh", "-c", f"printf '{lines}' > /home/ann/.forward; chown ann: /home/ann/.forward")
        self.start()
        self.assertEqual(self.shows("postoffice.service", "Type"), "notify")
        states = [self.shows(unit, "ActiveState") for unit in UNITS]
        self.assertEqual(states, ["active", "inactive", "active"])
        self.send("first")
        self.assertEqual(self.shows("postoffice-helper.service", "ActiveState"), "active")
        self.does("sh", "-c", 'echo "Subject: second" | "$@"', "sh", *AS_ANN, "postoffice", "-bm", "ann")
        self.until("the letter second", "sh", "-c", _ARRIVED, "sh", "second")
        self.until("the queue is empty", "sh", "-c", "mailq | grep -q empty")
        self.assertIn("empty", self.does(*AS_ANN, "mailq"))
        self.assertEqual(self.does("stat", "-c", "%U:%G %a", "/var/mail/ann").strip(), "ann:mail 660")
        self.assertEqual(self.does("grep", "-c", "^Subject: ", "/home/ann/log").strip(), "2")
        who, *status = self.does("cat", "/home/ann/said").splitlines()
        self.assertRegex(who, r"uid=\d+\(ann\) gid=\d+\(ann\) groups=\d+\(ann\)$")
        self.assertIn("CapPrm:\t0000000000000000", status)
        self.assertIn("NoNewPrivs:\t1", status)
        self.does("journalctl", "--sync")
        lines_there = map(json.loads, self.does("journalctl", "-o", "json", "-u", "postoffice").splitlines())
        said = {line["MESSAGE"]: line["PRIORITY"] for line in lines_there}
        # As notice and without a time: the journal has both.
        self.assertEqual(said.get("ready, listening on 0.0.0.0:25, [::]:25"), "5")

    def test_a_virtual_domain(self) -> None:
        """It is made while the service runs; its owner adds a user, who logs in and gets mail."""
        self.start()
        for command in printed("Virtual domains", "echo", "install"):
            self.does("sh", "-c", command)
        added = self.machine.run(*AS_TIM, "vpasswd", "-a", "--stdin", "ann@example.org", data="a secret\n")
        self.assertEqual((added.returncode, added.stdout), (0, ""))
        self.does(*AS_TIM, "valias", "info@example.org", "ann")
        ann = ("--from", "ann@example.org", "--to", "info@example.org")
        log_in = ("--auth", "PLAIN", "--auth-user", "ann@example.org", "--auth-password", "a secret")
        self.assertIn(" 235 2.7.0 ", self.does("swaks", "--server", "127.0.0.1", *log_in, *ann))
        box = "/var/spool/virtual/example.org/ann"
        self.until("ann has the letter", "grep", "-q", "^Delivered-To: ann@example.org$", box)
        self.assertEqual(self.does("stat", "-c", "%U:%G %a", box).strip(), "mail:mail 600")
        self.assertEqual(self.does("stat", "-c", "%U:%G %a", "/etc/virtual").strip(), "root:root 755")

    def test_users_of_the_machine_log_in(self) -> None:
        self.does("sh", "-c", "echo ann:correct-horse | chpasswd")
        for source in ("passwd", "pam"):
            self.does("sh", "-c", f"echo auth={source} >> /etc/postoffice.cf")
            self.does("systemctl", "restart", "postoffice.service")
            for password, code in (("correct-horse", "235"), ("battery-staple", "535")):
                words = ("--auth", "PLAIN", "--auth-user", "ann", "--auth-password", password)
                done = self.machine.run("swaks", "--server", "127.0.0.1", "--quit-after", "AUTH", *words)
                self.assertRegex(done.stdout, rf"(?m)^<..? {code} ", source)
        self.assertNotIn("correct-horse", self.journal())

    def test_what_they_may_write_to(self) -> None:
        self.start()
        self.send("first")
        both = {"/tmp", "/var/tmp", "/var/spool/virtual"}
        service = {"/etc/virtual", "/run/postoffice", "/var/log/postoffice", "/var/spool/postoffice"}
        helper = {"/home", "/var/mail"}
        for unit, writable in (("postoffice", both | service), ("postoffice-helper", both | helper)):
            process = self.shows(f"{unit}.service", "MainPID")
            mounts = self.does("nsenter", "--target", process, "--mount", "findmnt", "-rno", "TARGET,OPTIONS")
            # What is mounted last at a place is what is seen there.
            places = dict(line.split() for line in mounts.splitlines())
            found = {place for place, options in places.items() if "rw" in options.split(",")}
            # Those are the kernel's own, and their modes say who may do what.
            self.assertEqual({place for place in found if not place.startswith(("/dev", "/proc"))}, writable)
            judged = self.does("systemd-analyze", "security", "--no-pager", f"{unit}.service")
            exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", judged)
            assert exposure is not None, judged
            self.assertLess(float(exposure[1]), 2.5)

    def test_reload_and_restart(self) -> None:
        self.start()
        service = self.shows("postoffice.service", "MainPID")
        self.does("sh", "-c", "echo size=5000 >> /etc/postoffice.cf")
        self.does("systemctl", "reload", "postoffice.service")
        ehlo = "swaks --server 127.0.0.1 --quit-after EHLO | grep -q 'SIZE 5000$'"
        self.until("the new size", "sh", "-c", ehlo)
        self.assertEqual(self.shows("postoffice.service", "MainPID"), service)
        self.send("first")
        helper = self.shows("postoffice-helper.service", "MainPID")
        for unit, before in (("postoffice.service", service), ("postoffice-helper.service", helper)):
            self.does("systemctl", "restart", unit)
            self.is_another(unit, before)
            self.send(f"behind-{unit}")
        self.does("systemctl", "stop", "postoffice.service", "postoffice-helper.socket")
        self.assertIn("stopped; longest stall", self.journal())
        results = [self.shows(unit, "Result") for unit in UNITS]
        self.assertEqual(results, ["success"] * 3)

    def test_what_is_killed_comes_back(self) -> None:
        self.start()
        self.send("first")
        service, helper = (self.shows(unit, "MainPID") for unit in UNITS[:2])
        self.does("kill", "-9", service)
        self.is_another("postoffice.service", service)
        self.send("second")
        # More often than systemd lets units start within ten seconds, if they do not say otherwise.
        for _ in range(6):
            self.does("kill", "-9", helper)
            self.is_another("postoffice-helper.service", helper)
            helper = self.shows("postoffice-helper.service", "MainPID")
        self.send("third")
        self.assertIn("the helper closed the connection", self.journal())
