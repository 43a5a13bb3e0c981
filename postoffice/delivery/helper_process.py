"""The helper that this service started, by way of its supervisor.

Started as root before root is given up, where the service was started by root; else when it is first needed,
and again where it has gone. Requests go over a socket that outlives helpers. See
`postoffice.delivery.helper`.
"""

from __future__ import annotations

import os
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


@frozen
class HelperSettings:
    """As in `postoffice.delivery.helper.identity`. With `privileged` it was started as root, if at all."""

    min_uid: int
    mailboxes_only: frozenset[str]
    mail_folder: str
    privileged: bool


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

    def start(self) -> None:
        """Start it, as who we are now. Errors: `OSError`."""
        settings = self._settings
        ours, theirs = packets.pair()
        module = "postoffice.delivery.helper.supervisor"
        words = [str(settings.min_uid), ",".join(sorted(settings.mailboxes_only)), settings.mail_folder]
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

    def request(self, account: str, purpose: str, connection: int) -> None:
        if self._link is None:
            if self._control is None:
                if self._settings.privileged:
                    raise ProcessLookupError(0, "it has gone, and only a restart brings it back")
                self.start()
            self._link = PacketLink(self._reactor, self._control, self._heard, self._gone)
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

    def _gone(self) -> None:
        self._link = self._control = None
        if self._process is not None:
            self._process.poll()
        if self._settings.privileged:
            self._error("the helper has gone: mail for users of this machine waits until a restart")
