"""Real mail filters: programs that speak the milter protocol, as Debian and PyPI have them.

Each is a peer like the others: a directory of its own, the smallest configuration that does something worth
seeing, a socket nobody else uses, ready when its constructor returns. `address` is what stands behind our
`filter=`, `postfix_address` what Postfix calls it. They run as the account that our server does, where root
starts them.
"""

from __future__ import annotations

from tests.peers.filters.clamav import VIRUS, ClamavMilter, Clamd
from tests.peers.filters.dkim import DkimpyMilter, Key, OpenDkim, verified
from tests.peers.filters.dmarc import OpenDmarc
from tests.peers.filters.milter import Milter, negotiates
from tests.peers.filters.quarantine import PyQuarantine
from tests.peers.filters.rspamd import Rspamd
from tests.peers.filters.scripted import Scripted
from tests.peers.filters.spamassassin import SpamassMilter, Spamd
from tests.peers.filters.spf import PyspfMilter

__all__ = [
    "VIRUS",
    "ClamavMilter",
    "Clamd",
    "DkimpyMilter",
    "Key",
    "Milter",
    "OpenDkim",
    "OpenDmarc",
    "PyQuarantine",
    "PyspfMilter",
    "Rspamd",
    "Scripted",
    "SpamassMilter",
    "Spamd",
    "negotiates",
    "verified",
]
