"""Our own server as a process."""

from __future__ import annotations

import os
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import postoffice
from tests.peers.peer import NOBODY, Peer, PeerError, greets, passable, text_of

ROOT = Path(__file__).resolve().parent.parent.parent
# Where the package is that the tests themselves import: a changed copy, when a seeded defect is tried.
PACKAGE = Path(postoffice.__file__).resolve().parent.parent


class Postoffice(Peer):
    """Our server as a process: `python -m postoffice.commands.postoffice -C FILE -bD` in `directory`.

    `lines` is the configuration; its first `listen=127.0.0.1:PORT` says where it answers. Ready when a line
    logged since this start has the word `ready` and the port greets. `log()` is standard error and, when a
    `log=` line names a file, that file. Root starts it as `user`, who then owns the directory.
    """

    def __init__(
        self,
        lines: Iterable[str],
        directory: Path,
        python: str = sys.executable,
        *,
        user: str | None = NOBODY,
    ) -> None:
        self._lines = list(lines)
        listen = [line.partition("=")[2].strip() for line in self._lines if line.startswith("listen=")]
        if not listen:
            raise PeerError("the configuration has no line listen=127.0.0.1:PORT")
        super().__init__(passable(directory), int(listen[0].rpartition(":")[2]))
        self.user = user if os.geteuid() == 0 else None
        self.python, self._path = interpreter(python, self.user)
        if self.user is not None and not _reachable(PACKAGE / "postoffice", self.user):
            raise PeerError(f"{self.user} may not pass to {PACKAGE}")
        self.config = self.directory / "postoffice.cf"
        self.config.write_text("".join(f"{line}\n" for line in self._lines))
        self._logs = [
            self.stderr,
            *(
                self.directory / value
                for line in self._lines
                if line.startswith("log=")
                if "/" in (value := line.removeprefix("log=").removeprefix("json:").strip())
            ),
        ]
        self.own()
        self._seen = 0
        self.start()

    def command(self) -> Sequence[str | Path]:
        """The foreground daemon."""
        return [self.python, "-m", "postoffice.commands.postoffice", "-C", self.config, "-bD"]

    def environment(self) -> Mapping[str, str]:
        """The source tree, and the libraries of the interpreter asked for."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT), *self._path]),
            "HOME": str(self.directory),
        }

    def start(self) -> None:
        """As for every peer, from what is logged from here on."""
        self._seen = len(self.log())
        super().start()

    def ready(self) -> bool:
        """Logged `ready`, and greets."""
        return "ready" in self.log()[self._seen :] and greets(self.port)

    def log(self) -> str:
        """Standard error, then the log file."""
        return "".join(text_of(path) for path in self._logs)


def service_user() -> str | None:
    """The account for a server that needs no privileges: ours, unless we are root."""
    return NOBODY if os.geteuid() == 0 else None


def interpreter(python: str, user: str | None) -> tuple[str, list[str]]:
    """An interpreter that `user` may execute, and what it needs on its path: `python` itself if possible.

    A virtual environment below a home directory is closed to everybody else; the system's Python of the
    same version can then run with the libraries of the environment.
    """
    if user is None or _reachable(Path(python), user):
        return python, []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = Path("/usr/bin") / version
    if python == sys.executable and system.exists():
        return str(system), [sysconfig.get_path("purelib")]
    raise PeerError(f"{user} may not execute {python}, and there is no {system}")


def _reachable(program: Path, user: str) -> bool:
    """May `user` execute the program, the links on the way to it included?"""
    uid = pwd.getpwnam(user).pw_uid
    for part in {program.resolve(), *program.resolve().parents, *program.absolute().parents}:
        info = part.stat()
        if not info.st_mode & (0o100 if info.st_uid == uid else 0o001):
            return False
    return True
