"""What lasts as long as the service does: made at the start, and told when other settings are taken over.

Called by the service. `World` is what all of it stands on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import SystemRandom
from time import thread_time
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from postoffice.assembly.delivering import local_delivery_settings, make_identities, make_local
from postoffice.assembly.registry import Ground, Registry, registry_of
from postoffice.config.places import LogTarget
from postoffice.config.settings import Settings
from postoffice.delivery.helper_process import HelperProcess
from postoffice.delivery.identities import HelpedHomes, Identities
from postoffice.delivery.lmtp import LmtpDelivery
from postoffice.delivery.local import LocalDelivery
from postoffice.delivery.passwords import HelpedPasswords
from postoffice.delivery.remote import RemoteDelivery, RemoteSettings
from postoffice.directory.accounts import Account as MailAccount
from postoffice.directory.accounts import AllAccounts, OneAccount
from postoffice.directory.homes import OwnHome
from postoffice.directory.lookup import Directory
from postoffice.interfaces import (
    IGreylistStore,
    IJournal,
    ISpool,
)
from postoffice.mail.destination import Command, File, Lmtp, Mailbox, Remote
from postoffice.mail.greylist import Bounds
from postoffice.policy.access import AccessFiles
from postoffice.policy.greylist_store import GreylistStore
from postoffice.policy.load import Load
from postoffice.policy.rates import Rates
from postoffice.queue.scheduler import QueueSettings, Scheduler
from postoffice.server.listener import Doorkeeper, Limits
from postoffice.server.throttle import Throttle
from postoffice.services.addresses import MachineAddresses
from postoffice.services.bounded import BoundedThreads
from postoffice.services.dns.resolver import Resolver
from postoffice.services.dns.system import parse_hosts, parse_resolv_conf
from postoffice.services.eager import EagerReactor
from postoffice.services.journal import Journal
from postoffice.services.privileges import (
    Account,
)
from postoffice.services.sinks import Sink, open_sink
from postoffice.services.stall import StallMeter, thread_waited
from postoffice.services.tls import Certificates, Loaded, Pair, Unusable
from postoffice.spool.sqlite import SqliteSpool
from postoffice.spool.wal import ROOM
from postoffice.watched import Watch

# Deliveries to mailboxes, and files read, at once; each waits for the disk.
FILE_THREADS = 16
# Of the environment: where a helper that is a unit of its own listens.
HELPER_SOCKET = "POSTOFFICE_HELPER"
# Passwords of virtual domains that are checked at once, and those that wait for it: more are refused for now.
PASSWORD_THREADS = 4
PASSWORDS_WAITING = 60


def _spool(directory: str, reactor: Any) -> ISpool:
    return SqliteSpool(directory, reactor, room=ROOM)


@frozen
class World:
    """What the service stands on: disk, threads, who it is, addresses and load of the machine.

    Tests bring another.
    """

    spool: Callable[[str, Any], ISpool] = _spool
    greylist: Callable[[str, Bounds, IJournal, Any], IGreylistStore] = GreylistStore
    in_thread: Callable[..., Deferred[Any]] = deferToThreadPool
    addresses: Callable[[Callable[[], float]], Callable[[], frozenset[str]]] = MachineAddresses
    load: Callable[[], tuple[float, float, float]] = os.getloadavg
    uid: Callable[[], int] = os.geteuid


THIS_WORLD = World()


@frozen
class Parts:
    """What lasts as long as the service does."""

    account: Account
    journal: Journal
    meter: StallMeter
    resolver: Resolver
    addresses: Callable[[], frozenset[str]]
    ground: Ground
    spool: ISpool
    greylist: IGreylistStore
    threads: ThreadPool
    passwords: BoundedThreads
    account_passwords: HelpedPasswords
    throttle: Throttle
    remote: RemoteDelivery
    local: LocalDelivery
    lmtp: LmtpDelivery
    identities: Identities
    helper: HelperProcess
    scheduler: Scheduler
    certificates: Certificates
    access: AccessFiles
    rates: Rates
    doorkeeper: Doorkeeper
    reactor: Any
    world: World


def make_parts(
    settings: Settings,
    host: str,
    account: Account,
    reactor: Any,
    foreground: bool,
    world: World = THIS_WORLD,
) -> tuple[Parts, Registry]:
    """Make them and wire them together; the registry is for the front, which is made next."""
    random = SystemRandom()
    journal = Journal(reactor, sinks(settings, foreground))
    journal.auditing = settings.audit
    resolver = Resolver(reactor, name_servers(settings), parse_hosts(text_of("/etc/hosts")))
    addresses = world.addresses(reactor.seconds)
    spool = world.spool(settings.spool, reactor)
    threads = ThreadPool(0, FILE_THREADS, "files")
    checking = ThreadPool(0, PASSWORD_THREADS, "passwords")
    in_thread = partial(world.in_thread, reactor, threads)
    watch = Watch(reactor.seconds, journal.warning, in_thread)
    own = MailAccount(account.name, account.uid, account.home)
    socket = os.environ.get(HELPER_SOCKET, "")
    privileged = world.uid() != account.uid or bool(socket)
    helper, identities = make_identities(settings, account.name, privileged, socket, journal, reactor)
    homes = HelpedHomes(identities) if privileged else OwnHome(own, in_thread)
    accounts = AllAccounts(in_thread, reactor.seconds) if privileged else OneAccount(own)
    ground = Ground(own, accounts, resolver, addresses, homes, watch, reactor)
    registry = registry_of(settings, host, ground)
    remote = RemoteDelivery(
        EagerReactor(reactor), resolver, remote_settings(settings, host), addresses, random
    )
    alone = account.name if privileged else None
    local = make_local(settings, host, alone, in_thread, identities, reactor)
    lmtp = LmtpDelivery(reactor, host)
    scheduler = Scheduler(
        spool,
        registry.directory,
        {Remote: remote, Mailbox: local, File: local, Command: local, Lmtp: lmtp},
        journal,
        queue_settings(settings, host),
        reactor,
        random,
    )
    parts = Parts(
        account=account,
        journal=journal,
        meter=StallMeter(reactor, journal.stalled, thread_waited, thread_time),
        resolver=resolver,
        addresses=addresses,
        ground=ground,
        spool=spool,
        greylist=greylist_store(settings, journal, reactor, world),
        threads=threads,
        passwords=BoundedThreads(
            checking, partial(world.in_thread, reactor, checking), PASSWORD_THREADS + PASSWORDS_WAITING
        ),
        account_passwords=HelpedPasswords(
            reactor, identities, account.name, accounts.find if privileged else None
        ),
        throttle=Throttle(reactor.seconds),
        remote=remote,
        local=local,
        lmtp=lmtp,
        identities=identities,
        helper=helper,
        scheduler=scheduler,
        certificates=Certificates(watch),
        access=AccessFiles(*settings.access, watch),
        rates=Rates(settings.rate, reactor.seconds),
        doorkeeper=Doorkeeper(limits(settings, reactor, world), addresses, reactor),
        reactor=reactor,
        world=world,
    )
    return parts, registry


def adapt_parts(parts: Parts, settings: Settings, host: str, directory: Directory) -> None:
    """Tell them other settings, which nothing is wrong with."""
    parts.ground.watch.look()
    parts.resolver.adapt(name_servers(settings))
    parts.remote.adapt(remote_settings(settings, host))
    own = parts.account.name if parts.helper.privileged else None
    parts.local.adapt(local_delivery_settings(settings, host, own))
    parts.lmtp.adapt(host)
    parts.scheduler.adapt(directory, queue_settings(settings, host))
    parts.access.adapt(*settings.access)
    parts.rates.adapt(settings.rate)
    parts.doorkeeper.limits = limits(settings, parts.reactor, parts.world)
    parts.greylist.adapt(greylist_bounds(settings))


def greylist_store(
    settings: Settings, journal: IJournal, reactor: Any, world: World = THIS_WORLD
) -> IGreylistStore:
    """Where the greylist keeps its records."""
    path = os.path.join(settings.spool, "policy.db")
    return world.greylist(path, greylist_bounds(settings), journal, reactor)


# What they are told of the settings.


def greylist_bounds(settings: Settings) -> Bounds:
    """For the greylist's records: a network may have a thirty-second of them, and a hundred in any case."""
    most = settings.greylist_max
    return Bounds(most, min(most, max(most // 32, 100)), settings.greylist_keep)


def sinks(settings: Settings, foreground: bool) -> Callable[[], Iterable[Sink]]:
    """What opens the log."""
    log = settings.log or (LogTarget("stderr" if foreground else "syslog"),)
    return lambda: [open_sink(target) for target in log]


def name_servers(settings: Settings) -> Sequence[tuple[str, int]]:
    """Those that were given, else the system's."""
    given = tuple((server.ip, server.port) for server in settings.nameserver)
    return given or parse_resolv_conf(text_of("/etc/resolv.conf"))


def remote_settings(settings: Settings, host: str) -> RemoteSettings:
    """For mail to other hosts."""
    return RemoteSettings(host, settings.remote_port)


def queue_settings(settings: Settings, host: str) -> QueueSettings:
    """For the queue."""
    return QueueSettings(host, settings.retry, settings.qreturn, settings.queue_run, settings.immediate)


def read_certificates(certificates: Certificates, settings: Settings) -> dict[Pair, Loaded]:
    """What the files of certificates and keys hold. Errors: LookupError that names option and file."""
    try:
        return certificates.read(map(Pair, settings.tls_cert, settings.tls_key))
    except Unusable as error:
        of_key = error.path in settings.tls_key and error.path not in settings.tls_cert
        with settings.blaming("tls-key" if of_key else "tls-cert", error.path):
            raise LookupError(str(error)) from None


def limits(settings: Settings, reactor: Any, world: World) -> Limits:
    """For all doors together."""
    load = Load(settings.load, reactor.seconds, world.load)
    return Limits(settings.clients, settings.per_client, load.is_high)


def text_of(path: str) -> str:
    """The text of a file of the system's, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
