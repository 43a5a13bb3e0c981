"""What meets clients: made from the settings at the start, and made anew when others are taken over.

Called by the service, which puts a new front in the place of the one before; sessions under way keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import evolve, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.task import deferLater

from postoffice.assembly.filters import filters_of
from postoffice.assembly.parts import Parts, text_of
from postoffice.assembly.registry import Registry
from postoffice.config.report import in_force
from postoffice.config.settings import Settings
from postoffice.crypt import load_shadow
from postoffice.delivery.helper.pam import load_pam
from postoffice.directory.lookup import Directory
from postoffice.directory.passwords import SystemPasswords, VirtualPasswords, spelling
from postoffice.directory.virtual_files import Means, Places, VirtualFiles
from postoffice.filters.chain import Chain
from postoffice.interfaces import (
    IGreylistStore,
    IJournal,
)
from postoffice.mail.client import Door
from postoffice.mail.reply import printable
from postoffice.policy.client import Clients, ClientSettings
from postoffice.policy.greylist import Greylist, GreylistSettings
from postoffice.policy.lists import Lists
from postoffice.policy.newcomers import Newcomers
from postoffice.policy.policy import Judges, Policy, PolicySettings
from postoffice.policy.sender import Senders, SenderSettings
from postoffice.server.intake import Intake, IntakeSettings
from postoffice.server.letters import Letters
from postoffice.server.link import Pace
from postoffice.server.listener import SmtpFactory
from postoffice.server.office import LocalSettings
from postoffice.server.portal import Authenticator, make_authenticator
from postoffice.server.settings import SessionSettings
from postoffice.server.submission import LocalOffice
from postoffice.services.hashes import PasswordHashes
from postoffice.services.privileges import (
    full_name,
    group_id,
)


@frozen
class Front:
    """What meets clients, made from one version of the settings."""

    doors: Mapping[Door, SmtpFactory]
    office: LocalOffice
    filters: Chain | None
    local: LocalSettings


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
        banner="\n".join(map(printable, text_of(settings.banner).strip().splitlines())),
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
    filters = filters_of(settings, host, directory, policy, parts)
    hashes = PasswordHashes()
    authenticator = authenticator_of(settings, registry, hashes, parts)
    with settings.blaming("control-group"):
        control_group = group_id(settings.control_group)
    pace = Pace(settings.timeout, settings.min_rate)

    def door(name: Door) -> SmtpFactory:
        there = evolve(conversation, door=name, require_auth=settings.msp_auth and name != "smtp")
        encryption = parts.certificates
        return SmtpFactory(
            there, pace, doorkeeper, directory, policy, intake, encryption, authenticator, filters
        )

    return Front(
        doors={"smtp": door("smtp"), "msp": door("msp"), "smtps": door("smtps")},
        office=LocalOffice(
            intake,
            Letters(parts.spool, parts.scheduler.run),
            directory,
            policy,
            greylist,
            virtual_files(settings, hashes, parts),
            full_name,
            filters,
        ),
        filters=filters,
        local=LocalSettings(
            host,
            parts.account.uid,
            control_group,
            settings.mailq_all,
            settings.recipients,
            settings.timeout,
        ),
    )


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
    lists = Lists(settings.dnsbl, settings.dnswl, resolver, parts.journal.warning, parts.reactor.seconds)
    judges = Judges(
        Clients(clients, parts.addresses, resolver, parts.access),
        Senders(SenderSettings(settings.verify_from, settings.nodaemon), directory, resolver),
        lists,
        parts.rates,
        Newcomers(greylist, lists, directory) if settings.greylist else None,
    )
    forward_all = settings.forward_all and settings.relay_host is not None
    rules = PolicySettings(host, settings.checkhelo, forward_all)
    return Policy(rules, judges, resolver, parts.addresses)


def virtual_files(settings: Settings, hashes: PasswordHashes, parts: Parts) -> VirtualFiles:
    """The files of virtual domains, for those who look after them."""
    places = Places(settings.virtual, settings.aliases, parts.account.name)
    in_thread = partial(parts.world.in_thread, parts.reactor, parts.threads)
    means = Means(in_thread, parts.passwords, partial(deferLater, parts.reactor), parts.ground.watch.look)
    return VirtualFiles(places, hashes, means)


def authenticator_of(
    settings: Settings, registry: Registry, hashes: PasswordHashes, parts: Parts
) -> Authenticator:
    """Who may log in. Errors: LookupError for a source of accounts that this machine does not have."""
    domains, of_accounts = registry.domains, parts.account_passwords
    make: dict[str, Callable[[], ICredentialsChecker]] = {
        "virtual": lambda: VirtualPasswords(domains, registry.users, hashes, parts.passwords),
        "passwd": lambda: SystemPasswords(domains, of_accounts.by_shadow),
        "pam": lambda: SystemPasswords(domains, of_accounts.by_pam),
    }
    # What processes of the helper's will load has to be there.
    with settings.blaming("auth"):
        for source, load in (("passwd", load_shadow), ("pam", load_pam)):
            if source in settings.auth:
                load()
    of_system = any(source != "virtual" for source in settings.auth)
    return make_authenticator(
        registry.directory,
        [make[source]() for source in settings.auth],
        parts.throttle,
        lambda: of_system or domains.any_virtual(),
        partial(spelling, domains),
    )


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
