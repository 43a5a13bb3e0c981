"""The processes of a peer: its family, what CPU they used, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree_cpu(pid: int) -> float:
    """CPU seconds, user and system, that a process and all its descendants have used so far.

    Children that ended count through their parent, which waited for them (cutime and cstime). The kernel
    rounds these figures down to 1/100 s a process; for living ones its scheduler's nanoseconds are used.
    A child whose parent died before it is lost.
    """
    family = descendants(pid)
    for _ in range(5):
        seconds = sum(_seconds(member) for member in family)
        # A child that ends between two looks would be counted twice or not at all: look again.
        if (now := descendants(pid)) == family:
            break
        family = now
    return seconds


def descendants(pid: int) -> dict[int, int]:
    """The process and everything below it: process id to start time in clock ticks since boot."""
    table = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name)))}
    members = {pid} & table.keys()
    while below := {child for child, stat in table.items() if stat[1] in members} - members:
        members |= below
    return {member: table[member][19] for member in members}


def alive(family: Mapping[int, int]) -> list[int]:
    """Which of these processes still run. One that waits for its parent to notice its end does not."""
    return [pid for pid, began in family.items() if (stat := _stat(pid)) and stat[0] and stat[19] == began]


def _stat(pid: int) -> list[int]:
    """/proc/PID/stat from the state on; the state is 0 for a zombie, else 1. Empty: no such process."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [0 if state in "ZX" else 1, *map(int, fields)]


def _seconds(pid: int) -> float:
    stat = _stat(pid)
    if not stat:
        return 0.0
    running = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            running += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return max((stat[11] + stat[12]) / _TICKS, running / 1e9) + (stat[13] + stat[14]) / _TICKS


def finish(family: Mapping[int, int], grace: float) -> None:
    """Wait `grace` seconds until the processes of a family are gone, then SIGKILL what is left."""
    deadline = time.monotonic() + grace
    while left := alive(family):
        if time.monotonic() >= deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
