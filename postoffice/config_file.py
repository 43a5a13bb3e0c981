"""Reads the configuration file from the disk, if it may be believed.

`load` is called once, at start, before anything else is touched. The engine in
`postoffice.config` does the rest. Exit codes of the callers: `FileNotFoundError` EX_NOINPUT,
`Untrusted` EX_OSFILE, `PermissionError` EX_NOPERM, `ConfigError` EX_CONFIG. Certificates are not looked at
here: only root may be able to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from postoffice.config.options import BY_NAME
from postoffice.config.parser import Origin, Problem
from postoffice.config.places import LogTarget
from postoffice.config.settings import ConfigError, Settings
from postoffice.config.trust import Standing, trust_problem
from postoffice.config.values import Place

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
    problems = list(unfit(settings, unprivileged=runner != 0 and settings.user is None))
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


def unfit(settings: Settings, unprivileged: bool) -> Iterator[Problem]:
    """Paths that were set and do not lead to what they must; a standard file that is not there is no problem.

    `unprivileged`: whoever starts the service can make no more than the account that asks now.
    """
    for one in settings.assigned:
        option = BY_NAME[one.name]
        if option.kind.place and option.available:
            standard = _paths(option.kind.parse(option.default)) if option.default else ()
            for path in _paths(option.kind.parse(one.value)):
                what = _complaint(option.kind.place, path, path in standard, unprivileged)
                if what:
                    yield Problem(one.origin, one.name, what)


def _paths(value: str | tuple[str, ...] | LogTarget) -> tuple[str, ...]:
    match value:
        case LogTarget(path=path):
            return (path,) if path else ()
        case str():
            return (value,)
    return value


def _complaint(place: Place, path: str, standard: bool, unprivileged: bool) -> str:
    """What is wrong with a path, and what to do; empty if nothing."""
    match place:
        case "made":
            return _room(path, unprivileged)
        case "socket":
            return _room(os.path.dirname(path), unprivileged)
        case "log":
            folder = os.path.dirname(path)
            return "" if os.path.isdir(folder) else f"the directory {folder} does not exist; make it"
        case _:
            return _contents(path, place == "directory", standard)


def _contents(path: str, is_directory: bool, standard: bool) -> str:
    """For what is read."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "" if standard else f"{path} does not exist; make it, or leave the option out"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if is_directory and not stat.S_ISDIR(mode):
        return f"{path} is no directory; name one"
    if not is_directory and not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        return f"{path} is {kind}; name a file"
    if not os.access(path, os.X_OK if is_directory else os.R_OK):
        return f"{path} cannot be read by uid {os.getuid()}; change its mode or its owner"
    return ""


def _room(path: str, unprivileged: bool) -> str:
    """For a directory that is made where it is not there, with those above it."""
    above = path
    while True:
        try:
            mode = os.stat(above).st_mode
            break
        except (FileNotFoundError, NotADirectoryError):
            above = os.path.dirname(above)
        except OSError:
            # Who asks now may be unable to see what those who start the service can.
            return ""
    if not stat.S_ISDIR(mode):
        return f"{above} is no directory; name another place"
    if above != path and unprivileged and not os.access(above, os.W_OK | os.X_OK):
        return f"{path} does not exist, and uid {os.getuid()} cannot make it in {above}; make it"
    return ""
