"""Where the journal writes: standard error, files and syslog; lines for people, or JSON objects for programs.

Called by the journal in its writing thread: a sink may block, and raises OSError where it cannot write.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, Protocol

from attrs import frozen

from postoffice.config.places import LogTarget

Level = Literal["debug", "info", "notice", "warning", "error"]
_PRIORITY = {"debug": 7, "info": 6, "notice": 5, "warning": 4, "error": 3}
_SYSLOG_MAIL = 2 << 3
# twistd puts an object without a descriptor in the place of sys.stderr.
STDERR = 2


@frozen
class Record:
    """One fact: when (epoch seconds), how grave, which fact, its line, and its fields."""

    when: float
    level: Level
    fact: str
    text: str
    fields: dict[str, object]


class Sink(Protocol):
    """Where records go. Called in the writing thread; may block, may raise OSError."""

    def write(self, records: Sequence[Record]) -> None: ...

    def close(self) -> None: ...


Format = Callable[[Record], str]


def as_text(record: Record) -> str:
    """A line with the time in front, for terminals and files."""
    seconds, fraction = divmod(round(record.when * 1_000_000), 1_000_000)
    when, zone = _local(seconds)
    return f"{when}.{fraction:06d}{zone} {record.level} {record.text}\n"


@lru_cache(maxsize=8)
def _local(seconds: int) -> tuple[str, str]:
    """A second in this machine's time zone, and its offset; kept, since many lines share one."""
    when = datetime.fromtimestamp(seconds, UTC).astimezone()
    return f"{when:%Y-%m-%dT%H:%M:%S}", f"{when:%z}"


def as_json(record: Record) -> str:
    """A JSON object on one line."""
    when = datetime.fromtimestamp(record.when, UTC).isoformat()
    fields = {"time": when, "level": record.level, "fact": record.fact, "text": record.text, **record.fields}
    return json.dumps(fields, ensure_ascii=True, default=str) + "\n"


def for_journal(form: Format) -> Format:
    """The lines of `form` as systemd's journal takes them from standard error: each with its priority."""

    def prefixed(record: Record) -> str:
        priority = f"<{_PRIORITY[record.level]}>"
        return "".join(f"{priority}{line}\n" for line in form(record).rstrip("\n").split("\n"))

    return prefixed


def _stderr_is_journal() -> bool:
    """Whether systemd says that what is standard error now leads to its journal (systemd.exec(5))."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class StderrSink:
    """Writes to standard error."""

    def __init__(self, form: Format) -> None:
        self._form = form

    def write(self, records: Sequence[Record]) -> None:
        _write_all(STDERR, self._form, records)

    def close(self) -> None:
        """It stays open."""


class FileSink:
    """Appends to a file, made again when it was moved away or removed, as log rotation does.

    Errors when it is made: OSError that names the file.
    """

    def __init__(self, path: str, form: Format) -> None:
        self._path = path
        self._form = form
        self._fd = self._open()

    def write(self, records: Sequence[Record]) -> None:
        if self._moved():
            # Where it cannot be made again, the old one is still better than none.
            with contextlib.suppress(OSError):
                fd = self._open()
                os.close(self._fd)
                self._fd = fd
        _write_all(self._fd, self._form, records)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return True


def _write_all(fd: int, form: Format, records: Sequence[Record]) -> None:
    data = "".join(map(form, records)).encode("utf-8", "replace")
    while data:
        data = data[os.write(fd, data) :]


class SyslogSink:
    """Datagrams to the local syslog socket, facility mail; a daemon that is away loses the lines."""

    def __init__(self, socket_path: str, form: Format) -> None:
        self._path = socket_path
        self._form = form
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(1.0)

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            priority = _SYSLOG_MAIL | _PRIORITY[record.level]
            line = f"<{priority}>postoffice[{os.getpid()}]: {self._form(record)}".rstrip("\n")
            self._socket.sendto(line.encode("utf-8", "replace"), self._path)

    def close(self) -> None:
        self._socket.close()


def open_sink(target: LogTarget) -> Sink:
    """The sink a `log` option names. Errors: OSError for a file that cannot be opened."""
    form = as_json if target.json else as_text
    # The time is theirs to add.
    untimed = as_json if target.json else lambda record: f"{record.text}\n"
    match target.kind:
        case "stderr" if not _stderr_is_journal():
            return StderrSink(form)
        case "stderr" | "journal":
            return StderrSink(for_journal(untimed))
        case "syslog":
            return SyslogSink("/dev/log", untimed)
        case "file":
            return FileSink(target.path, form)
