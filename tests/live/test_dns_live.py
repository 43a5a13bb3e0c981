"""The resolver against real name servers: NSD, which knows the zones itself, and Unbound, which asks NSD."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from postoffice.interfaces import MailExchanger, NoSuchDomain, ResolverFailure
from postoffice.services.dns.resolver import Resolver
from tests.resolver_contract import ADDRESSES, LISTED, MX, REVERSE, TEXTS, ResolverContract
from tests.support import program

reactor: Any = global_reactor

HEAD = """$TTL 300
@ SOA ns.test. root.test. 1 3600 600 86400 60
@ NS ns.test.
"""
TEST_ZONE = f"""$ORIGIN test.
{HEAD}
ns A 127.0.0.1
empty TXT "nothing to see"
alias CNAME example
chain CNAME alias
dangling CNAME gone
p CNAME q
q CNAME p
*.one A 10.0.0.1
*.wild A 10.0.0.1
text TXT {" ".join(['"' + "x" * 250 + '"'] * 200)}
"""

NSD = """server:
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{directory}"
  zonelistfile: "{directory}/zone.list"
  pidfile: "{directory}/nsd.pid"
  xfrdfile: "{directory}/xfrd.state"
  xfrdir: "{directory}"
  database: ""
  logfile: "{directory}/nsd.log"
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: test
  zonefile: test.zone
zone:
  name: 127.in-addr.arpa
  zonefile: reverse.zone
"""

UNBOUND = """server:
  interface: 127.0.0.1
  port: {port}
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: "{directory}/unbound.pid"
  logfile: "{directory}/unbound.log"
  use-syslog: no
  num-threads: 1
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  local-zone: "127.in-addr.arpa." nodefault
  local-zone: "invalid." always_refuse
stub-zone:
  name: "test"
  stub-addr: 127.0.0.1@{behind}
stub-zone:
  name: "127.in-addr.arpa"
  stub-addr: 127.0.0.1@{behind}
remote-control:
  control-enable: no
"""


def zones() -> dict[str, str]:
    lines = [
        f"{name}. MX {preference} {host}." for name, records in MX.items() for preference, host in records
    ]
    lines += [f"{name}. {'AAAA' if ':' in ip else 'A'} {ip}" for name, ips in ADDRESSES.items() for ip in ips]
    lines += [f"{name}. A {ip}" for name, ips in LISTED.items() for ip in ips]
    lines += [f'{name}. TXT "{text}"' for name, texts in TEXTS.items() for text in texts]
    lines += [f"many MX {i} mx{i}.a-long-name-that-fills-datagrams" for i in range(1000)]
    lines += [f"*.wild A 10.0.{i}.1" for i in range(100)]
    pointers = [
        f"{'.'.join(reversed(ip.split('.')))}.in-addr.arpa. PTR {name}." for ip, name in REVERSE.items()
    ]
    return {
        "test.zone": TEST_ZONE + "\n".join(lines) + "\n",
        "reverse.zone": f"$ORIGIN 127.in-addr.arpa.\n{HEAD}" + "\n".join(pointers) + "\n",
    }


def free_port() -> int:
    """A port that is free for UDP and TCP, outside the range that the kernel gives to queries."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as streams:
            try:
                datagrams.bind(("127.0.0.1", port))
                streams.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Live(TestCase):
    timeout = 60

    async def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="dns-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.port = await self.start_servers()
        self.resolver = self.make([("127.0.0.1", self.port)])

    async def start_servers(self) -> int:
        nsd = program("nsd")
        for name, text in zones().items():
            (self.directory / name).write_text(text)
        port = free_port()
        configuration = self.directory / "nsd.conf"
        configuration.write_text(NSD.format(port=port, directory=self.directory))
        await self.start(port, nsd, "-d", "-c", str(configuration))
        return port

    async def start(self, port: int, *command: str) -> None:
        log = self.directory / f"{port}.out"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            self.assertIsNone(process.poll(), log.read_text())
            await deferLater(reactor, 0.05)
        self.fail(f"{command[0]} did not start: {log.read_text()}")

    def make(self, servers: Sequence[tuple[str, int]]) -> Resolver:
        resolver = Resolver(reactor, servers)
        self.addCleanup(resolver.close)
        return resolver


class Nsd(Live, ResolverContract):
    async def test_aliases(self) -> None:
        direct = set(await self.resolver.exchangers("example.test"))
        self.assertEqual(set(await self.resolver.exchangers("alias.test")), direct)
        self.assertEqual(set(await self.resolver.exchangers("chain.test")), direct)
        await self.assertFailure(self.resolver.exchangers("dangling.test"), NoSuchDomain)

    async def test_alias_loop(self) -> None:
        await self.assertFailure(self.resolver.exchangers("p.test"), ResolverFailure)

    async def test_many_exchangers_come_over_tcp(self) -> None:
        every = await self.resolver.exchangers("many.test")
        self.assertEqual(len(every), 100)
        self.assertTrue(all(isinstance(each, MailExchanger) for each in every))

    async def test_wildcard_addresses_are_bounded(self) -> None:
        every = await self.resolver.addresses("anything.wild.test")
        self.assertEqual(len(every), 64)

    async def test_other_records_do_no_harm(self) -> None:
        self.assertEqual(await self.resolver.exchangers("text.test"), ())

    async def test_the_second_server_answers_where_the_first_is_dead(self) -> None:
        resolver = self.make([("127.0.0.1", free_port()), ("127.0.0.1", self.port)])
        self.assertEqual(await resolver.addresses("mx1.example.test"), ("127.0.0.21",))

    async def test_cached_answers_are_there_at_once(self) -> None:
        await self.resolver.exchangers("example.test")
        self.assertTrue(self.resolver.exchangers("example.test").called)

    async def test_many_at_once(self) -> None:
        asked = [self.resolver.addresses(f"n{i}.one.test") for i in range(700)]
        for each in asked:
            self.assertEqual(await each, ("10.0.0.1",))


class Unbound(Nsd):
    async def start_servers(self) -> int:
        unbound = program("unbound")
        behind = await super().start_servers()
        port = free_port()
        configuration = self.directory / "unbound.conf"
        configuration.write_text(UNBOUND.format(port=port, directory=self.directory, behind=behind))
        await self.start(port, unbound, "-d", "-c", str(configuration))
        return port


del Live
