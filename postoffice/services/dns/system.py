"""What the system says about name servers and hosts: pure functions of text.

Called at start with the text of `/etc/resolv.conf` (resolv.conf(5)) and `/etc/hosts` (hosts(5)). Lines that
make no sense are passed over, as the C library does.
"""

from __future__ import annotations

from postoffice.services.dns.names import address

Server = tuple[str, int]
"""The address and port of a name server."""

_PORT = 53
_MOST_SERVERS = 3


def parse_resolv_conf(text: str) -> tuple[Server, ...]:
    """The servers that `/etc/resolv.conf` names, at most three; this machine's when it names none."""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and address(words[1]) is not None:
            servers.append((words[1], _PORT))
    return tuple(servers[:_MOST_SERVERS]) or (("127.0.0.1", _PORT),)


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """The addresses of each name in `/etc/hosts`, in lower case, in the order of the file."""
    hosts: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        ip = address(words[0]) if words else None
        if ip is None:
            continue
        for word in words[1:]:
            name = word.lower()
            known = hosts.get(name, ())
            if ip not in known:
                hosts[name] = (*known, ip)
    return hosts
