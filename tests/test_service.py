"""The assembly: building it touches nothing. That it works is shown by `tests.live`."""

from __future__ import annotations

import os
import socket
import threading
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from twisted.application.service import IService
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.assembly import front
from postoffice.config.options import OPTIONS
from postoffice.config.settings import Settings
from postoffice.delivery.helper_process import HelperProcess
from postoffice.service import AT_START, Office, host_name, make_office, notify
from postoffice.services.journal import Journal
from postoffice.services.privileges import Account
from postoffice.services.sockets import Sockets
from postoffice.services.tls import Certificates
from tests.certificates import NAME, make_pair

ME = Account("me", os.getuid(), os.getgid(), "/")
# Another value for every option that may change while the service runs.
OTHERWISE = """
hostname=other.example.org
control-group=root
access=/other.allow,/other.deny
vspool=/other
banner=/etc/hostname
virtual=/
vmailbox=maildir:/other/%d/%u
localdomain=other.example
nameserver=192.0.2.53
clients=7
per-client=3
timeout=9
min-rate=5
errors=4
recipients=6
filter=/other,timeout=3,when=smtp
av=|/other
av-timeout=9
spam=accept
safe=1
size=12345
minfree=1m
hops=8
require-helo
lenient-order
auth=passwd
auth-plaintext
auth-any-sender
msp-auth
localmx
dnscheck
paranoid
checkhelo
verify-from=0
nodaemon
rate=5/1h
dnsbl=list.example
dnswl=welcome.example
load=3
forbidden=folder:other
bare-newline=reject
audit
debug
trusted=192.0.2.1
proxy=192.0.2.128/25
xclient=192.0.2.128/25
relay
escape-from=0
relay-host=[192.0.2.25]
remote-port=2525
immediate=0
queue-run=3m
retry=1m
qreturn=1d
mailq-all=0
aliases=/other/aliases
subaddress=-
usermap=*-~:~/.other,other
command-timeout=7m
expansion=5
mxpool
forward-all
greylist=0
delay=2h
greylist-from=1
greylist-net=24/64
greylist-keep=30d
greylist-null=3
greylist-max=5000
"""


def no_pam() -> None:
    raise LookupError("auth=pam needs PAM")


def facts(office: Office) -> set[str]:
    """Every plain value in the office's parts and in all that they know, as `Type.name = value`.

    What is only a start's is left out: places to listen at, what the journal writes to, the helper. So are
    certificates, which are not plain.
    """
    found: set[str] = set()
    seen: set[int] = set()

    def look(name: str, thing: object) -> None:
        if isinstance(thing, str | int | float | bool | bytes | None | frozenset | IPv4Network | IPv6Network):
            found.add(f"{name} = {thing!r}")
        elif isinstance(thing, tuple | list | dict):
            for value in thing.values() if isinstance(thing, dict) else thing:
                look(name, value)
        elif isinstance(thing, partial):
            look(name, (thing.args, thing.keywords))
        elif type(thing).__module__.startswith("postoffice.") and id(thing) not in seen:
            seen.add(id(thing))
            if not isinstance(thing, Journal | Sockets | Certificates | HelperProcess):
                for slot in (*getattr(type(thing), "__slots__", ()), *getattr(thing, "__dict__", ())):
                    if not slot.endswith("demands"):
                        look(f"{type(thing).__name__}.{slot}", getattr(thing, slot, None))

    look("host", office.host)
    look("parts", office.parts)
    look("doors", office.doors)
    return found


