"""A process we started, its port and its log: the base of all peers, and what they share."""

from __future__ import annotations

import atexit
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.peers.processes import descendants, finish

HOST = "127.0.0.1"
NOBODY = "nobody"
_running: set[Peer] = set()


class PeerError(Exception):
    """A peer did not start, or ended when it should not have; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def greets(port: int) -> bool:
    """Does an SMTP server on this port answer a connection with 220?"""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            greeting = connection.recv(4096)
            connection.sendall(b"QUIT\r\n")
            return greeting.startswith(b"220")
    except OSError:
        return False


class Peer:
    """A process we started, its port and its log. The base of the peers below.

    `start()` runs `command()` in a session of its own, with standard output and standard error in files,
    and returns when `ready()` holds. Raises `PeerError` after `patience` seconds, or when the process ends.
    """

    patience = 20.0
    user: str | None = None

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.stdout = directory / "stdout"
        self.stderr = directory / "stderr"

    def command(self) -> Sequence[str | Path]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """The environment of the process."""
        return os.environ

    def ready(self) -> bool:
        """Can the peer be used now? Asked again and again while it starts."""
        return greets(self.port)

    def log(self) -> str:
        """Everything the peer logged so far."""
        return text_of(self.stderr)

    def own(self) -> None:
        """Give the directory, with what is in it, to the account the process runs as."""
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    @property
    def pid(self) -> int:
        """Process id. Raises `PeerError` when the peer does not run."""
        if self.process is None:
            raise PeerError(f"{type(self).__name__} is not running")
        return self.process.pid

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        with self.stdout.open("ab") as stdout, self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,
                user=self.user,
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
                extra_groups=None if self.user is None else [],
            )
        _running.add(self)
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def _await_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + self.patience
        while not self.ready():
            status = self.process.poll()
            if status is not None:
                raise PeerError(f"{type(self).__name__} ended with status {status}:\n{self.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise PeerError(
                    f"{type(self).__name__} not ready after {self.patience} s:\n{self.log()[-4000:]}"
                )
            time.sleep(0.02)

    def stop(self, timeout: float = 15) -> int | None:
        """Ask the process to end (SIGTERM) and wait; SIGKILL after `timeout` seconds.

        Returns its exit status, negative for a signal; None when it did not run.
        """
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> int | None:
        """End the process at once (SIGKILL), and whatever of it is left."""
        return self._end(signal.SIGKILL, 15)

    def restart(self) -> None:
        """Stop when running, then start again on the same port and directory."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals, timeout: float) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        family = descendants(process.pid)
        process.send_signal(how)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        # A process that was killed could not tell its children; they are known by number and start time,
        # so that a number used again is not hit.
        finish(family, 0 if how is signal.SIGKILL else 2)
        _running.discard(self)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@atexit.register
def _stop_all() -> None:
    for peer in list(_running):
        peer.kill()


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Ask every 5 ms until `condition` holds. False when it did not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def passable(path: Path) -> Path:
    """Make sure the directory is there, and that the accounts peers change to can pass through it."""
    path = path.resolve()
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(path.stat().st_mode | 0o755)
    return path


def text_of(path: Path) -> str:
    """What a file holds, which may not be there yet."""
    return path.read_text(errors="replace") if path.exists() else ""
