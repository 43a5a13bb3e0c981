"""Deliveries as a user in tests: without a helper, and with one that is who runs the tests."""

from __future__ import annotations

import os
import pwd
from typing import Any

from twisted.internet.task import Clock

from postoffice.delivery.as_user import AsUser
from postoffice.delivery.helper_process import HelperProcess, HelperSettings
from postoffice.delivery.identities import Identities

ME = pwd.getpwuid(os.geteuid()).pw_name


class NoHelper:
    """Nobody to ask."""

    def request(self, account: str, purpose: str, connection: int) -> None:
        raise ProcessLookupError(3, "no helper in this test")

    async def stop(self) -> None:
        pass


def no_help() -> AsUser:
    """For deliveries that need no help."""
    return AsUser(Identities(Clock(), NoHelper()))


class Helped:
    """A helper with real processes. `told` is what it had to say."""

    def __init__(self, reactor: Any, settings: HelperSettings) -> None:
        self.told: list[str] = []
        self.helper = HelperProcess(settings, reactor, self.told.append, self.told.append)
        self.identities = Identities(reactor, self.helper)
        self.as_user = AsUser(self.identities)
