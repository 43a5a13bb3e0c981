"""Exim 4 as a host that relays to us.

Debian does not let it be installed beside Postfix, so its program alone is unpacked (`.ci/packages`). It
insists on an account and a group of its own whatever its configuration says: it is started where the files
that list those are other ones, in a mount namespace, and gives root up before it runs.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from tests.peers.peer import HOST, NOBODY, Peer, free_port, passable, text_of
from tests.support import need_root, program

ACCOUNT = "Debian-exim"


class Exim(Peer):
    """An Exim that takes every letter from this machine and hands it to the server at `onward`, a port.

    `transport` are lines for the transport that does so, `main` lines of the main section, `rest` whole
    sections (authenticators). Needs root.
    """

    def __init__(
        self,
        directory: Path,
        onward: int,
        *,
        main: Sequence[str] = (),
        transport: Sequence[str] = (),
        rest: Sequence[str] = (),
    ) -> None:
        self._program = program("exim4")
        nobody = pwd.getpwnam(NOBODY)
        self._words = [program("unshare"), "--mount", "sh", "-c", _ENTER, "sh", str(directory.resolve())]
        self._words += [program("setpriv"), f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"]
        self._words += ["--clear-groups", self._program, "-C", str(directory.resolve() / "exim.conf")]
        need_root()
        super().__init__(passable(directory), free_port())
        (self.directory / "exim.conf").write_text(
            _CONFIG.format(
                directory=self.directory,
                program=self._program,
                host=HOST,
                port=self.port,
                onward=onward,
                main="\n".join(main),
                transport="".join(f"  {line}\n" for line in transport),
                rest="\n".join(rest),
            )
        )
        for name, fields in (
            ("passwd", f"{nobody.pw_uid}:{nobody.pw_gid}::/:/bin/false"),
            ("group", f"{nobody.pw_gid}:"),
        ):
            known = Path("/etc", name).read_text()
            (self.directory / name).write_text(f"{known}{ACCOUNT}:x:{fields}\n")
        (self.directory / "spool").mkdir(exist_ok=True)
        for path in (self.directory, *self.directory.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self.start()

    def command(self) -> Sequence[str | Path]:
        """The daemon in the foreground, which runs the queue every second for what was postponed."""
        return [*self._words, "-bdf", "-q1s"]

    def log(self) -> str:
        """What it said before there was a log, then the logs."""
        logs = sorted(self.directory.glob("exim-*.log"))
        return text_of(self.stderr) + "".join(map(text_of, logs))

    def queued(self) -> int:
        """How many letters wait in its queue."""
        return len(list((self.directory / "spool").glob("input/*-H")))


_ENTER = """\
mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && exec "$@"
"""

_CONFIG = """\
primary_hostname = exim.test
spool_directory = {directory}/spool
log_file_path = {directory}/exim-%s.log
exim_path = {program}
deliver_drop_privilege
local_interfaces = {host}
daemon_smtp_ports = {port}
acl_smtp_rcpt = accept
acl_smtp_data = accept
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
disable_ipv6
smtp_accept_max = 0
{main}

begin routers

onward:
  driver = manualroute
  route_list = * {host}::{onward} byname
  self = send
  transport = onward

begin transports

onward:
  driver = smtp
  allow_localhost
{transport}
begin retry

* * F,1h,1s

{rest}
"""
