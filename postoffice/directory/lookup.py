"""The directory: where an address is delivered.

Made by the service, asked by the session at RCPT and by the queue at every attempt. An address of a
domain of ours is expanded (`postoffice.directory.expand`); an address of any other domain is `Remote`.

When things fail: a file that never could be read gives a `Refusal` with 451, never a final answer.
RFC 5321 section 3.3 and 3.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from zope.interface import implementer

from postoffice.directory.domains import Elsewhere, OurDomain, domain_key
from postoffice.directory.expand import AT_ONCE, LOOP, NO_SUCH_USER, NOT_KNOWN_NOW, Expansion, Found
from postoffice.directory.names import Names
from postoffice.directory.sources import NOBODY, Listed, User
from postoffice.interfaces import IDirectory
from postoffice.mail.address import Address
from postoffice.mail.destination import (
    Command,
    Copy,
    Destination,
    Explanation,
    File,
    Fixed,
    Lmtp,
    Mailbox,
    Remote,
    Step,
)
from postoffice.mail.reply import Refusal, Reply
from postoffice.watched import Unreadable

# Seconds for which it is known whether an address that stands for many does so for too many, and of how many.
_KEPT = 10.0
_MOST_KEPT = 1000
# The name that was asked for and found, or what it has in common with others.
_Asked = tuple[str, str, OurDomain]


@implementer(IDirectory)
class Directory:
    """`relay_host`, where there is one, takes all mail that is not for a domain of ours.

    With `forward_all` it also takes what the DNS says nothing of. An address may stand for `most` copies, 0
    for no limit. `pause` lets others work and comes back.
    """

    def __init__(
        self,
        names: Names,
        most: int,
        pause: Callable[[], Awaitable[None]],
        relay_host: Remote | None = None,
        forward_all: bool = False,
    ) -> None:
        self._names = names
        self._most = most
        self._pause = pause
        self._relay_host = relay_host
        self._forward_all = forward_all and relay_host is not None
        # What the check said of addresses that stand for many, and when.
        self._large: dict[_Asked, tuple[float, Refusal | None]] = {}

    async def is_local(self, domain: str) -> bool:
        return isinstance(await self._place(domain), OurDomain)

    async def accepts(self, domain: str) -> bool:
        place = await self._place(domain)
        return isinstance(place, OurDomain) or place.backup

    async def is_virtual(self, domain: str) -> bool:
        place = await self._place(domain)
        return isinstance(place, OurDomain) and place.virtual

    async def check(self, address: Address) -> None:
        place = await self._place(address.domain)
        if isinstance(place, Elsewhere):
            return
        now = self._names.watch.seconds()
        try:
            asked, user = await self._asked(address.local, place, now)
        except Unreadable as error:
            raise _unknown(error) from None
        if user:
            return
        if self._knows(asked, now):
            refusal = self._large[asked][1]
        else:
            expansion = self._expansion()
            refusal = await self._checked(address, place, expansion)
            if expansion.followed > AT_ONCE:
                if len(self._large) >= _MOST_KEPT:
                    self._large.clear()
                self._large[asked] = (now, refusal)
        if refusal is not None:
            # Not that one itself, which would remember everybody it was raised to.
            raise Refusal(refusal.reply, refusal.why)

    def _knows(self, asked: _Asked, now: float) -> bool:
        return asked in self._large and 0 <= now - self._large[asked][0] < _KEPT

    async def _asked(self, local: str, place: OurDomain, now: float) -> tuple[_Asked, bool]:
        """What a check is remembered by, and whether that is a user, for whom there is nothing more to know.

        Whoever thinks of details, or of names for a catch-all, does not have it done again for each.
        """
        for name in (local, self._names.split(local)[0]):
            asked = (name.lower(), "", place)
            if self._knows(asked, now):
                return asked, False
            answer = await self._names.exact(name, place) if name else None
            if isinstance(answer, Listed):
                return ("", answer.rule, place) if answer.rule else asked, False
            if answer is not None:
                return asked, True
        return (local.lower(), "", place), False

    async def _checked(self, address: Address, place: OurDomain, expansion: Expansion) -> Refusal | None:
        """Why nobody would get a letter for an address of ours, or there are too many who would."""
        refusal: Refusal | None = None
        anybody = False
        try:
            async for found in expansion.copies(address, place):
                if found.refusal is None or found.refusal.reply.temporary:
                    anybody = True
                    # One is enough. It is what operators wrote that may stand for too many; what users say is
                    # not read for everybody's RCPT, but when a letter is there.
                    expansion.forwards = False
                refusal = refusal or found.refusal
        except Unreadable as error:
            return None if anybody else _unknown(error)
        except Refusal as refused:
            return refused
        return None if anybody else refusal or _nobody(address, expansion)

    async def resolve(
        self, address: Address, fixed: Fixed | None = None, path: Sequence[Address] = ()
    ) -> Destination | tuple[Copy, ...]:
        if isinstance(fixed, File | Command):
            await self._check_account(fixed)
            return fixed
        place = await self._place(address.domain)
        if isinstance(place, Elsewhere):
            return self._remote(place)
        try:
            if fixed is not None:
                user = await self._names.user(address.local, place)
                if user is None:
                    raise Refusal(NO_SUCH_USER, f"the user is gone: {address}")
                return user.mailbox
            if not path:
                # What most addresses are takes no expansion.
                answer = await self._names.exact(address.local, place)
                if isinstance(answer, User) and not (
                    answer.account and await self._names.files.forward(answer.account)
                ):
                    return answer.mailbox
            expansion = self._expansion()
            copies = [found.copy async for found in expansion.copies(address, place, path)]
        except Unreadable as error:
            raise _unknown(error) from None
        if not copies:
            raise _nobody(address, expansion)
        first = copies[0]
        if len(copies) == 1 and first.path == tuple(path) and first.destination is not None:
            return first.destination
        return tuple(copies)

    async def owns(self, login: str, address: Address) -> bool:
        """Whether a letter for the address goes to the mailbox of that user by what operators wrote down.

        A user who forwards his mail to another does not lend him his name. Errors: `Refusal` with 451.
        """
        place = await self._place(address.domain)
        if isinstance(place, Elsewhere):
            return False
        try:
            async for found in self._expansion(forwards=False).copies(address, place):
                match found.copy.destination:
                    case Mailbox(owner=owner) | Lmtp(owner=owner) if owner.lower() == login.lower():
                        return True
        except Unreadable as error:
            raise _unknown(error) from None
        except Refusal as refusal:
            if refusal.reply.temporary:
                raise
        return False

    async def explain(self, address: Address) -> Explanation:
        steps: list[Step] = []
        copies: dict[str, tuple[Copy, Reply | None]] = {}
        refusal: Reply | None = None
        pending: list[tuple[Address, tuple[Address, ...]]] = [(address, ())]
        while pending:
            one, path = pending.pop()
            try:
                found = await self._explained(one, path, steps)
            except Refusal as refused:
                found = [Found(Copy(one, path), refused)]
                refusal = None if path else refused.reply
            for each in found:
                copy = each.copy
                if copy.destination is None and each.refusal is None:
                    pending.append((copy.address, copy.path))
                elif path or refusal is None:
                    copies.setdefault(copy.key, (copy, each.refusal.reply if each.refusal else None))
        return Explanation(tuple(steps), tuple(copies.values()), refusal)

    async def _explained(self, address: Address, path: tuple[Address, ...], steps: list[Step]) -> list[Found]:
        """The copies of an address, its steps added to others. Errors: `Refusal`."""
        place = await self._place(address.domain)
        if isinstance(place, Elsewhere):
            if not path:
                steps.append(Step(0, address, "elsewhere"))
            return [Found(Copy(address, path, None, self._remote(place)))]
        expansion = self._expansion(
            told=lambda depth, address, what: steps.append(Step(depth, address, what))
        )
        try:
            found = [each async for each in expansion.copies(address, place, path)]
        except Unreadable as error:
            raise _unknown(error) from None
        if not found:
            raise _nobody(address, expansion)
        return found

    def _expansion(
        self, forwards: bool = True, told: Callable[[int, Address, str], None] | None = None
    ) -> Expansion:
        return Expansion(self._names, self._most, self._pause, forwards=forwards, told=told)

    async def _place(self, domain: str) -> OurDomain | Elsewhere:
        try:
            return await self._names.domains.place(domain)
        except Unreadable as error:
            raise _unknown(error) from None
        except Refusal:
            if not self._forward_all:
                raise
            return Elsewhere(domain_key(domain))

    def _remote(self, place: Elsewhere) -> Remote:
        if place.backup:
            return Remote(place.name)
        return self._relay_host or Remote(place.name, direct=place.name.startswith("["))

    async def _check_account(self, fixed: File | Command) -> None:
        """What a user asked for is not done any more once the user is gone."""
        domain = await self._names.domains.find("")
        assert domain is not None, "the bare name is always ours"
        if fixed.account != NOBODY and await self._names.user(fixed.account, domain) is None:
            raise Refusal(NO_SUCH_USER, f"the user is gone: {fixed.account}")


def _nobody(address: Address, expansion: Expansion) -> Refusal:
    if expansion.looped:
        return Refusal(LOOP, f"{address} leads back to itself")
    return Refusal(NO_SUCH_USER, f"{address} stands for nobody")


def _unknown(error: Unreadable) -> Refusal:
    return Refusal(NOT_KNOWN_NOW, f"{error} cannot be read")
