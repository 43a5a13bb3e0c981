"""Whose mail is ours: the directory, from one version of the settings. Called by the service."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from postoffice.config.settings import Settings
from postoffice.directory.accounts import Account as MailAccount
from postoffice.directory.accounts import SystemUsers, VirtualUsers
from postoffice.directory.domains import Domains, LocalNames
from postoffice.directory.lookup import Directory, Postmaster, SystemMailboxes, VirtualMailboxes
from postoffice.services.privileges import (
    Account,
)
from postoffice.watched import Watch


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
