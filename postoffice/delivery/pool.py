"""The connections that rest between two letters.

Remote delivery takes one out for the next letter to the same destination, or to any other that has an
address in common with it, and links put themselves back (`postoffice.delivery.link.Keeper`). One that has
rested for `idle` seconds is closed; of those that have rested for a second, only the `cached` latest
are kept. The second keeps a busy relay from closing and opening connections all the time: how many there
are at once is bounded by whoever starts deliveries. A connection is not used for longer than `life`
seconds, so that a change in the DNS is noticed.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from postoffice.delivery.link import Link, Reactor
from postoffice.mail.destination import Lmtp, Remote

_SWEEP = 1.0

Route = Remote | Lmtp


class Pool:
    """Idle links by destination, and all others there are. Times in seconds."""

    def __init__(self, reactor: Reactor, idle: float, cached: int, life: float) -> None:
        self._reactor = reactor
        self._idle = idle
        self._cached = cached
        self._life = life
        self._resting: dict[Link, tuple[Route, float]] = {}
        self._by_route: dict[Route, list[Link]] = {}
        self._routes: dict[Link, Route] = {}
        self._sweeper: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def add(self, link: Link, route: Route) -> None:
        """A link that is about to connect, for `route`."""
        self._routes[link] = route

    def take(self, route: Route) -> Link | None:
        """The link that was last used for this destination and has nothing to do now."""
        links = self._by_route.get(route)
        if not links:
            return None
        link = links[-1]
        self._wake(link)
        if link.usable:
            return link
        link.leave()
        return self.take(route)

    def take_at(self, ip: str, port: int, route: Route) -> Link | None:
        """A link to this address that has nothing to do, whatever it was for; from now on for `route`."""
        for link in reversed(self._resting):
            if link.target.ip == ip and link.target.port == port and link.usable:
                self._wake(link)
                self._routes[link] = route
                return link
        return None

    def release(self, link: Link) -> None:
        """The link can take another letter."""
        now = self._reactor.seconds()
        if self._stopped is not None or now - link.since > self._life:
            link.leave()
            return
        route = self._routes[link]
        self._resting[link] = (route, now)
        self._by_route.setdefault(route, []).append(link)
        if self._sweeper is None:
            self._sweeper = self._reactor.callLater(_SWEEP, self._sweep)

    def forget(self, link: Link) -> None:
        """The connection does not exist any more."""
        self._wake(link)
        self._routes.pop(link, None)
        if not self._routes and self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """Take leave on all idle links, and on the others when they end. Fires when no link is left."""
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for link in list(self._resting):
            self._wake(link)
            link.leave()
        if not self._routes and not stopped.called:
            stopped.callback(None)
        return stopped

    def _wake(self, link: Link) -> None:
        """The link rests no more."""
        rested = self._resting.pop(link, None)
        if rested is not None:
            links = self._by_route[rested[0]]
            links.remove(link)
            if not links:
                del self._by_route[rested[0]]

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._reactor.seconds()
        rested = [(link, now - since) for link, (_, since) in self._resting.items() if now - since >= _SWEEP]
        surplus = len(rested) - self._cached
        for at, (link, duration) in enumerate(rested):
            if at < surplus or duration >= self._idle:
                self._wake(link)
                link.leave()
        if self._resting:
            self._sweeper = self._reactor.callLater(_SWEEP, self._sweep)
