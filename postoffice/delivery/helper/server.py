"""The helper: forks a child for an account, whenever the service asks for one.

Run by its supervisor, as root where the service was started by root. It reads a name and a purpose, looks the
account up, and forks; nothing of a letter comes by here. Children are not waited for; one that checks a
password has a parent that does (`postoffice.delivery.helper.guard`). The helper ends when the service has
gone. Without its supervisor it goes on, and tells the service that nothing would start it again.
An account that is refused is told on the socket that the child would have had.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import socket
import sys
import traceback

from postoffice.delivery.helper import packets, passwords
from postoffice.delivery.helper.child import Child
from postoffice.delivery.helper.guard import guarded
from postoffice.delivery.helper.identity import CHECKS, MAILBOXES, Refused, Rules, become
from postoffice.wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PURPOSES = MAILBOXES | CHECKS | {"command"}


def serve(control: socket.socket, rules: Rules, ended: str, supervisor: int = -1) -> None:
    """Fork children until the service has gone; `ended` tells how the helper before this one ended.

    `supervisor` is a descriptor of the process that would start another one (pidfd_open(2)), -1 where there
    is none to look after.
    """
    # Children leave nothing behind that would have to be collected.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Codecs are modules, loaded when first used; a user may not be able to read the files of Python.
    for codec in ("ascii", "latin-1", "utf-8"):
        codecs.lookup(codec)
    with contextlib.suppress(ConnectionError):
        packets.send(control, {"started": os.getpid(), "ended": ended})
        poll = select.poll()
        poll.register(control, select.POLLIN)
        if supervisor >= 0:
            poll.register(supervisor, select.POLLIN)
        while True:
            if supervisor in dict(poll.poll()):
                poll.unregister(supervisor)
                packets.send(control, {"alone": True})
                continue
            received = packets.receive(control)
            if received is None:
                break
            message, descriptor = received
            if descriptor < 0:
                raise WireError("a request without a socket")
            with socket.socket(fileno=descriptor) as connection:
                _fork(control, connection, rules, message)


def _fork(control: socket.socket, connection: socket.socket, rules: Rules, message: dict[str, Any]) -> None:
    name, purpose = message.get("account"), message.get("purpose")
    if not isinstance(name, str) or purpose not in PURPOSES:
        raise WireError("a request of another kind")
    try:
        entry = rules.account(name, purpose)
        shared = rules.shared_group(purpose)
        if os.fork() != 0:
            return
    except (Refused, OSError) as error:
        _refuse(connection, error)
        return
    try:
        control.close()
        _keep_only(connection)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            if purpose in CHECKS:
                guarded(connection, passwords.LIMIT)
            become(entry, purpose, shared)
        except OSError as error:
            _refuse(connection, error)
        else:
            Child(connection, entry, purpose, rules, shared).serve()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        os._exit(os.EX_SOFTWARE)
    os._exit(os.EX_OK)


def _keep_only(connection: socket.socket) -> None:
    """Of what is open, a child has its connection and the standard files."""
    kept = connection.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 16)


def _refuse(connection: socket.socket, error: Refused | OSError) -> None:
    rule = isinstance(error, Refused)
    never = isinstance(error, Refused) and error.never
    with contextlib.suppress(OSError):
        packets.send(connection, {"refused": str(error), "rule": rule, "never": never})
