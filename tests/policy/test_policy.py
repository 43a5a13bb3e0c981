"""The policy of the service, by its seam."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.interfaces import IPolicy
from postoffice.policy.access import AccessFiles
from postoffice.policy.client import Clients, ClientSettings
from postoffice.policy.policy import Policy
from postoffice.watched import Watch
from tests.doubles import ScriptedPolicy, StaticResolver


class Seam(SynchronousTestCase):
    def test_interface(self) -> None:
        access = AccessFiles("/nowhere", "/nowhere", Watch(lambda: 0.0, str))
        clients = Clients(ClientSettings("mx.example.org"), frozenset[str], StaticResolver(), access)
        for policy in (Policy(clients), ScriptedPolicy()):
            verifyObject(IPolicy, policy)
