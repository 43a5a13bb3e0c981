"""Mail of the machine's users, by a service that root started: who writes what, and as whom."""

from __future__ import annotations

import mailbox
import os
import signal
import smtplib
import socket
from pathlib import Path

from tests.live.office import DOMAIN, NAME, run
from tests.live.privileged import (
    ANN,
    BOB,
    EXTRA,
    MAIL,
    NOBODY,
    POSTIE,
    PrivilegedCase,
    PrivilegedOffice,
    UnitOffice,
)
from tests.live.raw import Wire
from tests.live.test_login import plain
from tests.peers import HOST, Postoffice


def status_of(process: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children_of(process: int) -> list[int]:
    """The processes it started."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


class Mailboxes(PrivilegedCase):
    def test_mboxes_belong_to_the_users(self) -> None:
        office = self.started()
        self.send(office, "ann", f"bob@{NAME}", f"bob@{DOMAIN}")
        self.nothing_waits(office)
        self.assertEqual(self.owned(self.mail / "ann"), (ANN, MAIL, 0o660))
        self.assertEqual(self.owned(self.mail / "bob"), (BOB, MAIL, 0o660))
        self.assertEqual(sorted(os.listdir(self.mail)), ["ann", "bob"])
        box = mailbox.mbox(self.mail / "ann")
        self.addCleanup(box.close)
        self.assertEqual([message["delivered-to"] for message in box], ["ann"])
        self.assertEqual(self.owned(self.place / "mail" / DOMAIN / "bob" / "new")[:2], (MAIL, MAIL))

    def test_the_network_is_no_one_elses(self) -> None:
        office = self.started()
        assert office.process is not None
        inside = os.readlink(f"/proc/{office.process.pid}/ns/net")
        self.assertEqual(os.readlink("/proc/thread-self/ns/net"), inside)
        self.assertEqual([name for _, name in socket.if_nameindex()], ["lo"])

    def test_D2_the_service_is_never_root(self) -> None:
        office = self.started()
        self.send(office, "ann")
        self.nothing_waits(office)
        assert office.process is not None
        status = status_of(office.process.pid)
        self.assertEqual(set(status["Uid"].split()), {str(POSTIE)})
        self.assertEqual(set(status["Gid"].split()), {str(POSTIE)})
        self.assertEqual(status["Groups"].split(), [str(POSTIE)])
        self.assertEqual(status["CapEff"], "0" * 16)

    def test_maildirs_in_homes(self) -> None:
        office = self.started("mailbox=maildir:~/Maildir")
        for _ in range(5):
            self.send(office, "ann")
        self.nothing_waits(office)
        box = self.place / "homes/ann/Maildir"
        self.assertEqual(self.owned(box), (ANN, ANN, 0o700))
        letters = list((box / "new").iterdir())
        self.assertEqual([self.owned(letter) for letter in letters], [(ANN, ANN, 0o600)] * 5)

    def test_the_mail_of_root_and_of_accounts_below_min_uid(self) -> None:
        office = self.started()
        self.send(office, "root", "daemon")
        self.nothing_waits(office)
        self.assertEqual(os.listdir(self.mail), ["mail"])
        self.assertEqual(self.owned(self.mail / "mail"), (MAIL, MAIL, 0o660))

    def test_a_folder_that_nobody_may_write_to(self) -> None:
        self.mail.chmod(0o755)
        office = self.started()
        self.send(office, "ann")
        self.eventually("the queue says why", lambda: "Permission denied" in self.queue(office), office)
        self.write("varmail/ann", "", ANN, 0o600)
        self.assertEqual(run(office, "-bq").returncode, 0)
        self.nothing_waits(office)
        self.assertEqual(self.owned(self.mail / "ann"), (ANN, ANN, 0o600))


class Spam(PrivilegedCase):
    """What the AV command, who is nobody, says of a letter, and the folders its copies go to."""

    def marked(self, folder: str) -> None:
        """A service that puts all letters there has taken one for ann and for bob of the virtual domain."""
        open_place = self.place / "open"
        open_place.mkdir()
        open_place.chmod(0o777)
        said = open_place / "said"
        av = f'av="|id -un > {said}; id -Gn >> {said}; echo looks odd; exit 1"'
        office = self.started(f"spam=folder:{folder}", av)
        self.send(office, "ann", f"bob@{DOMAIN}")
        self.nothing_waits(office)
        self.assertEqual(said.read_text(), "nobody\nnogroup\n")
        # Users of virtual domains have no folders.
        (letter,) = (self.place / "mail" / DOMAIN / "bob" / "new").iterdir()
        self.assertIn(b"\nX-Spam: looks odd\n", letter.read_bytes())

    def test_beside_the_mailbox(self) -> None:
        self.marked("spam")
        self.assertEqual(os.listdir(self.mail), ["ann:spam"])
        self.assertEqual(self.owned(self.mail / "ann:spam"), (ANN, MAIL, 0o660))
        self.assertIn(b"\nX-Spam: looks odd\n", (self.mail / "ann:spam").read_bytes())

    def test_in_the_home(self) -> None:
        self.marked("~/mail/spam")
        self.assertEqual(os.listdir(self.mail), [])
        place = self.place / "homes/ann/mail/spam"
        self.assertEqual(self.owned(place), (ANN, ANN, 0o600))
        self.assertIn(b"\nX-Spam: looks odd\n", place.read_bytes())

    def test_D3_no_mailbox_of_others_is_made(self) -> None:
        (self.place / "homes/ann/mail").symlink_to("/var/mail")
        office = self.started("spam=folder:~/mail/bob", 'av="|exit 1"')
        self.send(office, "ann")
        self.eventually("the queue says why", lambda: "Permission denied" in self.queue(office), office)
        self.assertEqual(os.listdir(self.mail), [])


class Units(PrivilegedCase):
    """The helper is a unit of its own, and the service has never been root."""

    def test_mail_of_users(self) -> None:
        self.write("homes/ann/.forward", "ann\n|exit 0\n", ANN)
        office = self.started(office=UnitOffice)
        self.send(office, "ann", f"bob@{DOMAIN}")
        self.nothing_waits(office)
        self.assertEqual(self.owned(self.mail / "ann"), (ANN, MAIL, 0o660))
        self.assertEqual(self.owned(self.place / "mail" / DOMAIN / "bob")[:2], (MAIL, MAIL))

    def test_D2_nobody_else_is_served(self) -> None:
        self.started(office=UnitOffice)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.settimeout(20)
            stranger.connect(f"{self.place}/helper")
            self.assertEqual(stranger.recv(100), b"")


class SmallDisk(PrivilegedOffice):
    """Mboxes have little room."""

    room = "64k"


class FullDisk(PrivilegedCase):
    def test_D3_a_full_disk_leaves_the_mbox_as_it_was(self) -> None:
        office = self.started(office=SmallDisk)
        self.send(office, "ann")
        self.nothing_waits(office)
        assert office.process is not None
        path = Path(f"/proc/{office.process.pid}/root/var/mail/ann")
        before = path.read_bytes()
        self.send(office, "ann", letter=b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 1000)
        self.eventually("the queue says why", lambda: "No space left" in self.queue(office), office)
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(os.listdir(path.parent), ["ann"])
        self.send(office, "ann")
        self.eventually("a small one fits", lambda: len(path.read_bytes()) > len(before), office)


class Programs(PrivilegedCase):
    def test_every_kind_of_forward(self) -> None:
        home = self.place / "homes/ann"
        facts = "id; pwd; cat /proc/self/status; ls /proc/self/fd | wc -l"
        self.write("homes/ann/.forward", f'ann\nbob\n/home/ann/log\n"|({facts}) > ~/said"\n', ANN)
        office = self.started()
        self.send(office, "ann")
        self.nothing_waits(office)
        self.assertEqual(sorted(os.listdir(self.mail)), ["ann", "bob"])
        self.assertEqual(self.owned(home / "log"), (ANN, ANN, 0o600))
        self.assertEqual(self.owned(home / "said"), (ANN, ANN, 0o600))
        who, where, *status, files = (home / "said").read_text().splitlines()
        self.assertEqual(who, f"uid={ANN}(ann) gid={ANN}(ann) groups={ANN}(ann),{EXTRA}(extra)")
        self.assertEqual(where, "/home/ann")
        for line in ("NoNewPrivs:\t1", *(f"Cap{kind}:\t{'0' * 16}" for kind in ("Inh", "Prm", "Eff", "Amb"))):
            self.assertIn(line, status)
        # The three standard ones, and what `ls` opened.
        self.assertEqual(files, "4")

    def test_D3_no_mailbox_of_others_is_made(self) -> None:
        home = self.place / "homes/ann"
        (home / "link").symlink_to("/var/mail")
        lines = "/var/mail/ann\n/var/mail/bob\n/var/mail/bob:spam\n/var/mail/anna\n"
        self.write("homes/ann/.forward", f"{lines}/home/ann/link/bob\n/home/ann/log\n", ANN)
        office = self.started()
        self.send(office, "ann")
        self.eventually("the log says why", lambda: office.log().count("Permission denied") >= 4, office)
        self.eventually("the rest is there", lambda: (home / "log").exists(), office)
        self.eventually("her own is, too", lambda: os.listdir(self.mail) == ["ann"], office)
        self.send(office, "bob")
        self.eventually("bob has a mailbox", lambda: (self.mail / "bob").exists(), office)
        # It gets its mode when it has been made.
        self.eventually("it is his", lambda: self.owned(self.mail / "bob") == (BOB, MAIL, 0o660), office)

    def test_D4_a_forward_that_others_may_write_is_not_obeyed(self) -> None:
        self.write("homes/ann/.forward", "bob\n", ANN, 0o664)
        office = self.started()
        self.send(office, "ann")
        self.eventually("the log says why", lambda: "others may write to it" in office.log(), office)
        (self.place / "homes/ann/.forward").chmod(0o644)
        # What was found is kept for a second.
        self.eventually(
            "bob has the letter",
            lambda: run(office, "-bq").returncode == 0 and self.queue(office) == "",
            office,
        )
        self.assertEqual(os.listdir(self.mail), ["bob"])

    def test_aliases_of_the_system_act_as_nobody(self) -> None:
        place = self.place / "open"
        place.mkdir()
        place.chmod(0o777)
        self.write("aliases", f'all: {place}/log, "|id -un > {place}/said"\n')
        office = self.started()
        self.send(office, "all")
        self.nothing_waits(office)
        self.assertEqual((place / "said").read_text(), "nobody\n")
        self.assertEqual(self.owned(place / "log"), (NOBODY, NOBODY, 0o600))

    def test_the_av_command_is_nobody(self) -> None:
        office = self.started('av="|id -u; id -G; exit 1"')
        with smtplib.SMTP(HOST, office.port, timeout=60) as client:
            client.ehlo()
            client.docmd("MAIL", "FROM:<a@far.test>")
            client.docmd("RCPT", f"TO:<ann@{NAME}>")
            answer = client.data(b"Subject: s\r\n\r\ntext\r\n")
        self.assertEqual(answer, (550, f"5.7.1 {NOBODY} / {NOBODY}".encode()))


class Crashes(PrivilegedCase):
    def supervisor(self, office: Postoffice) -> int:
        """The process that keeps the helper running."""
        assert office.process is not None
        (found,) = children_of(office.process.pid)
        return found

    def test_a_helper_that_was_killed_is_back(self) -> None:
        office = self.started()
        supervisor = self.supervisor(office)
        self.eventually("there is a helper", lambda: children_of(supervisor), office)
        (helper,) = children_of(supervisor)
        self.assertEqual(status_of(helper)["Uid"].split()[0], "0")
        os.kill(helper, signal.SIGKILL)
        self.eventually("another one", lambda: children_of(supervisor) not in ([], [helper]), office)
        self.send(office, "ann")
        self.nothing_waits(office)
        self.eventually(
            "the log says so",
            lambda: "the helper ended (signal 9) and was started again" in office.log(),
            office,
        )

    def test_a_supervisor_that_was_killed(self) -> None:
        """The helper goes on; where it ends, too, nothing is lost, and a restart mends it."""
        office = self.started("auth=passwd")
        supervisor = self.supervisor(office)
        self.eventually("there is a helper", lambda: children_of(supervisor), office)
        (helper,) = children_of(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        said = "the supervisor of the helper has gone: nothing starts the helper again"
        self.eventually("the log says so", lambda: said in office.log(), office)
        self.send(office, "ann")
        self.nothing_waits(office)
        os.kill(helper, signal.SIGKILL)
        said = "the helper has gone: mail for users of this machine waits, and none of them can log in"
        self.eventually("the log says so, too", lambda: said in office.log(), office)
        # The processes that it made go on until they have nothing to do; bob has none yet.
        self.send(office, "bob")
        self.eventually("it waits", lambda: "451 4.3.0" in self.queue(office), office)
        said = "only a restart brings it back; mail for bob waits"
        self.eventually("the log says why", lambda: said in office.log(), office)
        self.assertEqual(os.listdir(self.mail), ["ann"])
        with Wire(office.port) as wire:
            wire.reply()
            self.assertEqual(wire.ask(plain("ann", "a password").rstrip())[:9], b"454 4.7.0")
        office.restart()
        self.assertEqual(run(office, "-bq").returncode, 0)
        self.nothing_waits(office)
        self.assertEqual(sorted(os.listdir(self.mail)), ["ann", "bob"])

    def test_all_end_with_the_service(self) -> None:
        office = self.started()
        supervisor = self.supervisor(office)
        self.eventually("there is a helper", lambda: children_of(supervisor), office)
        (helper,) = children_of(supervisor)
        office.kill()
        for process in (helper, supervisor):
            self.eventually("it ends", lambda number=process: not Path(f"/proc/{number}").exists(), office)
