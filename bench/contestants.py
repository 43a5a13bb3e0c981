"""The servers that are compared, each made for one cell of the table and gone after it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import certificates, peers
from tests.peers.filters import Milter

NAMES = ("bare", "us", "postfix")
NEVER = 9
"""The discard port: where mail would go that stays in the queue."""

WELL_CONFIGURED = {
    "default_process_limit": "300",
    "in_flow_delay": "0",
    "max_use": "100000",
    "default_destination_concurrency_limit": "100",
    "initial_destination_concurrency": "50",
    "smtp_connection_cache_on_demand": "yes",
}
"""What Postfix gets beyond its defaults; its durability stays as it comes. No limits per client: its peer."""


class Bare(peers.Peer):
    """`bare.py` as a process."""

    def __init__(self, directory: Path, python: str) -> None:
        super().__init__(peers.passable(directory), peers.free_port())
        self.user = peers.service_user()
        self._python, self._path = peers.interpreter(python, self.user)
        self.own()
        self.start()

    def command(self) -> Sequence[str | Path]:
        return [self._python, Path(__file__).parent / "bare.py", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(self._path)}


class Idle(Milter):
    """`idle_filter.py` as a process."""

    def __init__(self, directory: Path, python: str) -> None:
        super().__init__(directory)
        self._python = peers.interpreter(python, self.user)[0]
        self.start()

    def command(self) -> Sequence[str | Path]:
        return self.opened(self._python, Path(__file__).with_name("idle_filter.py"), self.socket)


def us(lines: Sequence[str], directory: Path, python: str) -> peers.Postoffice:
    """Our server with every limit lifted; `lines` come after and win."""
    port = peers.free_port()
    lifted = [
        "clients=0",
        "per-client=0",
        "load=0",
        "minfree=0",
        "greylist=0",
        "verify-from=0",
        "forward-all=1",
    ]
    where = [
        f"listen={peers.HOST}:{port}",
        f"spool={directory}",
        f"control={directory}/control",
        f"log={directory}/log",
        "localdomain=local.test",
        "hostname=bench.test",
        f"nameserver={peers.HOST}:{NEVER}",
    ]
    return peers.Postoffice([*where, *lifted, *lines], directory, python)


def make(
    name: str,
    directory: Path,
    python: str,
    sink: int | None,
    keys: Path | None = None,
    filters: Sequence[Milter] = (),
) -> peers.Peer:
    """Start a contestant. Mail is relayed to the port `sink`; None: it stays in the queue, untried.

    With a directory for `keys`, it has a certificate and offers STARTTLS. It asks `filters` about letters.
    """
    lines = [f"filter={each.address}" for each in filters]
    settings = {"smtpd_milters": ",".join(each.postfix_address for each in filters)}
    if keys is not None:
        pair = certificates.make_pair(peers.passable(keys), "bench.test")
        lines += [f"tls-cert={pair.certificate}", f"tls-key={pair.key}"]
        settings |= {"smtpd_tls_cert_file": pair.certificate, "smtpd_tls_key_file": pair.key}
        settings["smtpd_tls_security_level"] = "may"
    match name:
        case "bare":
            return Bare(directory, python)
        case "us":
            keep = ["immediate=0", "queue-run=30d"] if sink is None else []
            return us([f"relay-host=[{peers.HOST}]:{sink or NEVER}", *keep, *lines], directory, python)
        case "postfix":
            deliver = "hold" if sink is None else f"{peers.HOST}:{sink}"
            return peers.Postfix(directory, deliver=deliver, settings=WELL_CONFIGURED | settings)
        case _:
            raise ValueError(name)
