"""Letters a second into one mailbox of this machine: from the first command to the last letter stored.

    python bench/local.py [--letters 2000] [--rounds 3] [--directory /var/tmp]

As root, since Postfix insists on it. The contestants: `us`, started as `nobody`, who owns the mailbox; `us as
root`, where a process that has become the mailbox's owner writes it; Postfix with virtual(8). Each writes a
Maildir and an mbox, synced, on the same disk; ten sessions of smtp-source hand letters of 4 KiB in.
"""

from __future__ import annotations

import argparse
import os
import pwd
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import contestants, disk
from tests import peers

LENGTH = 4096
NAMES = ("us", "us as root", "postfix")


def started(name: str, kind: str, directory: Path) -> tuple[peers.Peer, Path, str]:
    """A contestant with its mailbox, and the address it is reached by."""
    if name == "postfix":
        postfix = peers.Postfix(directory, deliver=kind, settings=contestants.WELL_CONFIGURED)
        return postfix, postfix.mailbox, "rcpt@postfix.test"
    mail = peers.passable(directory / "mail")
    nobody = pwd.getpwnam(peers.NOBODY)
    os.chown(mail, nobody.pw_uid, nobody.pw_gid)
    passwd = directory / "virtual" / "box.test" / "passwd"
    passwd.parent.mkdir(parents=True)
    passwd.write_text("rcpt:*\n")
    (directory / "virtual/domains.cf").write_text("root:box.test:1:\n")
    lines = [f"virtual={directory}/virtual", f"vspool={mail}"]
    lines.append(f"vmailbox={kind}:{mail}" + ("/%u" if kind == "maildir" else ""))
    if name == "us":
        us: peers.Postoffice = contestants.us(lines, directory, sys.executable)
    else:
        port = peers.free_port()
        given = (
            f"listen={peers.HOST}:{port}",
            f"spool={directory}/spool",
            f"control={directory}/run/control",
        )
        lifted = ("clients=0", "per-client=0", "load=0", "minfree=0", "greylist=0", "verify-from=0")
        more = (f"log={directory}/log", "hostname=bench.test", "user=daemon", f"vuser={peers.NOBODY}")
        log = directory / "log"
        log.touch()
        os.chown(log, pwd.getpwnam("daemon").pw_uid, -1)
        us = peers.Postoffice([*given, *lifted, *more, *lines], directory, user=None)
    return us, mail / "rcpt", "rcpt@box.test"


def counter(kind: str, mailbox: Path) -> Callable[[], int]:
    """How many letters a mailbox holds, asked again and again."""
    if kind == "maildir":
        return lambda: len(os.listdir(mailbox / "new")) if (mailbox / "new").exists() else 0
    seen = [0, 0]

    def count() -> int:
        if mailbox.exists():
            with mailbox.open("rb") as file:
                file.seek(seen[0])
                data = file.read()
            # What was written last may be half a line.
            whole = data.rfind(b"\n") + 1
            seen[0] += whole
            seen[1] += data[:whole].count(b"\nDelivered-To: ")
        return seen[1]

    return count


def arrived(count: Callable[[], int], wanted: int) -> bool:
    """Whether so many letters came to be there in time."""
    return peers.wait_until(lambda: count() >= wanted, 120)


def measure(name: str, kind: str, directory: Path, letters: int) -> float:
    """Letters a second. Raises `PeerError` where not all arrive."""
    peer, mailbox, recipient = started(name, kind, peers.passable(directory))
    with peer:
        count = counter(kind, mailbox)
        for wanted, measured in ((letters // 10, False), (letters, True)):
            before = count()
            began = time.monotonic()
            run = peers.smtp_source(
                peer.port, sessions=10, messages=wanted, length=LENGTH, recipient=recipient, timeout=300
            )
            if run.status != 0 or not arrived(count, before + wanted):
                raise peers.PeerError(f"{name} {kind}: {count()} letters\n{run.stderr}\n{peer.log()[-2000:]}")
            if measured:
                return wanted / (time.monotonic() - began)
    raise AssertionError


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--letters", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))
    words = parser.parse_args()
    rates: dict[tuple[str, str], list[float]] = {}
    with disk.journalled(words.directory, 2048) as place:
        for number in range(words.rounds):
            for kind in ("maildir", "mbox"):
                for name in NAMES:
                    directory = place / f"{name.replace(' ', '-')}-{kind}-{number}"
                    rate = measure(name, kind, directory, words.letters)
                    rates.setdefault((name, kind), []).append(rate)
    print(f"{'letters/s':12}{'maildir':>10}{'mbox':>10}")
    for name in NAMES:
        print(
            f"{name:12}"
            + "".join(f"{statistics.median(rates[name, kind]):10.0f}" for kind in ("maildir", "mbox"))
        )


if __name__ == "__main__":
    main()
