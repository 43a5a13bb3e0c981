"""A name server that knows what it is told, for programs that ask the machine's."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.peers import HOST


class NameServer:
    """Answers over UDP at 127.0.0.1, port 53 of the network of the thread that makes it, until `stop`.

    `records` are texts and addresses by name and type, such as `{("far.test", "TXT"): "v=spf1 -all"}`. A name
    it knows nothing of does not exist.
    """

    def __init__(self, records: Mapping[tuple[str, str], str]) -> None:
        self._records = {
            (dns.name.from_text(name), dns.rdatatype.from_text(kind)): f'"{value}"'
            if kind == "TXT"
            else value
            for (name, kind), value in records.items()
        }
        self._names = {name for name, _ in self._records}
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind((HOST, 53))
        self._socket.settimeout(0.1)
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._ending = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ending:
            with contextlib.suppress(TimeoutError):
                data, client = self._socket.recvfrom(4096)
                self._socket.sendto(self._answer(data), client)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        (question,) = query.question
        value = self._records.get((question.name, question.rdtype))
        if value is not None:
            kind = dns.rdatatype.to_text(question.rdtype)
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, value))
        elif question.name not in self._names:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()
