"""Running a `|command` of a user, in a child that is that user already.

The text is the shell's as its owner wrote it; of the letter only what is in the environment and on standard
input reaches it. Standard input is a file: the `From ` line (for those who check letters, none) and the
letter with LF line ends. The command and all it started is one process group, which is killed when its time
is over or when the service is not there any more to hear of the end. What it says is kept up to a bound, the
rest is read and thrown away.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import socket
import time

from postoffice.delivery.files import write_all
from postoffice.delivery.helper import packets
from postoffice.delivery.lines import LineWriter
from postoffice.delivery.mbox import from_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHELL = "/bin/sh"
PATH = "/usr/local/bin:/usr/bin:/bin"
NICENESS = 10
OUTPUT = 4096
"""The most octets of output that are kept."""

_ENVIRONMENT = frozenset({"SENDER", "RECIPIENT", "EXTENSION"})
_LINGER = 0.2


def run(job: dict[str, Any], letter: int, entry: pwd.struct_passwd, service: socket.socket) -> dict[str, Any]:
    """Run the command of a job; how it ended. Errors: `OSError`, `ValueError` for what must not reach it."""
    environment = _environment(job["environment"], entry)
    standard_input = _input(letter, job["sender"], job["now"])
    output, standard_output = os.pipe2(os.O_CLOEXEC)
    process = os.fork()
    if process == 0:
        _become_command(str(job["text"]), environment, standard_input, standard_output)
    packets.close([standard_input, standard_output])
    # Done on both sides, so that it has happened before either goes on.
    _quietly(os.setpgid, process, process)
    said, ended = _watch(process, output, service, float(job["timeout"]))
    return {**ended, "output": said.decode("utf-8", "replace")}


def _environment(given: dict[str, Any], entry: pwd.struct_passwd) -> dict[str, str]:
    for name, value in given.items():
        if name not in _ENVIRONMENT or any(ord(sign) < 32 or ord(sign) == 127 for sign in value):
            raise ValueError(f"{name} is not fit for the environment of a command")
    account = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return {**given, **account, "SHELL": SHELL, "PATH": PATH}


def _input(letter: int, sender: str | None, now: float) -> int:
    """The letter as the command reads it; with no sender there is no `From ` line."""
    file = packets.memory_file()
    lines = LineWriter(quote=False)
    if sender is not None:
        write_all(file, from_line(sender, now))
    for piece in packets.pieces(letter):
        write_all(file, lines.feed(piece))
    write_all(file, lines.finish())
    packets.seal(file)
    return file


def _become_command(text: str, environment: dict[str, str], standard_input: int, output: int) -> None:
    try:
        os.setpgid(0, 0)
        os.nice(NICENESS)
        # What Python and the supervisor ignore is nothing to it.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for descriptor, standard in ((standard_input, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, standard)
        os.execve(SHELL, ["sh", "-c", text], environment)
    finally:
        os._exit(os.EX_OSERR)


def _watch(process: int, output: int, service: socket.socket, timeout: float) -> tuple[bytes, dict[str, Any]]:
    """Read what it says until it ends, or has to; the start of that, and how it ended."""
    end = os.pidfd_open(process)
    said = b""
    until = time.monotonic() + timeout if timeout else None
    poll = select.poll()
    for descriptor in (output, end, service.fileno()):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    overdue = False
    while True:
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        ready = {descriptor for descriptor, _ in poll.poll(left)}
        overdue = not ready
        if output in ready:
            data = os.read(output, 1 << 16)
            said += data[: OUTPUT - len(said)]
            if not data:
                poll.unregister(output)
        if overdue or end in ready or service.fileno() in ready:
            break
    _quietly(os.killpg, process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    said = _rest(output, said)
    packets.close([output, end])
    if overdue:
        return said, {"timeout": True}
    code = os.waitstatus_to_exitcode(status)
    return said, {"status": code} if code >= 0 else {"signal": -code}


def _rest(output: int, said: bytes) -> bytes:
    """What was said last; whoever still holds the other end is not waited for."""
    os.set_blocking(output, False)
    while len(said) < OUTPUT and select.select([output], [], [], _LINGER)[0]:
        try:
            data = os.read(output, OUTPUT)
        except BlockingIOError:
            break
        if not data:
            break
        said += data[: OUTPUT - len(said)]
    return said


def _quietly(call: Any, *arguments: int) -> None:
    try:
        call(*arguments)
    except (ProcessLookupError, PermissionError):
        pass
