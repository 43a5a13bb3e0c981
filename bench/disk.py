"""A directory on a journalled ext4 for every spool of a benchmark.

On an ext4 without a journal creating files is slow after deletions, which would make a server with a file a
letter look bad; on tmpfs a sync costs nothing, which would make all look good. Where the directory asked for
is not on a journalled ext4, an image file in it is mounted through a loop device (needs root). The image is
written in full once, so that no round pays for blocks that were never written before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class DiskError(Exception):
    """No journalled ext4 to be had; the message says what to do."""


@contextlib.contextmanager
def journalled(parent: Path, mebibytes: int) -> Iterator[Path]:
    """A new directory below `parent` on a journalled ext4; it is gone afterwards, with everything mounted.

    `mebibytes` is the size of the image, when one is needed. Raises `DiskError`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="postoffice-bench-", dir=parent))
    base.chmod(0o755)
    try:
        kind, device = file_system(base)
        if kind == "ext4" and has_journal(device):
            yield base
            return
        if kind == "tmpfs":
            raise DiskError(f"{parent} is in memory: give a --directory on a disk")
        if os.geteuid() != 0:
            raise DiskError(
                f"{parent} is on {kind} without a journal: mounting an image with one needs root, "
                "or give a --directory on a journalled ext4"
            )
        with mounted(base / "image", mebibytes) as directory:
            yield directory
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def mounted(image: Path, mebibytes: int) -> Iterator[Path]:
    """A new ext4 with a journal in the file `image`, mounted beside it."""
    if shutil.disk_usage(image.parent).free < (mebibytes + 256) << 20:
        raise DiskError(f"{image.parent} has no room for an image of {mebibytes} MiB")
    block = bytes(1 << 20)
    with image.open("wb") as file:
        for _ in range(mebibytes):
            file.write(block)
        os.fsync(file.fileno())
    mount = image.parent / "mount"
    mount.mkdir()
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    _run("mount", "-o", "loop", str(image), str(mount))
    try:
        if not has_journal(file_system(mount)[1]):
            raise DiskError("a new ext4 has no journal here")
        mount.chmod(0o755)
        yield mount
    finally:
        _unmount(mount)


def file_system(path: Path) -> tuple[str, str]:
    """Type of the file system a path is on, and the kernel's name of its device (`loop0`, `sda1`)."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if fields.split()[2] == number:
            kind = tail.split()[0]
    link = Path(f"/sys/dev/block/{number}")
    return kind, link.resolve().name if link.exists() else "none"


def has_journal(device: str) -> bool:
    """Does the kernel keep a journal for the file system on this device?"""
    journals = Path("/proc/fs/jbd2")
    return journals.is_dir() and any(entry.name.rpartition("-")[0] == device for entry in journals.iterdir())


def _unmount(mount: Path) -> None:
    """Unmount; a server that is still ending may keep it busy for a moment. The loop device goes with it."""
    for _ in range(50):
        if subprocess.run(["umount", mount], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    _run("umount", "-l", str(mount))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise DiskError(f"{command[0]} is not installed") from missing
    if done.returncode:
        raise DiskError(f"{' '.join(command)}: {done.stderr.strip()}")
