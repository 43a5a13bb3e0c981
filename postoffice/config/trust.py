"""Whether a configuration file may be believed: who could have written it.

Spec of the original: a regular file, owned by root, not writable by everybody, by a group only if
that is group 0, and the same for every directory on the way (sticky ones may be writable). A
process that is not root also believes what belongs to itself, so that a trial run needs no root.
Pure: `postoffice.config_file` brings the stat values.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from attrs import frozen


@frozen
class Standing:
    """Path, mode bits (with the file type), owner and group of one file or directory."""

    path: str
    mode: int
    uid: int
    gid: int


def trust_problem(file: Standing, folders: Sequence[Standing], runner: int) -> str | None:
    """Say why `file`, reached through `folders`, must not be believed by a process of uid `runner`.

    None when it may be believed. The text names the path at fault and what to do about it.
    """
    if not stat.S_ISREG(file.mode):
        return f"{file.path} is not a regular file"
    for one in (file, *folders):
        problem = _others_may_change(one, runner)
        if problem:
            return problem if one is file else f"{file.path} cannot be trusted: {problem}"
    return None


def _others_may_change(one: Standing, runner: int) -> str | None:
    if one.uid not in (0, runner):
        return f"{one.path} belongs to uid {one.uid}; make it root's (chown root {one.path})"
    if stat.S_ISDIR(one.mode) and one.mode & stat.S_ISVTX:
        return None
    if one.mode & stat.S_IWOTH:
        return f"{one.path} is writable by everybody; chmod o-w {one.path}"
    # A group that bears the runner's own number is the user's private group, as for pam_umask.
    if one.mode & stat.S_IWGRP and one.gid not in (0, runner):
        return f"{one.path} is writable by group {one.gid}; chmod g-w {one.path}"
    return None
