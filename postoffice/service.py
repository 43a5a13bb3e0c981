"""The assembly: every part is made from the settings here, and handed its neighbours.

`make_office` only builds objects: no thread, socket, file or database. `Office` is the order in
which they start and stop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from postoffice.config.places import LogTarget
from postoffice.config.report import warnings
from postoffice.config.settings import Settings
from postoffice.delivery.mailbox import MailboxDelivery, MailboxSettings
from postoffice.delivery.remote import RemoteDelivery, RemoteSettings
from postoffice.directory.accounts import Account as MailAccount
from postoffice.directory.accounts import SystemUsers, VirtualUsers
from postoffice.directory.domains import Domains, LocalNames
from postoffice.directory.lookup import Directory, Postmaster, SystemMailboxes, VirtualMailboxes
from postoffice.directory.mailboxes import tree_of
from postoffice.interfaces import SpoolDamaged, SpoolFailed, SpoolFull
from postoffice.mail.client import Door
from postoffice.mail.destination import Mailbox, Remote
from postoffice.mail.reply import printable
from postoffice.policy.client import Clients, ClientSettings
from postoffice.policy.policy import Policy
from postoffice.queue.scheduler import QueueSettings, Scheduler
from postoffice.server.intake import Intake, IntakeSettings
from postoffice.server.link import Pace
from postoffice.server.listener import Doorkeeper, Limits, SmtpFactory
from postoffice.server.local import LocalFactory
from postoffice.server.local_port import LocalPort, caller_of
from postoffice.server.office import LocalSettings
from postoffice.server.session import SessionSettings
from postoffice.server.submission import LocalOffice
from postoffice.services.addresses import MachineAddresses
from postoffice.services.dns.resolver import Resolver
from postoffice.services.dns.system import parse_hosts, parse_resolv_conf
from postoffice.services.eager import EagerReactor
from postoffice.services.journal import Journal, open_sink
from postoffice.services.privileges import (
    Account,
    account_name,
    full_name,
    give_up_root,
    group_id,
    make_directory,
)
from postoffice.services.sockets import Sockets
from postoffice.services.stall import StallMeter
from postoffice.spool.sqlite import SqliteSpool
from postoffice.watched import Watch

# Deliveries to mailboxes at once; each waits for the disk.
MAILBOX_THREADS = 16
# Seconds that attempts under way, and letters coming in, may take once we are asked to stop.
DRAIN_ATTEMPTS = 5.0
DRAIN_SESSIONS = 3.0


@frozen
class Parts:
    """What `Office` starts and stops."""

    account: Account
    journal: Journal
    meter: StallMeter
    resolver: Resolver
    spool: SqliteSpool
    threads: ThreadPool
    remote: RemoteDelivery
    mailbox: MailboxDelivery
    scheduler: Scheduler
    doorkeeper: Doorkeeper
    sockets: Sockets
    local: LocalPort
    local_factory: LocalFactory


def make_office(settings: Settings, account: Account, reactor: Any, foreground: bool) -> Office:
    """Make every part and wire them together."""
    host = host_name(settings)
    random = SystemRandom()
    log = settings.log or (LogTarget("stderr" if foreground else "syslog"),)
    journal = Journal(reactor, lambda: [open_sink(target) for target in log])
    servers = tuple((server.ip, server.port) for server in settings.nameserver)
    resolver = Resolver(
        reactor,
        servers or parse_resolv_conf(_text("/etc/resolv.conf")),
        parse_hosts(_text("/etc/hosts")),
    )
    addresses = MachineAddresses(reactor.seconds)
    watch = Watch(reactor.seconds, journal.warning)
    own = MailAccount(account.name, account.uid, account.home)
    directory = Directory(
        Domains(LocalNames(host, settings.localdomain), settings.virtual, addresses, watch),
        (
            SystemMailboxes(SystemUsers(own), settings.mailbox),
            VirtualMailboxes(VirtualUsers(settings.virtual, watch), settings.vmailbox),
            Postmaster(own, settings.mailbox),
        ),
        settings.relay_host,
    )
    spool = SqliteSpool(settings.spool, reactor)
    threads = ThreadPool(0, MAILBOX_THREADS, "mailboxes")
    remote = RemoteDelivery(
        EagerReactor(reactor), resolver, RemoteSettings(host, settings.remote_port), addresses, random
    )
    mailbox = MailboxDelivery(
        partial(deferToThreadPool, reactor, threads),
        reactor,
        MailboxSettings(host, settings.escape_from, tree_of(settings.vmailbox)),
    )
    scheduler = Scheduler(
        spool,
        directory,
        {Remote: remote, Mailbox: mailbox},
        journal,
        QueueSettings(host, settings.retry, settings.qreturn, settings.queue_run, settings.immediate),
        reactor,
        random,
    )
    intake = Intake(
        spool,
        scheduler,
        directory,
        journal,
        IntakeSettings(host, settings.hops, settings.minfree, settings.spool),
        reactor,
    )
    doorkeeper = Doorkeeper(Limits(settings.clients, settings.per_client), addresses, reactor)
    policy = Policy(Clients(ClientSettings(frozenset(settings.trusted)), doorkeeper.at_home, resolver))
    conversation = SessionSettings(
        host,
        banner="\n".join(map(printable, _text(settings.banner).strip().splitlines())),
        size=settings.size,
        recipients=settings.recipients,
        errors=settings.errors,
        open_relay=settings.relay,
        bare_newline=settings.bare_newline,
        require_helo=settings.require_helo,
    )
    pace = Pace(settings.timeout, settings.min_rate)

    def door(name: Door) -> SmtpFactory:
        return SmtpFactory(evolve(conversation, door=name), pace, doorkeeper, directory, policy, intake)

    local = LocalFactory(
        LocalOffice(intake, spool, scheduler, directory, full_name),
        account_name,
        caller_of,
        journal,
        LocalSettings(
            host,
            account.uid,
            group_id(settings.control_group),
            settings.mailq_all,
            settings.recipients,
            settings.timeout,
        ),
        reactor,
    )
    return Office(
        Parts(
            account=account,
            journal=journal,
            meter=StallMeter(reactor),
            resolver=resolver,
            spool=spool,
            threads=threads,
            remote=remote,
            mailbox=mailbox,
            scheduler=scheduler,
            doorkeeper=doorkeeper,
            sockets=Sockets(((settings.listen, door("smtp")), (settings.msp, door("msp"))), reactor),
            local=LocalPort(settings.control, local, reactor),
            local_factory=local,
        ),
        settings,
        reactor,
        foreground,
    )


class Office(MultiService):
    """The whole service: the order in which its parts start and stop.

    `fatal` is called with a text when it cannot go on; the caller ends the process with a failure.
    """

    def __init__(self, parts: Parts, settings: Settings, reactor: Any, foreground: bool) -> None:
        super().__init__()
        self.foreground = foreground
        self.parts = parts
        self.settings = settings
        self.reactor = reactor
        self.fatal: Callable[[str], None] = parts.journal.fatal
        self._opened: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """As root, if we are: take the addresses, and make the directories we will own."""
        account = self.parts.account
        try:
            self.parts.journal.open()
            make_directory(self.settings.spool, account, 0o700)
            make_directory(os.path.dirname(self.settings.control), account, 0o755)
            self.parts.sockets.bind()
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
        self._opened = Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        parts = self.parts
        for warning in warnings(self.settings):
            parts.journal.warning(warning)
        try:
            await parts.spool.open()
        except (SpoolDamaged, SpoolFailed, SpoolFull) as error:
            self.fatal(f"{parts.account.name} cannot use the spool {self.settings.spool}: {error}")
            return
        try:
            where = await parts.sockets.listen()
            parts.local.listen()
        except Exception as error:
            self.fatal(f"cannot listen: {error}")
            return
        parts.threads.start()
        parts.scheduler.start()
        parts.meter.start()
        parts.journal.ready(where)
        notify("READY=1")

    async def _close(self) -> None:
        """Let nobody in, finish what is in hand within a bound, and close the spool last."""
        parts = self.parts
        notify("STOPPING=1")
        parts.meter.stop()
        for step in (
            self._wait_until_open,
            parts.sockets.close,
            self._drain,
            self._end_deliveries,
            parts.resolver.close,
            self._end_threads,
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
        parts = self.parts
        parts.local.stop()
        await self._together(
            Deferred.fromCoroutine(parts.local_factory.drain(DRAIN_SESSIONS)),
            Deferred.fromCoroutine(parts.doorkeeper.stop(DRAIN_SESSIONS)),
            Deferred.fromCoroutine(parts.scheduler.stop(DRAIN_ATTEMPTS)),
        )

    async def _end_deliveries(self) -> None:
        """Close connections, and undo what was cut off in a mailbox while there are threads for it."""
        await self._together(self.parts.remote.stop(), self.parts.mailbox.stop())

    async def _together(self, *work: Deferred[None]) -> None:
        results: list[tuple[bool, Any]] = await DeferredList(work, consumeErrors=True)
        for done, result in results:
            if not done:
                self.parts.journal.error("cannot stop in good order", result.value)

    async def _end_threads(self) -> None:
        if self.parts.threads.started:
            self.parts.threads.stop()

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


def _text(path: str) -> str:
    """The text of a file of the system's, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
