"""What tests of every kind share: `need` and `program` for tests that run other people's programs.

A test that needs a program says so at its start. Where the program is missing the test is skipped and the
reason names the Debian package; under CI=true it fails instead, because there everything is installed.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from twisted.trial.unittest import FailTest, SkipTest

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parent.parent
"""The directory that holds `postoffice/` and `tests/`."""

UNPACKED = "/usr/local/lib/postoffice-tests"
"""Where `.ci/run` unpacks packages that Debian does not let us install beside the others."""

SEARCH = os.pathsep.join(
    [
        os.environ.get("PATH", os.defpath),
        *("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/git-core"),
        *(f"{UNPACKED}/usr/sbin", f"{UNPACKED}/python/bin"),
    ]
)

PACKAGES = {
    "clamav-milter": "clamav-milter",
    "clamd": "clamav-daemon",
    "curl": "curl",
    "dkimpy-milter": "dkimpy-milter",
    "dovecot": "dovecot-lmtpd",
    "exim4": "exim4-daemon-light",
    "git": "git",
    "git-send-email": "git-email",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "msmtp": "msmtp",
    "nsd": "nsd",
    "nsenter": "util-linux",
    "opendkim": "opendkim",
    "opendmarc": "opendmarc",
    "openssl": "openssl",
    "postconf": "postfix",
    "postfix": "postfix",
    "pyquarantine-milter": "python3-milter",
    "pyspf-milter": "pyspf-milter",
    "rspamd": "rspamd",
    "setpriv": "util-linux",
    "smtp-sink": "postfix",
    "smtp-source": "postfix",
    "spamass-milter": "spamass-milter",
    "spamd": "spamd",
    "strace": "strace",
    "swaks": "swaks",
    "systemctl": "systemd",
    "unbound": "unbound",
    "unshare": "util-linux",
    "useradd": "passwd",
}
"""Programs tests may ask for, and the Debian packages they are in (`.ci/packages` lists the same)."""


def in_ci() -> bool:
    """Whether a missing program is a fault of the machine rather than a choice of its owner."""
    return os.environ.get("CI") == "true"


MADE = {"exim4", "pyquarantine-milter"}
"""Programs that need more than to be installed: `.ci/run` shows how."""

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's Python, on which Debian's modules are."""


def program(name: str) -> str:
    """The path of the program `name`, a key of PACKAGES; where it is missing the test ends here."""
    package = PACKAGES[name]
    found = shutil.which(name, path=SEARCH)
    if found is None:
        reason = f"{name} is not installed: apt-get install {package}"
        if name in MADE:
            reason = f"{name} is not there: .ci/run shows how to get it"
        raise FailTest(reason) if in_ci() else SkipTest(reason)
    return found


def need(*names: str) -> None:
    """Go on only if all these programs are here; see `program`."""
    for name in names:
        program(name)


def need_module(name: str, package: str) -> None:
    """Go on only if Debian's Python has this module, which is in this package."""
    if not any(Path("/usr/lib/python3/dist-packages").glob(f"{name}*")):
        reason = f"{name} is not installed: apt-get install {package}"
        raise FailTest(reason) if in_ci() else SkipTest(reason)


def need_root() -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        reason = "only root can do this"
        raise FailTest(reason) if in_ci() else SkipTest(reason)


def counted(work: Callable[[], T], name: str = "") -> tuple[T, int]:
    """What `work` returns, and how many calls (of Python and C functions) it made: effort without a clock.

    With a `name`, only calls of Python functions of that name count.
    """
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if name:
            calls += event == "call" and frame.f_code.co_name == name
        else:
            calls += event in ("call", "c_call")

    before = sys.getprofile()
    # What others left is not to be cleared up at its expense.
    gc.disable()
    sys.setprofile(count)
    try:
        return work(), calls
    finally:
        sys.setprofile(before)
        gc.enable()
