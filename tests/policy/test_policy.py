"""The policy of the service, by its seam."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.interfaces import IPolicy
from tests.doubles import ScriptedPolicy
from tests.server.support import Door


class Seam(SynchronousTestCase):
    def test_interface(self) -> None:
        for policy in (Door().policy(), ScriptedPolicy()):
            verifyObject(IPolicy, policy)
