"""The policy of the service, by its seam."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.interfaces import IPolicy
from postoffice.policy.client import Clients, ClientSettings
from postoffice.policy.policy import Policy
from tests.doubles import ScriptedPolicy, StaticResolver


class Seam(SynchronousTestCase):
    def test_interface(self) -> None:
        clients = Clients(ClientSettings(), lambda ip: False, StaticResolver())
        for policy in (Policy(clients), ScriptedPolicy()):
            verifyObject(IPolicy, policy)
