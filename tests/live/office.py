"""A furnished office for tests that run the service as a process: configuration, users, mailboxes.

Everything lies in one temporary directory that goes with the test. Virtual domains and their users get
Maildirs or mboxes below `mail/`; `/etc` of the machine plays no part but for its accounts.
"""

from __future__ import annotations

import mailbox
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import HOST, Postoffice, free_port, passable, wait_until
from tests.support import need

NAME = "mail.here.test"
DOMAIN = "here.test"
USERS: Mapping[str, Sequence[str]] = {DOMAIN: ("alice", "bob")}

Kind = Literal["maildir", "mbox"]


def settings(directory: Path, kind: Kind = "maildir", port: int | None = None) -> list[str]:
    """The lines of a configuration file whose every path is in `directory`.

    Senders are not looked up, and a relay-host takes what the DNS says nothing of, since most tests have no
    DNS, and the machine may be busy.
    """
    place = f"{kind}:{directory}/mail/%d" + ("/%u" if kind == "maildir" else "")
    return [
        f"listen={HOST}:{port or free_port()}",
        f"hostname={NAME}",
        f"spool={directory}/spool",
        f"control={directory}/control",
        f"virtual={directory}/virtual",
        f"vspool={directory}/mail",
        f"vmailbox={place}",
        f"mailbox=maildir:{directory}/mail/%u",
        f"access={directory}/hosts.allow,{directory}/hosts.deny",
        f"aliases={directory}/aliases",
        "verify-from=0",
        "forward-all=1",
        "load=0",
        "log=stderr",
    ]


def furnish(directory: Path, users: Mapping[str, Sequence[str]] = USERS) -> None:
    """The virtual domains with their users, `name` or `name:hash`; empty alias and access files; `mail`."""
    (directory / "mail").mkdir(parents=True, exist_ok=True)
    for name in ("aliases", "hosts.allow", "hosts.deny"):
        (directory / name).touch()
    for domain, names in users.items():
        passwd = directory / "virtual" / domain / "passwd"
        passwd.parent.mkdir(parents=True)
        passwd.write_text("".join(f"{name if ':' in name else name + ':*'}\n" for name in names))
    owners = "".join(f"root:{domain}:1:for tests\n" for domain in users)
    (directory / "virtual/domains.cf").write_text(owners)


class OfficeCase(SynchronousTestCase):
    """A directory that other accounts may pass through, and services that end with the test."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="office-")
        self.addCleanup(directory.cleanup)
        self.directory = passable(Path(directory.name))

    def office(
        self,
        *lines: str,
        kind: Kind = "maildir",
        users: Mapping[str, Sequence[str]] = USERS,
        name: str = "office",
    ) -> Postoffice:
        """A running office in the directory `name`; `lines` are added to its configuration."""
        home = passable(self.directory / name)
        furnish(home, users)
        office = Postoffice([*settings(home, kind), *lines], home)
        self.addCleanup(office.stop)
        return office

    def eventually(self, what: str, condition: object, office: Postoffice, timeout: float = 20) -> None:
        """Fail with the end of the service's log unless `condition()` holds within `timeout` seconds."""
        assert callable(condition)
        if not wait_until(lambda: bool(condition()), timeout):
            self.fail(f"{what}: not within {timeout} s\n{office.log()[-4000:]}")


def run(
    office: Postoffice,
    *words: str,
    data: bytes = b"",
    prefix: Sequence[str] = (),
    command: str = "postoffice",
    timeout: float = 30,
) -> subprocess.CompletedProcess[bytes]:
    """One of the commands (`postoffice`, `mailq`) with the configuration of an office.

    `prefix` are words in front of it, such as `setpriv` with its options.
    """
    return subprocess.run(
        [*prefix, office.python, "-m", f"postoffice.commands.{command}", "-C", str(office.config), *words],
        input=data,
        capture_output=True,
        env=office.environment(),
        cwd="/",
        timeout=timeout,
        check=False,
    )


def stored(
    office: Postoffice, user: str = "alice", domain: str = DOMAIN, kind: Kind = "maildir"
) -> list[bytes]:
    """The letters in a mailbox as Python's `mailbox` reads them, `>From` lines of an mbox as they stand."""
    place = office.directory / "mail" / domain / user
    if not (place / "cur" if kind == "maildir" else place).exists():
        return []
    box = mailbox.Maildir(place, create=False) if kind == "maildir" else mailbox.mbox(place, create=False)
    try:
        return [box.get_bytes(key) for key in sorted(box.keys())]
    finally:
        box.close()


def becoming(uid: int, gid: int) -> Sequence[str]:
    """The words that run a command as somebody else, for `prefix`."""
    need("setpriv")
    return ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
