"""Real programs to talk to: Postfix, its test tools, Exim, and our own server as a process.

Used by the tests in `tests/live` and by `bench`. Every peer lives in a directory of its own, listens on a
high port of 127.0.0.1, asks no DNS server and leaves the machine's own configuration alone. A peer is
ready when its constructor returns; `stop()` (also on leaving a `with` block, and at the latest when the
interpreter ends) ends exactly the processes that were started, by their process id. The directory stays:
it belongs to the caller.

Needs no reactor, so that the benchmark can use it next to a server under test.

Failures: a missing Debian package goes through `need`; a peer that does not get ready, or dies, raises
`PeerError` with the end of its log.
"""

from __future__ import annotations

from tests.peers.exim import Exim
from tests.peers.peer import HOST, NOBODY, Peer, PeerError, free_port, greets, passable, wait_until
from tests.peers.postfix import Postfix, Run, SmtpSink, smtp_source
from tests.peers.postoffice import Postoffice, interpreter, service_user
from tests.peers.processes import alive, descendants, tree_cpu

__all__ = [
    "HOST",
    "NOBODY",
    "Exim",
    "Peer",
    "PeerError",
    "Postfix",
    "Postoffice",
    "Run",
    "SmtpSink",
    "alive",
    "descendants",
    "free_port",
    "greets",
    "interpreter",
    "passable",
    "service_user",
    "smtp_source",
    "tree_cpu",
    "wait_until",
]
