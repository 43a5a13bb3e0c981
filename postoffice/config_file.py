"""Reads the configuration file from the disk, if it may be believed.

`load` is called once, at start, before anything else is touched. The engine in
`postoffice.config` does the rest. Exit codes of the callers: `FileNotFoundError` EX_NOINPUT,
`Untrusted` EX_OSFILE, `PermissionError` EX_NOPERM, `ConfigError` EX_CONFIG.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from postoffice.config.options import BY_NAME
from postoffice.config.parser import Origin, Problem
from postoffice.config.settings import ConfigError, Settings
from postoffice.config.trust import Standing, trust_problem

STANDARD = "/etc/postoffice.cf"
_LARGEST = 1 << 20


class Untrusted(Exception):
    """The file, or a directory on the way to it, could have been written by somebody else."""


def load(path: str, overrides: Iterable[str] = (), runner: int | None = None) -> Settings:
    """Read `path` and apply the `-o` arguments, for a process of uid `runner` (None: this one).

    Root-only options may be overridden by root and by the owner of the file, since the owner could
    write them there. Errors: `FileNotFoundError`, `PermissionError` (unreadable, or a root-only
    option), `Untrusted`, `ConfigError`.
    """
    runner = os.geteuid() if runner is None else runner
    data, owner = _read(path, runner)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        origin = Origin(path, data.count(b"\n", 0, error.start) + 1)
        raise ConfigError([Problem(origin, "", "is not UTF-8; save the file in that encoding")]) from None
    settings = Settings.from_text(text, path, overrides, privileged=runner in (0, owner))
    problems = list(_unreadable(settings))
    if problems:
        raise ConfigError(problems)
    return settings


def _read(path: str, runner: int) -> tuple[bytes, int]:
    """The content of a file that may be believed, and its owner."""
    # Not waiting for the other end: the path may turn out to be a FIFO.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        opened = os.fstat(descriptor)
        problem = trust_problem(_standing(path, opened), list(_folders(path)), runner)
        if problem:
            raise Untrusted(problem)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(data) > _LARGEST:
        raise ConfigError([Problem(Origin(path, 1), "", f"is larger than {_LARGEST} bytes")])
    return data, opened.st_uid


def _standing(path: str, found: os.stat_result) -> Standing:
    return Standing(path, found.st_mode, found.st_uid, found.st_gid)


def _folders(path: str) -> Iterator[Standing]:
    """Every directory that decides which file `path` is: on the way as written, and behind links."""
    seen: set[str] = set()
    for folder in (os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))):
        while folder not in seen:
            seen.add(folder)
            yield _standing(folder, os.stat(folder))
            folder = os.path.dirname(folder)


def _unreadable(settings: Settings) -> Iterator[Problem]:
    """Files that were named and cannot be read; a standard file that is not there is no problem."""
    for one in settings.assigned:
        option = BY_NAME[one.name]
        if option.kind.reads and option.available and not os.access(one.value, os.R_OK):
            reason = "cannot be read" if os.path.lexists(one.value) else "does not exist"
            yield Problem(one.origin, one.name, f"{one.value} {reason}")
