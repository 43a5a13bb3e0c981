"""The assembly: every part is made from the settings here, and handed its neighbours.

`make_office` only builds objects: no thread, socket, file or database. `Office` is the order in
which they start and stop. Other settings may be taken over while it runs: `make_front` makes what meets
clients anew, with the functions that made it at the start, and the parts that last are told theirs by
`adapt`. Sessions under way keep what they began with.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import SystemRandom
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from postoffice.config.places import Listen, LogTarget
from postoffice.config.report import differences, in_force, warnings
from postoffice.config.settings import Settings
from postoffice.delivery.mailbox import MailboxDelivery, MailboxSettings
from postoffice.delivery.remote import RemoteDelivery, RemoteSettings
from postoffice.directory.accounts import Account as MailAccount
from postoffice.directory.accounts import SystemUsers, VirtualUsers
from postoffice.directory.domains import Domains, LocalNames
from postoffice.directory.lookup import Directory, Postmaster, SystemMailboxes, VirtualMailboxes
from postoffice.directory.mailboxes import tree_of
from postoffice.directory.passwords import SystemPasswords, VirtualPasswords
from postoffice.interfaces import (
    IGreylistStore,
    IJournal,
    ISpool,
    SpoolDamaged,
    SpoolFailed,
    SpoolFull,
)
from postoffice.mail.client import Door
from postoffice.mail.destination import Mailbox, Remote
from postoffice.mail.greylist import Bounds
from postoffice.mail.reply import printable
from postoffice.policy.access import AccessFiles
from postoffice.policy.client import Clients, ClientSettings
from postoffice.policy.greylist import Greylist, GreylistSettings
from postoffice.policy.greylist_store import GreylistStore
from postoffice.policy.lists import Lists
from postoffice.policy.load import Load
from postoffice.policy.newcomers import Newcomers
from postoffice.policy.policy import Judges, Policy, PolicySettings
from postoffice.policy.rates import Rates
from postoffice.policy.sender import Senders, SenderSettings
from postoffice.queue.scheduler import QueueSettings, Scheduler
from postoffice.server.intake import Intake, IntakeSettings
from postoffice.server.link import Pace
from postoffice.server.listener import Doorkeeper, Entrance, Limits, SmtpFactory
from postoffice.server.local import LocalFactory
from postoffice.server.local_port import LocalPort, caller_of
from postoffice.server.office import LocalSettings
from postoffice.server.portal import Authenticator, make_authenticator
from postoffice.server.session import SessionSettings
from postoffice.server.submission import LocalOffice
from postoffice.server.throttle import Throttle
from postoffice.services.addresses import MachineAddresses
from postoffice.services.bounded import BoundedThreads
from postoffice.services.dns.resolver import Resolver
from postoffice.services.dns.system import parse_hosts, parse_resolv_conf
from postoffice.services.eager import EagerReactor
from postoffice.services.hashes import PasswordHashes
from postoffice.services.journal import Journal, Sink, open_sink
from postoffice.services.privileges import (
    Account,
    account_name,
    full_name,
    give_up_root,
    group_id,
    make_directory,
)
from postoffice.services.sockets import Sockets
from postoffice.services.stall import StallMeter, thread_waited
from postoffice.services.system_passwords import PamPasswords, ShadowPasswords
from postoffice.services.tls import Certificates, Pair, Unusable
from postoffice.spool.sqlite import SqliteSpool
from postoffice.watched import Watch

# What is settled before root is given up, or belongs to what lasts as long as the service does.
AT_START = frozenset({"listen", "msp", "smtps", "user", "spool", "control"})
NOT_TAKEN_OVER = "the configuration was not taken over, the one before stays in force"

# Deliveries to mailboxes at once; each waits for the disk.
MAILBOX_THREADS = 16
# Passwords that are checked at once, and those that wait for it: more are refused for now.
PASSWORD_THREADS = 4
PASSWORDS_WAITING = 60
# Seconds that attempts under way, and letters coming in, may take once we are asked to stop.
DRAIN_ATTEMPTS = 5.0
DRAIN_SESSIONS = 3.0


@frozen
class World:
    """What the service stands on: disk, threads, addresses and load of the machine. Tests bring another."""

    spool: Callable[[str, Any], ISpool] = SqliteSpool
    greylist: Callable[[str, Bounds, IJournal, Any], IGreylistStore] = GreylistStore
    in_thread: Callable[..., Deferred[Any]] = deferToThreadPool
    addresses: Callable[[Callable[[], float]], Callable[[], frozenset[str]]] = MachineAddresses
    load: Callable[[], tuple[float, float, float]] = os.getloadavg


THIS_WORLD = World()


@frozen
class Parts:
    """What lasts as long as the service does."""

    account: Account
    journal: Journal
    meter: StallMeter
    resolver: Resolver
    addresses: Callable[[], frozenset[str]]
    watch: Watch
    spool: ISpool
    greylist: IGreylistStore
    threads: ThreadPool
    passwords: BoundedThreads
    throttle: Throttle
    remote: RemoteDelivery
    mailbox: MailboxDelivery
    scheduler: Scheduler
    certificates: Certificates
    access: AccessFiles
    rates: Rates
    doorkeeper: Doorkeeper
    reactor: Any
    world: World


@frozen
class Front:
    """What meets clients, made from one version of the settings."""

    doors: Mapping[Door, SmtpFactory]
    office: LocalOffice
    local: LocalSettings


def make_office(
    settings: Settings, account: Account, reactor: Any, foreground: bool, world: World = THIS_WORLD
) -> Office:
    """Make every part and wire them together."""
    host = host_name(settings)
    random = SystemRandom()
    journal = Journal(reactor, sinks(settings, foreground))
    journal.auditing = settings.audit
    resolver = Resolver(reactor, name_servers(settings), parse_hosts(_text("/etc/hosts")))
    addresses = world.addresses(reactor.seconds)
    watch = Watch(reactor.seconds, journal.warning)
    registry = registry_of(settings, host, account, addresses, watch)
    directory = registry.directory
    spool = world.spool(settings.spool, reactor)
    threads = ThreadPool(0, MAILBOX_THREADS, "mailboxes")
    checking = ThreadPool(0, PASSWORD_THREADS, "passwords")
    remote = RemoteDelivery(
        EagerReactor(reactor), resolver, remote_settings(settings, host), addresses, random
    )
    mailbox = MailboxDelivery(
        partial(world.in_thread, reactor, threads), reactor, mailbox_settings(settings, host)
    )
    scheduler = Scheduler(
        spool,
        directory,
        {Remote: remote, Mailbox: mailbox},
        journal,
        queue_settings(settings, host),
        reactor,
        random,
    )
    parts = Parts(
        account=account,
        journal=journal,
        meter=StallMeter(reactor, journal.stalled, thread_waited),
        resolver=resolver,
        addresses=addresses,
        watch=watch,
        spool=spool,
        greylist=greylist_store(settings, journal, reactor, world),
        threads=threads,
        passwords=BoundedThreads(
            checking, partial(world.in_thread, reactor, checking), PASSWORD_THREADS + PASSWORDS_WAITING
        ),
        throttle=Throttle(reactor.seconds),
        remote=remote,
        mailbox=mailbox,
        scheduler=scheduler,
        certificates=Certificates(watch),
        access=AccessFiles(*settings.access, watch),
        rates=Rates(settings.rate, reactor.seconds),
        doorkeeper=Doorkeeper(limits(settings, reactor, world), addresses, reactor),
        reactor=reactor,
        world=world,
    )
    return Office(parts, make_front(settings, host, registry, parts), settings, host, foreground)


@frozen
class Registry:
    """Whose mail is ours and where it goes: the domains, the users of the virtual ones, and both together."""

    domains: Domains
    users: VirtualUsers
    directory: Directory


def registry_of(
    settings: Settings,
    host: str,
    account: Account,
    addresses: Callable[[], frozenset[str]],
    watch: Watch,
) -> Registry:
    """What the settings say of it."""
    own = MailAccount(account.name, account.uid, account.home)
    domains = Domains(LocalNames(host, settings.localdomain), settings.virtual, addresses, watch)
    users = VirtualUsers(settings.virtual, watch)
    directory = Directory(
        domains,
        (
            SystemMailboxes(SystemUsers(own), settings.mailbox),
            VirtualMailboxes(users, settings.vmailbox),
            Postmaster(own, settings.mailbox),
        ),
        settings.relay_host,
    )
    return Registry(domains, users, directory)


def policy_of(
    settings: Settings, host: str, greylist: Greylist, directory: Directory, parts: Parts
) -> Policy:
    """Whom we talk to, and what we take from them."""
    clients = ClientSettings(
        host,
        trusted=frozenset(settings.trusted),
        paranoid=settings.paranoid,
        dnscheck=settings.dnscheck,
        localmx=settings.localmx,
        forbidden=settings.forbidden,
    )
    resolver = parts.resolver
    lists = Lists(settings.dnsbl, settings.dnswl, resolver, parts.journal.warning)
    judges = Judges(
        Clients(clients, parts.addresses, resolver, parts.access),
        Senders(SenderSettings(settings.verify_from, settings.nodaemon), directory, resolver),
        lists,
        parts.rates,
        Newcomers(greylist, lists, directory) if settings.greylist else None,
    )
    rules = PolicySettings(host, settings.checkhelo, smarthost=settings.relay_host is not None)
    return Policy(rules, judges, resolver, parts.addresses)


def authenticator_of(settings: Settings, registry: Registry, parts: Parts) -> Authenticator:
    """Who may log in. Errors: LookupError for a source of accounts that this machine does not have."""
    domains, run, hashes = registry.domains, parts.passwords, PasswordHashes()
    make: dict[str, Callable[[], ICredentialsChecker]] = {
        "virtual": lambda: VirtualPasswords(domains, registry.users, hashes, run),
        "passwd": lambda: SystemPasswords(domains, ShadowPasswords(hashes).check, run),
        "pam": lambda: SystemPasswords(domains, PamPasswords().check, run),
    }
    of_system = any(source != "virtual" for source in settings.auth)
    return make_authenticator(
        registry.directory,
        [make[source]() for source in settings.auth],
        parts.throttle,
        lambda: of_system or domains.any_virtual(),
    )


def make_front(settings: Settings, host: str, registry: Registry, parts: Parts) -> Front:
    """What meets clients from now on. Errors: LookupError for a group or a source that does not exist."""
    directory = registry.directory
    intake = Intake(
        parts.spool,
        parts.scheduler,
        directory,
        parts.journal,
        IntakeSettings(
            host,
            settings.hops,
            settings.minfree,
            settings.spool,
            settings.forbidden.text if settings.forbidden.mode == "folder" else "",
        ),
        parts.reactor,
    )
    doorkeeper = parts.doorkeeper
    greylist = make_greylist(settings, parts.greylist, parts.journal, parts.reactor)
    policy = policy_of(settings, host, greylist, directory, parts)
    conversation = SessionSettings(
        host,
        banner="\n".join(map(printable, _text(settings.banner).strip().splitlines())),
        size=settings.size,
        recipients=settings.recipients,
        errors=settings.errors,
        open_relay=settings.relay,
        bare_newline=settings.bare_newline,
        require_helo=settings.require_helo,
        lenient_order=settings.lenient_order,
        proxy=settings.proxy,
        xclient=settings.xclient,
        disclosure=tuple(in_force(settings)) if settings.debug else (),
        auth_plaintext=settings.auth_plaintext,
        auth_any_sender=settings.auth_any_sender,
    )
    authenticator = authenticator_of(settings, registry, parts)
    pace = Pace(settings.timeout, settings.min_rate)

    def door(name: Door) -> SmtpFactory:
        there = evolve(conversation, door=name, require_auth=settings.msp_auth and name != "smtp")
        encryption = parts.certificates
        return SmtpFactory(there, pace, doorkeeper, directory, policy, intake, encryption, authenticator)

    return Front(
        doors={"smtp": door("smtp"), "msp": door("msp"), "smtps": door("smtps")},
        office=LocalOffice(intake, parts.spool, parts.scheduler, directory, policy, greylist, full_name),
        local=LocalSettings(
            host,
            parts.account.uid,
            group_id(settings.control_group),
            settings.mailq_all,
            settings.recipients,
            settings.timeout,
        ),
    )


def greylist_store(
    settings: Settings, journal: IJournal, reactor: Any, world: World = THIS_WORLD
) -> IGreylistStore:
    """Where the greylist keeps its records."""
    path = os.path.join(settings.spool, "policy.db")
    return world.greylist(path, greylist_bounds(settings), journal, reactor)


def make_greylist(settings: Settings, store: IGreylistStore, journal: IJournal, reactor: Any) -> Greylist:
    """The greylist on its records."""
    return Greylist(
        store,
        GreylistSettings(
            settings.delay,
            settings.greylist_keep,
            settings.greylist_null,
            settings.greylist_from,
            settings.greylist_net,
        ),
        journal,
        reactor.seconds,
    )


# What the parts that last are told of the settings.


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
    return given or parse_resolv_conf(_text("/etc/resolv.conf"))


def remote_settings(settings: Settings, host: str) -> RemoteSettings:
    """For mail to other hosts."""
    return RemoteSettings(host, settings.remote_port)


def mailbox_settings(settings: Settings, host: str) -> MailboxSettings:
    """For mail to mailboxes here."""
    return MailboxSettings(host, settings.escape_from, tree_of(settings.vmailbox))


def queue_settings(settings: Settings, host: str) -> QueueSettings:
    """For the queue."""
    return QueueSettings(host, settings.retry, settings.qreturn, settings.queue_run, settings.immediate)


def pairs(settings: Settings) -> list[Pair]:
    """The certificates and their keys."""
    return list(map(Pair, settings.tls_cert, settings.tls_key))


def limits(settings: Settings, reactor: Any, world: World) -> Limits:
    """For all doors together."""
    load = Load(settings.load, reactor.seconds, world.load)
    return Limits(settings.clients, settings.per_client, load.is_high)


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
        self.settings = settings
        self.host = host
        self.fatal: Callable[[str], None] = parts.journal.fatal
        self._opened: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """As root, if we are: take the addresses, and make the directories we will own."""
        account = self.parts.account
        try:
            self.parts.journal.open()
            self.parts.certificates.take(self.parts.certificates.read(pairs(self.settings)))
            make_directory(self.settings.spool, account, 0o700)
            make_directory(os.path.dirname(self.settings.control), account, 0o755)
            self.doors.sockets.bind()
        except Unusable as error:
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
        self._opened = Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        parts = self.parts
        for warning in warnings(self.settings):
            parts.journal.warning(warning)
        # As the account we are now, which may be unable to read what root could.
        parts.certificates.refresh()
        try:
            await parts.spool.open()
        except (SpoolDamaged, SpoolFailed, SpoolFull) as error:
            self.fatal(f"{parts.account.name} cannot use the spool {self.settings.spool}: {error}")
            return
        await parts.greylist.open()
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
            registry = registry_of(settings, host, parts.account, parts.addresses, parts.watch)
            front = make_front(settings, host, registry, parts)
            certificates = parts.certificates.read(pairs(settings))
            if settings.log != before.log:
                journal.reopen(sinks(settings, self.foreground))
        except (LookupError, OSError, Unusable) as error:
            journal.error(f"{NOT_TAKEN_OVER}: {error}")
            return
        parts.resolver.adapt(name_servers(settings))
        parts.remote.adapt(remote_settings(settings, host))
        parts.mailbox.adapt(mailbox_settings(settings, host))
        parts.scheduler.adapt(registry.directory, queue_settings(settings, host))
        parts.access.adapt(*settings.access)
        parts.rates.adapt(settings.rate)
        parts.doorkeeper.limits = limits(settings, parts.reactor, parts.world)
        parts.greylist.adapt(greylist_bounds(settings))
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
        await self._together(self.parts.remote.stop(), self.parts.mailbox.stop())

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


def _text(path: str) -> str:
    """The text of a file of the system's, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
