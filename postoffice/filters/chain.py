"""The chain: every filter in order, for the whole service.

Made by the assembly, asked by the session and by local submissions through `IFilters`. What the filters say
in one session, and what comes of it, is in `postoffice.filters.screening`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from postoffice import __version__
from postoffice.filters.arrivals import Arrivals
from postoffice.filters.leg import World
from postoffice.filters.screening import Screening
from postoffice.filters.terms import ChainSettings, Member, Terms
from postoffice.interfaces import IDirectory, IFilter, IFilters, IJournal, IPolicy, IScreening
from postoffice.mail.client import Client
from postoffice.milter.facts import Facts, Place

PROGRAM = f"Postoffice {__version__}"


@implementer(IFilters)
class Chain:
    """The filters of the service; `new_id` makes queue ids."""

    def __init__(
        self,
        filters: Sequence[tuple[IFilter, Terms]],
        settings: ChainSettings,
        directory: IDirectory,
        policy: IPolicy,
        journal: IJournal,
        new_id: Callable[[], str],
        clock: IReactorTime,
    ) -> None:
        self._members = [Member(one, terms) for one, terms in filters]
        self._world = World(settings, directory, policy, journal, new_id, clock, Arrivals())

    def begin(self, client: Client, address: str, port: int) -> IScreening | None:
        if not self._members:
            return None
        submission = not client.ip or client.door != "smtp"
        members = [member for member in self._members if member.terms.applies(submission)]
        if not members:
            return None
        place = Place(self._world.settings.host, address, port, PROGRAM)
        return Screening(members, Facts(client, place, self._world.clock.seconds), self._world)

    def load(self) -> None:
        """Import what has to be. Errors: `LookupError`."""
        for member in self._members:
            member.filter.load()

    def described(self) -> Sequence[str]:
        return [member.describe() for member in self._members]
