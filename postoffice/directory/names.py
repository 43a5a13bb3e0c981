"""Names of ours: what each stands for, asked of the sources in their order.

Made by the service, used by expansion. What no source knows is asked again without its detail
(`user+detail`). Lists that alias files include are kept here, and read again when they change.

Errors: `Unreadable` where a file could never be read, or a user's file not now.
"""

from __future__ import annotations

from collections.abc import Sequence

from postoffice.directory.aliases import SYSTEM, parse_list
from postoffice.directory.domains import Domains, OurDomain
from postoffice.directory.personal import PersonalFiles
from postoffice.directory.sources import Answer, Source, User, Users
from postoffice.directory.targets import Target
from postoffice.watched import Unreadable, Watch, Watched


class Names:
    """`sources` are asked in order; a detail begins with one of `separators`."""

    def __init__(
        self,
        domains: Domains,
        sources: Sequence[Source],
        users: Users,
        files: PersonalFiles,
        separators: str,
        watch: Watch,
    ) -> None:
        self.domains = domains
        self.sources = tuple(sources)
        self.users = users
        self.files = files
        self.separators = separators
        self.watch = watch
        self._lists: dict[str, Watched[tuple[Target, ...] | None]] = {}

    async def lookup(self, local: str, domain: OurDomain) -> tuple[Answer, str, str | None] | None:
        """What a name stands for, the source that says so, and the detail that had to be left off for it.

        None for a detail that did not have to be.
        """
        for source in self.sources:
            answer = await source.find(local, domain)
            if answer is not None:
                return answer, source.name, None
        name, detail = self.split(local)
        if name:
            for source in self.sources:
                answer = await source.find(name, domain)
                if answer is not None:
                    return answer, source.name, detail
        return None

    async def exact(self, local: str, domain: OurDomain) -> Answer | None:
        """What a name stands for by itself, nothing left off."""
        for source in self.sources:
            answer = await source.find(local, domain)
            if answer is not None:
                return answer
        return None

    async def user(self, local: str, domain: OurDomain) -> User | None:
        """The user of that name, whatever else it stands for."""
        found = await self.users.find(local, domain)
        if found is None and (name := self.split(local)[0]):
            found = await self.users.find(name, domain)
        return found

    def split(self, local: str) -> tuple[str, str]:
        """A user's name and the detail behind it; two empty texts where there is no detail."""
        ends = [at for at in map(local.find, self.separators) if at > 0]
        return (local[: min(ends)], local[min(ends) + 1 :]) if ends else ("", "")

    async def included(self, path: str) -> tuple[Target, ...]:
        """The targets in a list. Errors: `Unreadable`."""
        watched = self._lists.get(path)
        if watched is None:
            watched = self._lists[path] = Watched(
                path, lambda data: parse_list(data, SYSTEM), None, self.watch
            )
        targets = await watched.current()
        if targets is None:
            raise Unreadable(path)
        return targets
