"""Expansion: from an address of ours to the copies it stands for, the one function for all who ask.

Made by the service, used by `postoffice.directory.lookup` for every question about an address of ours. An
address is asked of the sources in their order; the targets of aliases, lists and `.forward` files are
followed in theirs, without recursion, and nobody gets two copies. An address of another domain that turns
up is not asked of the DNS here: its copy is looked up when its turn comes. Long expansions let others go
on with their work.

A loop is told as a warning and cut, but an address that comes back to a user means his mailbox. What
cannot be followed now stays a copy of its own, with the reason, so that it fails or waits alone; a list
that cannot be read holds up the whole address. Errors: `Refusal`, `Unreadable`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from attrs import evolve, frozen

from postoffice.directory.domains import OurDomain, domain_key
from postoffice.directory.names import Names
from postoffice.directory.sources import NOBODY, Listed, User
from postoffice.directory.targets import Include, Target, ToCommand, ToFile
from postoffice.mail.address import Address
from postoffice.mail.destination import Command, Copy, File, OwnMailbox
from postoffice.mail.reply import Refusal, Reply, printable
from postoffice.watched import Unreadable

NO_SUCH_USER = Reply(550, (1, 1), "No such user here")
NOT_KNOWN_NOW = Reply(451, (3, 0), "The address cannot be looked up now, try again later")
TOO_MANY = Reply(550, (2, 4), "The address stands for too many recipients")
TOO_DEEP = Reply(554, (4, 6), "The address leads on and on")
LOOP = Reply(554, (4, 6), "The address leads back to itself")

AT_ONCE = 100
"""Targets that are followed before others get their turn."""

# How far an address may lead on.
_DEPTH = 50
# The most copies where no limit is set.
_MOST = 1 << 19

_Key = tuple[str, str]


@frozen(eq=False)
class _Step:
    """An address on the way, and where its text led on from.

    `account` is whom that text acts as, `forward` the account whose `.forward` it is, `include` the list it
    is, `extension` the detail of the address. `before`: the way was followed by an earlier expansion.
    """

    address: Address
    key: _Key
    parent: _Step | None
    depth: int
    account: str = NOBODY
    forward: str | None = None
    include: str | None = None
    extension: str = ""
    before: bool = False

    def way(self) -> tuple[Address, ...]:
        """The addresses from the first to this one."""
        found = [self.address]
        step = self.parent
        while step is not None:
            if step.address is not found[-1]:
                found.append(step.address)
            step = step.parent
        return tuple(reversed(found))

    def find(self, test: Callable[[_Step], bool]) -> _Step | None:
        """This step, or the last one before it, of which something is true."""
        step: _Step | None = self
        while step is not None and not test(step):
            step = step.parent
        return step


@frozen
class Found:
    """One copy, and why its address could not be followed, where it could not."""

    copy: Copy
    refusal: Refusal | None = None


@frozen
class _More:
    """Targets to follow, in the text of a domain."""

    step: _Step
    targets: tuple[Target, ...]
    domain: OurDomain


class Expansion:
    """One expansion, of `address` in a domain of ours, which `earlier` addresses led to.

    It may stand for `most` copies, 0 for no limit. Without `forwards` no user's `.forward` is followed, from
    whenever that is set.
    `pause` lets others work and comes back. `told` hears of each address, how far from the first it is, and
    what it stands for.
    """

    def __init__(
        self,
        names: Names,
        most: int,
        pause: Callable[[], Awaitable[None]],
        *,
        forwards: bool = True,
        told: Callable[[int, Address, str], None] | None = None,
    ) -> None:
        self._names = names
        self._limit = most or _MOST
        self._pause = pause
        self.forwards = forwards
        self._told = told
        self._begun = False
        self._seen: set[_Key] = set()
        self._copies: set[str] = set()
        #: Whether a loop was cut.
        self.looped = False
        #: How many targets were followed.
        self.followed = 0

    async def copies(
        self, address: Address, domain: OurDomain, earlier: Sequence[Address] = ()
    ) -> AsyncIterator[Found]:
        """The copies in the order of the targets. Errors: `Refusal`, `Unreadable`."""
        limit = self._limit
        stack: list[tuple[Target, _Step | None, OurDomain]] = [(address, await self._steps(earlier), domain)]
        while stack:
            self.followed += 1
            if self.followed % AT_ONCE == 0:
                await self._pause()
            if self.followed > 2 * limit + 1000:
                raise Refusal(TOO_MANY, f"{address} leads to more than {self.followed} targets")
            match await self._next(*stack.pop()):
                case _More(step=step, targets=targets, domain=within):
                    stack.extend((target, step, within) for target in reversed(targets))
                case Found(copy=copy) as found if copy.key not in self._copies:
                    self._copies.add(copy.key)
                    if len(self._copies) > limit:
                        raise Refusal(TOO_MANY, f"{address} stands for more than {limit} recipients")
                    yield found

    async def _steps(self, earlier: Sequence[Address]) -> _Step | None:
        """Earlier addresses, as if they had been followed here."""
        step: _Step | None = None
        for address in earlier:
            key = _key(address, await self._names.domains.find(address.domain))
            self._seen.add(key)
            step = _Step(address, key, step, step.depth + 1 if step else 0, before=True)
        return step

    async def _next(self, target: Target, step: _Step | None, domain: OurDomain) -> Found | _More | None:
        """What a target leads to; None where that was met before."""
        depth = step.depth + 1 if step else 0
        if depth > _DEPTH:
            raise Refusal(TOO_DEEP, f"{step and step.way()[0]} leads on for more than {_DEPTH} steps")
        if isinstance(target, Address):
            first, self._begun = not self._begun, True
            return (
                await self._first(target, step, domain)
                if first
                else await self._address(target, step, domain)
            )
        assert step is not None
        if isinstance(target, Include):
            return await self._include(target.path, step, domain)
        fixed: File | Command
        match target:
            case ToFile(path=path):
                fixed = File(path, step.account)
            case ToCommand(text=text):
                fixed = Command(text, step.account, step.extension)
        self._tell(depth, step.address, str(fixed))
        return Found(Copy(step.address, step.way(), fixed, fixed))

    async def _first(self, address: Address, step: _Step | None, domain: OurDomain) -> Found | _More | None:
        return await self._ours(
            _Step(address, _key(address, domain), step, step.depth + 1 if step else 0), domain
        )

    async def _address(self, address: Address, step: _Step | None, domain: OurDomain) -> Found | _More | None:
        """An address that a text names."""
        assert step is not None
        if not address.domain and domain.virtual:
            # A bare name in the file of a virtual domain is one of that domain.
            address = evolve(address, domain=domain.name)
        refusal: Refusal | None = None
        what = "elsewhere"
        try:
            ours = await self._names.domains.find(address.domain)
            if ours is not None:
                return await self._ours(_Step(address, _key(address, ours), step, step.depth + 1), ours)
        except (Refusal, Unreadable) as error:
            refusal = (
                error if isinstance(error, Refusal) else Refusal(NOT_KNOWN_NOW, f"{error} cannot be read")
            )
            what = str(refusal.reply)
        self._tell(step.depth + 1, address, what)
        return Found(Copy(address, step.way()), refusal)

    async def _ours(self, step: _Step, domain: OurDomain) -> Found | _More | None:
        address = step.address
        if step.key in self._seen:
            return await self._again(step, domain)
        self._seen.add(step.key)
        found = await self._names.lookup(address.local, domain)
        if found is None:
            raise Refusal(NO_SUCH_USER, f"no such user: {address}")
        answer, source, detail = found
        if detail is not None:
            name = address.local[: -len(detail) - 1]
            self._tell(
                step.depth,
                address,
                f"{name}, with the detail {detail}" if detail else f"{name}, with no detail",
            )
            step = evolve(step, extension=detail)
        if isinstance(answer, Listed):
            self._tell(step.depth, address, source)
            return _More(evolve(step, account=answer.account), answer.targets, domain)
        return await self._user(answer, step, domain, source)

    async def _again(self, step: _Step, domain: OurDomain) -> Found | _More | None:
        """An address that was met before: in another branch, or on the way here."""
        parent = step.parent
        met = parent.find(lambda one: one.key == step.key) if parent is not None else None
        if met is None:
            return None
        user = await self._names.user(step.address.local, domain)
        if user is not None:
            step = evolve(step, extension=self._names.split(step.address.local)[1])
            return await self._user(user, step, domain, "users", forwards=not met.before)
        self.looped = True
        self._tell(step.depth, step.address, "leads back to itself")
        way = " -> ".join(map(str, step.way()))
        self._names.watch.warn(printable(f"the address {step.address} leads back to itself: {way}"))
        return None

    async def _user(
        self, user: User, step: _Step, domain: OurDomain, source: str, forwards: bool = True
    ) -> Found | _More:
        """A user's mailbox, or what he says in his `.forward`, unless that led here."""
        account = user.account
        if (
            account is not None
            and forwards
            and self.forwards
            and not step.find(lambda one: one.forward == account)
        ):
            targets = await self._names.files.forward(account)
            if targets:
                self._tell(step.depth, step.address, f"~{account}/.forward")
                return _More(evolve(step, account=account, forward=account), targets, domain)
        self._tell(step.depth, step.address, source)
        way = step.parent.way() if step.parent is not None else ()
        address = user.address if user.address is not None and way else step.address
        return Found(Copy(address, way, OwnMailbox(), user.mailbox))

    async def _include(self, path: str, step: _Step, domain: OurDomain) -> _More | None:
        if step.find(lambda one: one.include == path):
            self.looped = True
            self._tell(step.depth, step.address, f"{path} includes itself")
            self._names.watch.warn(f"the list {path} includes itself")
            return None
        targets = await self._names.included(path)
        self._tell(step.depth, step.address, path)
        return _More(evolve(step, parent=step, depth=step.depth + 1, include=path), targets, domain)

    def _tell(self, depth: int, address: Address, what: str) -> None:
        if self._told is not None:
            self._told(depth, address, what)


def _key(address: Address, domain: OurDomain | None) -> _Key:
    return address.local.lower(), domain_key(address.domain) if domain is None else domain.name
