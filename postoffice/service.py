"""The service: all parts together, and the order in which they start and stop.

`make_office` only builds objects. Other settings may be taken over while it runs: `make_front` makes what
meets clients anew, with the functions that made it at the start, and the parts that last are told theirs.
Sessions under way keep what they began with.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList

from postoffice.assembly.front import Front, make_front
from postoffice.assembly.parts import (
    THIS_WORLD,
    Parts,
    World,
    adapt_parts,
    make_parts,
    read_certificates,
    sinks,
)
from postoffice.assembly.registry import registry_of
from postoffice.config.places import Listen
from postoffice.config.report import differences, warnings
from postoffice.config.settings import Settings
from postoffice.config_file import unfit
from postoffice.interfaces import (
    SpoolDamaged,
    SpoolFailed,
    SpoolFull,
)
from postoffice.mail.client import Door
from postoffice.server.listener import Entrance
from postoffice.server.local import LocalFactory
from postoffice.server.local_port import LocalPort, caller_of
from postoffice.services.privileges import (
    Account,
    account_name,
    give_up_root,
    make_directory,
)
from postoffice.services.sockets import Sockets

# What is settled before root is given up, or belongs to what lasts as long as the service does.
AT_START = frozenset(
    {"listen", "msp", "smtps", "user", "spool", "control", "min-uid", "vuser", "root-mail", "mailbox"}
)
NOT_TAKEN_OVER = "the configuration was not taken over, the one before stays in force"

# Seconds that attempts under way, and letters coming in, may take once we are asked to stop.
DRAIN_ATTEMPTS = 5.0
DRAIN_SESSIONS = 3.0


def make_office(
    settings: Settings, account: Account, reactor: Any, foreground: bool, world: World = THIS_WORLD
) -> Office:
    """Make every part and wire them together."""
    host = host_name(settings)
    parts, registry = make_parts(settings, host, account, reactor, foreground, world)
    return Office(parts, make_front(settings, host, registry, parts), settings, host, foreground)


class Doors:
    """What clients connect to. The sockets stay; who serves those that come is told by `adapt`."""

    def __init__(self, settings: Settings, front: Front, parts: Parts) -> None:
        self.entrances = {name: Entrance(factory) for name, factory in front.doors.items()}
        places: tuple[tuple[Door, Sequence[Listen]], ...] = (
            ("smtp", settings.listen),
            ("msp", settings.msp),
            ("smtps", settings.smtps),
        )
        self.sockets = Sockets([(place, self.entrances[name]) for name, place in places], parts.reactor)
        self.local_factory = LocalFactory(
            front.office, account_name, caller_of, parts.journal, front.local, parts.reactor
        )
        self.local = LocalPort(settings.control, self.local_factory, parts.reactor)

    def adapt(self, front: Front) -> None:
        """Who comes from now on meets this front."""
        for name, factory in front.doors.items():
            self.entrances[name].factory = factory
        self.local_factory.office, self.local_factory.settings = front.office, front.local


class Office(MultiService):
    """The whole service: the order in which its parts start and stop.

    `fatal` is called with a text when it cannot go on; the caller ends the process with a failure.
    """

    def __init__(self, parts: Parts, front: Front, settings: Settings, host: str, foreground: bool) -> None:
        super().__init__()
        self.foreground = foreground
        self.parts = parts
        self.doors = Doors(settings, front, parts)
        self.filters = front.filters
        self.settings = settings
        self.host = host
        self.fatal: Callable[[str], None] = parts.journal.fatal
        self._opened: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """As root, if we are: take the addresses, make the directories we will own, start the helper."""
        account = self.parts.account
        try:
            self.parts.journal.open()
            self.parts.certificates.take(read_certificates(self.parts.certificates, self.settings))
            make_directory(self.settings.spool, account, 0o700)
            make_directory(os.path.dirname(self.settings.control), account, 0o755)
            self.doors.sockets.bind()
            if self.parts.helper.at_start:
                self.parts.helper.start()
        except LookupError as error:
            self.parts.journal.fatal(f"cannot start: {error}")
            raise SystemExit(os.EX_CONFIG) if self.foreground else error from None
        except OSError as error:
            # No reactor runs yet that `fatal` could stop. A daemon's parent waits for an exception.
            where = f"{error.filename}: " if error.filename else ""
            self.parts.journal.fatal(f"cannot start: {where}{error.strerror or error}")
            raise SystemExit(os.EX_OSERR) if self.foreground else error from None
        super().privilegedStartService()

    def startService(self) -> None:
        """Become the service's account, then open the spool and the doors."""
        give_up_root(self.parts.account)
        super().startService()
        self.parts.journal.start()
        self.parts.helper.listen()
        self._opened = Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        parts = self.parts
        # As the account we are now, which may be unable to read what root could.
        for warning in (*warnings(self.settings), *unfit(self.settings, unprivileged=False)):
            parts.journal.warning(str(warning))
        parts.certificates.refresh()
        try:
            await parts.spool.open()
        except (SpoolDamaged, SpoolFailed, SpoolFull) as error:
            self.fatal(f"{parts.account.name} cannot use the spool {self.settings.spool}: {error}")
            return
        await parts.greylist.open()
        try:
            # As the account we are now: whose code it is, is not known.
            if self.filters is not None:
                self.filters.load()
        except LookupError as error:
            self.fatal(f"cannot start: {error}")
            return
        try:
            where = await self.doors.sockets.listen()
            self.doors.local.listen()
        except Exception as error:
            self.fatal(f"cannot listen: {error}")
            return
        parts.threads.start()
        parts.passwords.start()
        parts.scheduler.start()
        parts.meter.start()
        parts.journal.ready(where)
        notify("READY=1")

    def reload(self, settings: Settings) -> None:
        """Take over other settings. Sessions and attempts under way keep theirs; what only a start can change
        is told in a warning. Where something is wrong with them nothing changes, and an error tells it.
        """
        parts, journal, before = self.parts, self.parts.journal, self.settings
        # The resolved name of the machine is a start's: asking for it holds everything up.
        host = self.host if settings.hostname in ("auto", before.hostname) else host_name(settings)
        try:
            registry = registry_of(settings, host, parts.ground)
            front = make_front(settings, host, registry, parts)
            if front.filters is not None:
                front.filters.load()
            certificates = read_certificates(parts.certificates, settings)
            if settings.log != before.log:
                journal.reopen(sinks(settings, self.foreground))
        except (LookupError, OSError) as error:
            journal.error(f"{NOT_TAKEN_OVER}: {error}")
            return
        adapt_parts(parts, settings, host, registry.directory)
        parts.certificates.take(certificates)
        self.doors.adapt(front)
        if settings.audit != before.audit:
            journal.auditing = settings.audit
        self.settings, self.host = settings, host
        changed = differences(before, settings)
        journal.reloaded(changed)
        late = [name for name in changed if name in AT_START or getattr(settings, name, "") == "auto"]
        for text in (*warnings(settings), *(f"{name}: changed; restart to apply it" for name in late)):
            journal.warning(text)

    def toggle_audit(self) -> None:
        """Begin or end audit records."""
        self.parts.journal.toggle_audit()

    async def _close(self) -> None:
        """Let nobody in, finish what is in hand within a bound, and close the spool last."""
        parts = self.parts
        notify("STOPPING=1")
        parts.meter.stop()
        for step in (
            self._wait_until_open,
            self.doors.sockets.close,
            self._drain,
            self._end_deliveries,
            parts.resolver.close,
            self._end_threads,
            parts.greylist.close,
            parts.spool.close,
        ):
            try:
                await step()
            except Exception as error:
                # The spool is closed whatever went wrong before it.
                parts.journal.error("cannot stop in good order", error)
        parts.journal.stopped(parts.meter.longest)
        parts.journal.stop()

    async def _wait_until_open(self) -> None:
        if self._opened is not None:
            await self._opened

    async def _drain(self) -> None:
        """All at the same time, so that the bounds do not add up."""
        parts, doors = self.parts, self.doors
        doors.local.stop()
        await self._together(
            Deferred.fromCoroutine(doors.local_factory.drain(DRAIN_SESSIONS)),
            Deferred.fromCoroutine(parts.doorkeeper.stop(DRAIN_SESSIONS)),
            Deferred.fromCoroutine(parts.scheduler.stop(DRAIN_ATTEMPTS)),
        )

    async def _end_deliveries(self) -> None:
        """Close connections, and undo what was cut off in a mailbox while there are threads for it."""
        await self._together(
            self.parts.remote.stop(),
            self.parts.local.stop(),
            self.parts.lmtp.stop(),
            Deferred.fromCoroutine(self.parts.identities.stop()),
        )

    async def _together(self, *work: Deferred[None]) -> None:
        results: list[tuple[bool, Any]] = await DeferredList(work, consumeErrors=True)
        for done, result in results:
            if not done:
                self.parts.journal.error("cannot stop in good order", result.value)

    async def _end_threads(self) -> None:
        if self.parts.threads.started:
            self.parts.threads.stop()
        self.parts.passwords.stop()

    def stopService(self) -> Deferred[Any]:
        """Finish and close; fires when everything acknowledged is safe and every thread has ended."""
        closed = Deferred.fromCoroutine(self._close())
        return closed.addBoth(lambda _: super(Office, self).stopService())


def host_name(settings: Settings) -> str:
    """Our name: `auto` is the machine's resolved name, `literal` its raw one, else the name itself."""
    match settings.hostname:
        case "auto":
            return socket.getfqdn()
        case "literal":
            return socket.gethostname()
        case name:
            return name


def notify(state: str) -> None:
    """Tell systemd, where it asked for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            pass
