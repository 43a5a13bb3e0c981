"""The helper of this service: one that it started, by way of its supervisor, or a unit of systemd's.

Started as root before root is given up, where the service was started by root; else when it is first needed,
and again where it has gone. One with a socket of its own is connected to when it is first needed, and only if
it is root's. Requests go over a socket that outlives helpers. See `postoffice.delivery.helper`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.task import deferLater

import postoffice
from postoffice.delivery.helper import packets
from postoffice.delivery.packet_link import PacketLink

# Seconds for the processes to end at a stop, looked after in steps.
_PATIENCE = 5.0
_STEP = 0.02
_CREDENTIALS = struct.Struct("3i")


@frozen
class HelperSettings:
    """As in `postoffice.delivery.helper.identity`. With `privileged` it is root's, if it is there at all.

    `socket` is where it listens, empty for one that we start.
    """

    min_uid: int
    mailboxes_only: frozenset[str]
    mail_folder: str
    service: str
    privileged: bool
    socket: str = ""


class HelperProcess:
    """Finds children (`postoffice.delivery.identities.Helping`). `warn` and `error` tell the log."""

    def __init__(
        self,
        settings: HelperSettings,
        reactor: Any,
        warn: Callable[[str], None],
        error: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._warn = warn
        self._error = error
        self._control: Any = None
        self._link: PacketLink | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def privileged(self) -> bool:
        """Whether it can become others than the account we run as."""
        return self._settings.privileged

    @property
    def at_start(self) -> bool:
        """Whether it has to be started before root is given up."""
        return self._settings.privileged and not self._settings.socket

    def start(self) -> None:
        """Start it, as who we are now, or connect to it. Errors: `OSError`."""
        settings = self._settings
        if settings.socket:
            self._control = _connected(settings.socket)
            return
        ours, theirs = packets.pair()
        module = "postoffice.delivery.helper.supervisor"
        names = ",".join(sorted(settings.mailboxes_only))
        words = [str(settings.min_uid), names, settings.mail_folder, settings.service]
        root = os.path.dirname(os.path.dirname(os.path.abspath(postoffice.__file__)))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), *words],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONPATH": root},
                cwd="/",
                start_new_session=True,
            )
        self._control = ours

    def listen(self) -> None:
        """Hear of what becomes of one that was started, though nothing is asked of it yet."""
        if self._control is not None and self._link is None:
            self._link = PacketLink(self._reactor, self._control, self._heard, self._gone)

    def request(self, account: str, purpose: str, connection: int) -> None:
        if self._link is None:
            if self._control is None:
                if self._process is not None and self._settings.privileged:
                    raise ProcessLookupError(0, "it has gone, and only a restart brings it back")
                self.start()
            self.listen()
            assert self._link is not None
        self._link.send({"account": account, "purpose": purpose}, os.dup(connection), give=True)

    async def stop(self) -> None:
        if self._link is not None:
            self._link.close()
        elif self._control is not None:
            self._control.close()
        self._link = self._control = None
        process, self._process = self._process, None
        left = _PATIENCE
        while process is not None and process.poll() is None and left > 0:
            await deferLater(self._reactor, _STEP)
            left -= _STEP
        if process is not None and process.returncode is None:
            self._warn("the helper does not end")

    def _heard(self, message: dict[str, Any], _: int) -> None:
        if message.get("ended"):
            self._warn(f"the helper ended ({message['ended']}) and was started again")
        if message.get("alone") and self._settings.privileged:
            self._error(
                "the supervisor of the helper has gone: nothing starts the helper again where it ends, until "
                "a restart"
            )

    def _gone(self) -> None:
        self._link = self._control = None
        if self._process is not None:
            self._process.poll()
        if self._settings.socket:
            self._warn("the helper closed the connection")
        elif self._settings.privileged:
            self._error(
                "the helper has gone: mail for users of this machine waits, and none of them can log in, "
                "until a restart"
            )


def _connected(path: str) -> socket.socket:
    """A connection to a helper of root's. Errors: `OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.setblocking(False)
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] != 0:
            raise PermissionError(errno.EACCES, "the helper is not root's")
    except BaseException:
        connection.close()
        raise
    return connection
