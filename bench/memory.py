"""What a session and a large letter cost in memory: `python bench/memory.py [--python PROGRAM]`.

1. 1,000 sessions that said EHLO and then nothing: growth of the resident size, in KiB a session.
2. The same with TLS, begun by STARTTLS.
3. A letter of 50 MiB, in from smtp-source and out to smtp-sink: the most the resident size grew, in MiB.

Resident sizes (VmRSS, and VmHWM for the peak) are summed over the server's process tree. A first letter goes
through before anything is measured, so that what is loaded once does not count. The figures stand beside the
limits of 12 KiB, 64 KiB and 8 MiB; the exit status is 1 when one is passed.
"""

from __future__ import annotations

import argparse
import resource
import socket
import ssl
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Started by its path, this folder would stand where the source tree has to.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import contestants  # noqa: E402
from tests import peers  # noqa: E402

SESSION_LIMIT = 12.0
ENCRYPTED_LIMIT = 64.0
LETTER_LIMIT = 8.0


def resident(pid: int, field: str = "VmRSS") -> int:
    """KiB of memory a process tree holds; `VmHWM`: held at its worst since `forget_peak`."""
    total = 0
    for member in peers.descendants(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{member}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1])
    return total


def forget_peak(pid: int) -> None:
    """Let VmHWM of a process tree begin anew at the present size."""
    for member in peers.descendants(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")


def steady(pid: int) -> int:
    """The resident size in KiB once it stays the same for half a second, or after ten seconds."""
    last = resident(pid)
    for _ in range(20):
        time.sleep(0.5)
        now = resident(pid)
        if now == last:
            break
        last = now
    return last


@contextmanager
def idle_sessions(port: int, count: int, encrypted: bool) -> Iterator[None]:
    """Hold `count` sessions open that were answered their EHLO."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((peers.HOST, port), timeout=30))
            with client.makefile("rb", buffering=0) as lines:
                read_reply(lines.readline)
                if encrypted:
                    client.sendall(b"STARTTLS\r\n")
                    read_reply(lines.readline)
            if encrypted:
                client = stack.enter_context(anybody.wrap_socket(client))
            with client.makefile("rb", buffering=0) as lines:
                client.sendall(b"EHLO client.test\r\n")
                read_reply(lines.readline)
        yield


def read_reply(readline: Callable[[], bytes]) -> None:
    """Read one reply of several lines; raises `PeerError` unless it is a 2xx."""
    while True:
        line = readline()
        if not line.startswith(b"2"):
            raise peers.PeerError(f"the server answered {line!r}")
        if line[3:4] == b" ":
            return


def sessions(pid: int, port: int, count: int, encrypted: bool = False) -> float:
    """KiB a session."""
    before = steady(pid)
    with idle_sessions(port, count, encrypted):
        return (steady(pid) - before) / count


def letter(pid: int, port: int, sink: peers.SmtpSink, mebibytes: int) -> float:
    """MiB the resident size grew at its worst while a letter went through."""
    before = steady(pid)
    forget_peak(pid)
    come = sink.count() + 1
    run = peers.smtp_source(port, length=mebibytes << 20, recipient="rcpt@sink.localhost", timeout=120)
    if run.status != 0 or not sink.wait(come, 120):
        raise peers.PeerError(f"the letter did not go through: {run.stderr}")
    return (resident(pid, "VmHWM") - before) / 1024


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="us", choices=contestants.NAMES, help="measure another server instead"
    )
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--letter", type=int, default=50, metavar="MIB", help="0: none")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the spool goes")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        each, encrypted, most = measure(options)
    except (peers.PeerError, unittest.SkipTest, AssertionError) as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"idle session: {each:.1f} KiB (limit {SESSION_LIMIT:.0f} KiB), {options.sessions} of them")
    if encrypted is not None:
        print(f"the same over TLS: {encrypted:.1f} KiB (limit {ENCRYPTED_LIMIT:.0f} KiB)")
    if most is not None:
        print(f"letter of {options.letter} MiB in and out: {most:.1f} MiB (limit {LETTER_LIMIT:.0f} MiB)")
    within = each < SESSION_LIMIT and (encrypted or 0) < ENCRYPTED_LIMIT and (most or 0) < LETTER_LIMIT
    return 0 if within else 1


def measure(options: argparse.Namespace) -> tuple[float, float | None, float | None]:
    """KiB a session, KiB of an encrypted one, and MiB for the letter; None where there is none.

    Raises `PeerError`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="postoffice-memory-", dir=options.directory) as name,
        ExitStack() as stack,
    ):
        directory = peers.passable(Path(name))
        sink = stack.enter_context(peers.SmtpSink(directory / "sink"))
        server = contestants.make(
            options.only, directory / "server", options.python, sink.port, directory / "keys"
        )
        stack.enter_context(server)
        # The bare protocol passes nothing on, and knows no TLS.
        through = options.letter and options.only != "bare"
        peers.smtp_source(server.port, sessions=10, messages=50, recipient="rcpt@sink.localhost")
        if through and not sink.wait(50, 60):
            raise peers.PeerError(f"{sink.count()} of 50 letters came out:\n{server.log()[-4000:]}")
        each = sessions(server.pid, server.port, options.sessions)
        encrypted = None
        if options.only != "bare":
            encrypted = sessions(server.pid, server.port, options.sessions, encrypted=True)
        most = letter(server.pid, server.port, sink, options.letter) if through else None
        return each, encrypted, most


if __name__ == "__main__":
    sys.exit(main())
