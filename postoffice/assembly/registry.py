"""Whose mail is ours: the directory, from one version of the settings. Called by the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.task import deferLater

from postoffice.config.settings import Settings
from postoffice.directory.accounts import Account, AllAccounts, OneAccount, VirtualUsers
from postoffice.directory.domains import Domains, LocalNames
from postoffice.directory.exchange import Exchange, Machine
from postoffice.directory.lookup import Directory
from postoffice.directory.names import Names
from postoffice.directory.personal import PersonalFiles
from postoffice.directory.sources import (
    CatchAll,
    Floor,
    Mailboxes,
    Postmaster,
    RootMail,
    SystemAliases,
    UserMaps,
    VirtualAliases,
)
from postoffice.directory.usermap import parse_map
from postoffice.interfaces import IHomes, IResolver
from postoffice.watched import Watch


@frozen
class Ground:
    """What the directory stands on: accounts, the DNS, the machine's addresses, files, time.

    `account` is the one we run as; `accounts` are that one alone, or all if a helper acts as others.
    """

    account: Account
    accounts: OneAccount | AllAccounts
    resolver: IResolver
    addresses: Callable[[], frozenset[str]]
    homes: IHomes
    watch: Watch
    reactor: Any


@frozen
class Registry:
    """Whose mail is ours and where it goes: the domains, the users of the virtual ones, and all together."""

    domains: Domains
    users: VirtualUsers
    directory: Directory


def registry_of(settings: Settings, host: str, ground: Ground) -> Registry:
    """What the settings say of it; `host` is our name."""
    watch, account = ground.watch, ground.account
    machine = Machine(host.lower(), ground.addresses)
    domains = Domains(
        LocalNames(host, settings.localdomain),
        settings.virtual,
        ground.addresses,
        watch,
        Exchange(ground.resolver, machine, watch.seconds, settings.mxpool),
    )
    files = PersonalFiles(ground.homes, watch)
    place = settings.virtual
    virtual = watch.keep(f"{place}/*/passwd", lambda: VirtualUsers(place, watch))
    # What we run as gets mail in any case where there is nobody else.
    alone = isinstance(ground.accounts, OneAccount)
    floor = Floor() if alone else Floor(settings.min_uid, settings.root_mail)
    users = Mailboxes(ground.accounts, floor, settings.mailbox, virtual, settings.vmailbox)
    aliases = watch.keep(f"{place}/*/aliases", lambda: VirtualAliases(place, watch))
    sources = (
        SystemAliases(settings.aliases, watch),
        aliases,
        users,
        RootMail(ground.accounts, floor),
        CatchAll(aliases),
        UserMaps(tuple(map(parse_map, settings.usermap)), users, files),
        Postmaster(account, settings.mailbox),
    )
    directory = Directory(
        Names(domains, sources, users, files, settings.subaddress, watch),
        settings.expansion,
        lambda: deferLater(ground.reactor, 0),
        settings.relay_host,
        settings.forward_all,
    )
    return Registry(domains, virtual, directory)