class Building(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)

    def settings(self, *lines: str) -> Settings:
        text = "\n".join(
            [
                "listen=127.0.0.1:0",
                f"spool={self.top}/spool",
                f"control={self.top}/control",
                f"virtual={self.top}",
                "hostname=mx.example.org",
                *lines,
            ]
        )
        return Settings.from_text(text, "test.cf", (), privileged=True)

    def office(self, *lines: str) -> Office:
        return make_office(self.settings(*lines), ME, MemoryReactorClock(), foreground=True)

    def test_only_objects_are_made(self) -> None:
        # What earlier tests left to the garbage collector may go meanwhile; nothing may be added.
        threads = set(threading.enumerate())
        descriptors = set(os.listdir("/proc/self/fd"))
        office = self.office(f"log={self.top}/log", f"log=json:{self.top}/log.json")
        self.assertTrue(IService.providedBy(office))
        self.assertEqual(set(threading.enumerate()) - threads, set())
        self.assertEqual(set(os.listdir("/proc/self/fd")) - descriptors, set())
        self.assertEqual(os.listdir(self.top), [])
        self.assertEqual(office.parts.reactor.getDelayedCalls(), [])
        self.assertEqual(office.parts.reactor.tcpServers, [])

    def test_a_port_that_is_taken_ends_the_start_with_one_line(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            office = self.office(f"listen=127.0.0.1:{port}", f"log={self.top}/log")
            ended = self.assertRaises(SystemExit, office.privilegedStartService)
        self.assertEqual(ended.code, os.EX_OSERR)
        with open(f"{self.top}/log") as log:
            self.assertIn(
                f"cannot start: cannot listen on 127.0.0.1:{port}: Address already in use", log.read()
            )

    def test_other_settings_make_it_what_a_start_with_them_would(self) -> None:
        lines = OTHERWISE.split()
        office, fresh = self.office(), self.office(*lines)
        self.assertNotEqual(facts(office), facts(fresh))
        office.reload(self.settings(*lines))
        self.assertEqual(facts(office), facts(fresh))

    def test_no_option_is_forgotten(self) -> None:
        """Every option is a start's, or another value for it stands in OTHERWISE."""
        tried = {line.partition("=")[0] for line in OTHERWISE.split()}
        known = tried | AT_START | {"log", "tls-cert", "tls-key"}
        self.assertEqual({option.name for option in OPTIONS if option.available} - known, set())

    def test_settings_that_cannot_be_taken_over_change_nothing(self) -> None:
        office, same = self.office(f"log={self.top}/log"), self.office(f"log={self.top}/log")
        office.parts.journal.open()
        # As where there is no PAM.
        self.patch(front, "load_pam", no_pam)
        for line in ("control-group=no-such", "log=/nonexistent/log", "auth=virtual,pam"):
            office.reload(self.settings("size=5", line))
            self.assertEqual(facts(office), facts(same))
            self.assertEqual(office.settings, same.settings)
        told = Path(self.top, "log").read_text()
        self.assertEqual(told.count(" error the configuration was not taken over"), 3)
        self.assertIn("in force: test.cf:7: auth: auth=pam needs PAM\n", told)
        self.assertIn("in force: test.cf:7: control-group: there is no group 'no-such'; name one", told)
        office.parts.journal.stop()

    def test_a_certificate_that_is_unfit_ends_the_start_and_names_the_file(self) -> None:
        pair = make_pair(Path(self.top), NAME)
        lines = (f"tls-cert={pair.certificate}", f"tls-key={pair.certificate}", f"log={self.top}/log")
        office = self.office(*lines)
        ended = self.assertRaises(SystemExit, office.privilegedStartService)
        self.assertEqual(ended.code, os.EX_CONFIG)
        told = Path(self.top, "log").read_text()
        self.assertIn(
            f"cannot start: test.cf:6: tls-cert: {pair.certificate}: this is not a private key in PEM form",
            told,
        )
        office.parts.journal.stop()

    def test_certificates_come_and_go_with_the_settings(self) -> None:
        pair, other = make_pair(Path(self.top), NAME), make_pair(Path(self.top), "other.example.org")
        office = self.office(f"log={self.top}/log")
        office.parts.journal.open()
        self.assertFalse(office.parts.certificates.offered)
        with_tls = (f"log={self.top}/log", f"tls-cert={pair.certificate}", f"tls-key={pair.key}")
        office.reload(self.settings(*with_tls))
        self.assertTrue(office.parts.certificates.offered)
        office.reload(self.settings("size=5", *with_tls, f"tls-cert={other.certificate}", "tls-key=/nowhere"))
        self.assertEqual(office.settings.size, 0)
        told = Path(self.top, "log").read_text()
        self.assertIn(
            "not taken over, the one before stays in force: test.cf:11: tls-key: /nowhere: No such file", told
        )
        os.unlink(pair.key)
        office.reload(self.settings("size=5", *with_tls))
        self.assertEqual(office.settings.size, 5)
        told = Path(self.top, "log").read_text()
        self.assertIn(f"warning {pair.key}: No such file or directory; the certificate that was read", told)
        office.reload(self.settings(f"log={self.top}/log"))
        self.assertFalse(office.parts.certificates.offered)
        office.parts.journal.stop()

    def test_what_needs_a_restart_is_named(self) -> None:
        office = self.office(f"log={self.top}/log")
        office.parts.journal.open()
        before = f"log={self.top}/log"
        office.reload(self.settings(before, "listen=[::1]:0", "size=5", "hostname=auto"))
        office.parts.journal.stop()
        told = Path(self.top, "log").read_text()
        self.assertIn(" notice configuration read again, changed: listen, hostname, size\n", told)
        for name in ("listen", "hostname"):
            self.assertIn(f" warning {name}: changed; restart to apply it\n", told)
        self.assertEqual(office.host, "mx.example.org")

    def test_the_log_moves(self) -> None:
        office = self.office(f"log={self.top}/log")
        office.parts.journal.open()
        office.reload(self.settings(f"log={self.top}/other"))
        office.parts.journal.stop()
        self.assertIn("changed: log\n", Path(self.top, "other").read_text())
        self.assertEqual(Path(self.top, "log").read_text(), "")

    def test_auditing_follows_the_option_and_the_signal(self) -> None:
        office = self.office("audit")
        journal = office.parts.journal
        self.assertTrue(journal.auditing)
        office.toggle_audit()
        self.assertFalse(journal.auditing)
        # What the signal said holds until the option says something else.
        office.reload(self.settings("audit", "size=5"))
        self.assertFalse(journal.auditing)
        office.reload(self.settings())
        office.reload(self.settings("audit"))
        self.assertTrue(journal.auditing)

    def test_names(self) -> None:
        self.assertEqual(host_name(self.settings()), "mx.example.org")
        self.assertEqual(host_name(self.settings("hostname=literal")), socket.gethostname())
        self.assertEqual(host_name(self.settings("hostname=auto")), socket.getfqdn())

    def test_systemd_is_told_where_it_asks(self) -> None:
        name = f"\0postoffice-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(name)
            self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": "@" + name[1:]})
            notify("READY=1")
            self.assertEqual(manager.recv(100), b"READY=1")
