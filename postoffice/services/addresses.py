"""The addresses of this machine's network interfaces.

The directory asks whether an address literal is one of ours. The C library is asked (getifaddrs),
at most once a minute, because files of /proc with the same knowledge are missing in some containers.

When things fail: what was known before stays in use, and the loopback addresses are always known.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
from collections.abc import Callable

PERIOD = 60.0
LOOPBACK = frozenset({"127.0.0.1", "::1"})


class _Interface(ctypes.Structure):
    """struct ifaddrs of getifaddrs(3), up to the last field that is read."""


_Interface._fields_ = [
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]

# By address family: where the address lies in the socket address, and its length.
_PLACES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}


def interface_addresses() -> frozenset[str]:
    """The IPv4 and IPv6 addresses of all interfaces, as text without a scope. Errors: `OSError`."""
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Interface)()
    if library.getifaddrs(ctypes.byref(first)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    found: set[str] = set()
    try:
        entry = first
        while entry:
            interface = entry.contents
            if interface.address:
                family = ctypes.c_ushort.from_address(interface.address).value
                if family in _PLACES:
                    offset, length = _PLACES[socket.AddressFamily(family)]
                    raw = ctypes.string_at(interface.address + offset, length)
                    found.add(str(ipaddress.ip_address(raw)))
            entry = interface.next
    finally:
        library.freeifaddrs(first)
    return frozenset(found)


class MachineAddresses:
    """A callable that gives the addresses, read again when they are older than `PERIOD` seconds.

    `seconds` is a clock.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        read: Callable[[], frozenset[str]] = interface_addresses,
    ) -> None:
        self._seconds = seconds
        self._read = read
        self._known = LOOPBACK
        self._look = float("-inf")

    def __call__(self) -> frozenset[str]:
        now = self._seconds()
        # The clock may have been set back.
        if not self._look - PERIOD <= now < self._look:
            self._look = now + PERIOD
            try:
                self._known = self._read() | LOOPBACK
            except OSError:
                pass
        return self._known
