"""Sees to it that a process which is a user, and what that runs, ends in time.

Used by the helper for the checks of passwords (`postoffice.delivery.helper.server`). A user may stop the
processes that are his, and no alarm ends one that is stopped. So what goes on as a child has a parent that is
not the user, and that collects it: until then its number, which is that of its group, too, is nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket


def guarded(connection: socket.socket, limit: float) -> None:
    """Go on in a new process, in a group of its own, which is killed after `limit` seconds or at its end.

    Whoever called this does that, without the connection, and does not come back. Errors: `OSError`
    where there is no new process. SIGCHLD must not be ignored.
    """
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        return
    try:
        connection.close()
        poll = select.poll()
        poll.register(os.pidfd_open(process), select.POLLIN)
        poll.poll(limit * 1000)
    finally:
        os.kill(process, signal.SIGKILL)
        # There is no group where it did not get so far as to make one.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os._exit(os.EX_OK)
