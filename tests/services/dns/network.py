"""A reactor without sockets in which name servers are functions, for tests of the resolver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock

Server = tuple[str, int]
Serve = Callable[[bytes], Sequence[bytes]]


class Network(MemoryReactorClock):
    """Servers answer a query with any number of datagrams, as soon as the time is advanced."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[Server, Serve] = {}
        self.queries: list[tuple[Server, str]] = []
        self.ids: list[int] = []
        self.ports: list[Port] = []
        self.exhausted = False

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Port:
        if self.exhausted:
            raise CannotListenError(interface, port, OSError(24, "Too many open files"))
        opened = Port(self, protocol)
        self.ports.append(opened)
        protocol.makeConnection(opened)
        return opened

    def settle(self) -> None:
        """Let everything that needs no time happen."""
        for _ in range(40):
            self.advance(0)


class Port:
    def __init__(self, network: Network, protocol: Any) -> None:
        self.network = network
        self.protocol = protocol
        self.server: Server = ("", 0)

    def connect(self, host: str, port: int) -> None:
        if host == "192.0.2.99":
            raise OSError(101, "Network is unreachable")
        self.server = (host, port)

    def write(self, data: bytes, addr: Server | None = None) -> None:
        asked = dns.message.from_wire(data)
        question = asked.question[0]
        self.network.queries.append((self.server, f"{question.name} {question.rdtype.name}"))
        self.network.ids.append(asked.id)
        serve = self.network.servers.get(self.server, silence)
        for datagram in serve(data):
            self.network.callLater(0, self.receive, datagram)

    def receive(self, datagram: bytes, source: Server | None = None) -> None:
        if self in self.network.ports:
            self.protocol.datagramReceived(datagram, source or self.server)

    def stopListening(self) -> defer.Deferred[None]:
        self.network.ports.remove(self)
        self.protocol.stopProtocol()
        return defer.succeed(None)


def silence(query: bytes) -> Sequence[bytes]:
    return ()


def reply(
    query: bytes,
    answer: Sequence[str] = (),
    authority: Sequence[str] = (),
    code: dns.rcode.Rcode = dns.rcode.NOERROR,
) -> bytes:
    """A reply with records given as "name ttl type data"; records of one name and type stand together."""
    message = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    message.set_rcode(code)
    for section, records in ((message.answer, answer), (message.authority, authority)):
        for record in records:
            name, ttl, kind, data = record.split(" ", 3)
            rrset = dns.rrset.from_text(name + ".", int(ttl), "IN", kind, data)
            section.append(rrset)
    return message.to_wire(max_size=65535)


SOA = "example 900 SOA ns.example. root.example. 1 2 3 4 300"


def zone(records: dict[str, Sequence[str]]) -> Serve:
    """A server that knows "name TYPE": records; other names are not there."""
    names = {key.split(" ")[0] for key in records}

    def serve(query: bytes) -> Sequence[bytes]:
        question = dns.message.from_wire(query).question[0]
        name = question.name.to_text(omit_final_dot=True)
        known = records.get(f"{name} {question.rdtype.name}") or records.get(f"{name} CNAME")
        if known is not None:
            return [reply(query, known)]
        return [reply(query, (), [SOA], dns.rcode.NOERROR if name in names else dns.rcode.NXDOMAIN)]

    return serve
