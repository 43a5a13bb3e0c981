"""The helper as a unit of its own, which systemd starts when the service connects to its socket.

    python -m postoffice.delivery.helper.unit FILE

What `postoffice helper` becomes. It takes the listening socket systemd hands over (sd_listen_fds(3)), and the
settings it needs from the configuration FILE, which must be root's alone to write. Each connection is served
by a process of its own (`postoffice.delivery.helper.server`), and only if it comes from the account the
service runs as, as the kernel says. systemd starts the unit again where it ends.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
import struct
import sys
import traceback
from collections.abc import Mapping, Sequence

from postoffice.delivery.helper.identity import Rules
from postoffice.delivery.helper.server import serve
from postoffice.wire import read_options

DEFAULTS = {
    "user": "postoffice",
    "vuser": "mail",
    "root-mail": "mail",
    "min-uid": "100",
    "mailbox": "mbox:/var/mail",
}

_FIRST = 3
_LARGEST = 1 << 20
_CREDENTIALS = struct.Struct("3i")


def read_settings(path: str) -> dict[str, str]:
    """The settings that matter here. Errors: `OSError`; a file that others may write is one."""
    with open(path, encoding="utf-8", errors="replace") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path}: others than root may write to it")
        return DEFAULTS | {
            name: value for name, value in read_options(file.read(_LARGEST), DEFAULTS).items() if value
        }


def rules_of(settings: Mapping[str, str]) -> Rules:
    """Whom children may be."""
    kind, _, place = settings["mailbox"].partition(":")
    folder = place.rstrip("/") if kind == "mbox" and "%" not in place else ""
    names = frozenset({settings["vuser"], settings["root-mail"]})
    return Rules(int(settings["min-uid"]), names, folder, settings["user"])


def accept(listening: socket.socket, uid: int, rules: Rules) -> None:
    """Serve every connection of that account, for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listening.accept()
        with connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(credentials)[1] != uid or os.fork() != 0:
                continue
            listening.close()
            try:
                serve(connection, rules, "")
            except BaseException:
                traceback.print_exc(file=sys.stderr)
                os._exit(os.EX_SOFTWARE)
            os._exit(os.EX_OK)


def main(words: Sequence[str]) -> None:
    """The program."""
    (path,) = words
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("postoffice helper: systemd starts it, with a socket (postoffice-helper.socket)")
    os.environ.clear()
    settings = read_settings(path)
    uid = pwd.getpwnam(settings["user"]).pw_uid
    os.umask(0o077)
    listening = socket.socket(fileno=_FIRST)
    listening.set_inheritable(False)
    accept(listening, uid, rules_of(settings))


if __name__ == "__main__":
    main(sys.argv[1:])
