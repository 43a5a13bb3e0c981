"""Keeps a helper running, since a process that gave root up could not start it again.

    python -m postoffice.delivery.helper.supervisor SOCKET MIN-UID MAILBOXES-ONLY MAIL-FOLDER SERVICE

Started by the service: with SOCKET, the number of an open socket, whose other end the service keeps. The
socket outlives every helper, so requests that were not read yet wait for the next one. MAILBOXES-ONLY are
names with commas between, the rest is as in `postoffice.delivery.helper.identity`. A helper that ends in good
order has seen the service go, and so it is over here, too; one that ends otherwise is started again, after a
pause that grows while that happens often. Signals that end a service do not end a helper: it goes last.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from postoffice.delivery.helper.identity import Rules
from postoffice.delivery.helper.server import serve

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""A helper that lived so long, in seconds, did not end for a reason that lasts."""


def supervise(control: socket.socket, rules: Rules, sleep: Callable[[float], None] = time.sleep) -> None:
    """Run helpers, one after the other, until one ends in good order."""
    ended, pause = "", FIRST_PAUSE
    while True:
        began = time.monotonic()
        # Made before the fork, so that it is this process whatever becomes of it.
        own = os.pidfd_open(os.getpid())
        process = os.fork()
        if process == 0:
            _help(control, rules, ended, own)
        os.close(own)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        pause = FIRST_PAUSE if time.monotonic() - began > STEADY else min(pause * 2, LONGEST_PAUSE)
        sleep(pause)


def _help(control: socket.socket, rules: Rules, ended: str, supervisor: int) -> None:
    try:
        serve(control, rules, ended, supervisor)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        os._exit(os.EX_SOFTWARE)
    os._exit(os.EX_OK)


def main(words: Sequence[str]) -> None:
    """The program."""
    number, min_uid, mailboxes_only, mail_folder, service = words
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signal_number, signal.SIG_IGN)
    os.environ.clear()
    os.chdir("/")
    os.umask(0o077)
    control = socket.socket(fileno=int(number))
    control.set_inheritable(False)
    names = frozenset(filter(None, mailboxes_only.split(",")))
    supervise(control, Rules(int(min_uid), names, mail_folder, service))


if __name__ == "__main__":
    main(sys.argv[1:])
