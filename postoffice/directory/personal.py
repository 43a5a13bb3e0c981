"""What users say of their own mail: `.forward`, and the files that user maps name.

Asked by `postoffice.directory.sources` and by expansion. How a file is read as its owner is the matter of an
`IHomes`; what it said is kept for a second, so that a user who gets many letters has them looked for once.

When things fail: a file that is not safe, cannot be read or holds a mistake is told as a warning once, and
gives `Unreadable`: mail waits until its owner has mended it, rather than go where he did not want it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from postoffice.directory.aliases import PERSONAL, Aliases, parse_aliases, parse_list
from postoffice.directory.targets import Target
from postoffice.home_file import Unsafe
from postoffice.interfaces import IHomes
from postoffice.watched import PERIOD, Mistake, Unreadable, Watch

T = TypeVar("T")

FORWARD = ".forward"
_MOST_KEPT = 10_000


class PersonalFiles:
    """The files of all users, read through `homes`."""

    def __init__(self, homes: IHomes, watch: Watch) -> None:
        self._forwards = _Files(homes, watch, lambda data: parse_list(data, PERSONAL))
        self._aliases = _Files(homes, watch, lambda data: parse_aliases(data, PERSONAL))

    async def forward(self, account: str) -> tuple[Target, ...]:
        """The targets in an account's `.forward`, none where there is none. Errors: `Unreadable`."""
        return await self._forwards.get(account, FORWARD) or ()

    async def aliases(self, account: str, name: str) -> Aliases | None:
        """The aliases in a file of an account, None where there is none. Errors: `Unreadable`."""
        return await self._aliases.get(account, name)


class _File(Generic[T]):
    """What is known of one file."""

    __slots__ = ("error", "told", "until", "value", "waiting")

    def __init__(self) -> None:
        self.until = float("-inf")
        self.value: T | None = None
        self.error: Unreadable | None = None
        self.told = ""
        # Who waits while it is being read, None while it is not.
        self.waiting: list[Deferred[None]] | None = None


class _Files(Generic[T]):
    def __init__(self, homes: IHomes, watch: Watch, parse: Callable[[bytes], T]) -> None:
        self._homes = homes
        self._watch = watch
        self._parse = parse
        self._known: dict[tuple[str, str], _File[T]] = {}

    async def get(self, account: str, name: str) -> T | None:
        file = self._known.get((account, name))
        if file is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            file = self._known[account, name] = _File()
        if file.waiting is not None:
            waiting: Deferred[None] = Deferred()
            file.waiting.append(waiting)
            await waiting
        elif not file.until - PERIOD <= self._watch.seconds() < file.until:
            await self._read(file, account, name)
        if file.error is not None:
            raise file.error
        return file.value

    async def _read(self, file: _File[T], account: str, name: str) -> None:
        file.waiting = []
        problem = ""
        try:
            data = await self._homes.read(account, name)
            file.value, file.error = None if data is None else self._parse(data), None
        except Mistake as mistake:
            problem = f"~{account}/{name}:{mistake.line}: {mistake}"
        except (Unsafe, OSError) as error:
            problem = f"~{account}/{name}: {error.strerror if isinstance(error, OSError) else error}"
        finally:
            waiting, file.waiting = file.waiting, None
            file.until = self._watch.seconds() + PERIOD
            if problem:
                file.error = Unreadable(problem)
            if problem and problem != file.told:
                self._watch.warn(f"{problem}; mail for {account} waits until it is mended")
            file.told = problem
            for one in waiting:
                one.callback(None)
