"""How mail is delivered on this machine, from one version of the settings. Called by the service.

Started by root, the service has a helper that lets things be done as every account; else there is only the
account it runs as, whose mailboxes it writes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from postoffice.config.settings import Settings
from postoffice.delivery.as_user import AsUser
from postoffice.delivery.helper_process import HelperProcess, HelperSettings
from postoffice.delivery.identities import Identities
from postoffice.delivery.local import LocalDelivery, LocalDeliverySettings
from postoffice.directory.mailboxes import tree_of
from postoffice.directory.sources import ROOT_MAIL
from postoffice.interfaces import IJournal


def make_identities(
    settings: Settings, service: str, privileged: bool, socket: str, journal: IJournal, reactor: Any
) -> tuple[HelperProcess, Identities]:
    """The helper, which is not started yet, and those it can become; arguments as in `HelperSettings`."""
    rule = settings.mailbox
    mail_folder = rule.template if rule.kind == "mbox" and "%" not in rule.template else ""
    helper = HelperProcess(
        HelperSettings(
            settings.min_uid,
            frozenset({settings.vuser, settings.root_mail or ROOT_MAIL}),
            mail_folder,
            service,
            privileged,
            socket,
        ),
        reactor,
        journal.warning,
        journal.error,
    )
    return helper, Identities(reactor, helper, mail_folder)


def make_local(
    settings: Settings,
    host: str,
    own: str | None,
    in_thread: Callable[..., Any],
    identities: Identities,
    reactor: Any,
) -> LocalDelivery:
    """Delivery on this machine."""
    return LocalDelivery(in_thread, reactor, local_delivery_settings(settings, host, own), AsUser(identities))


def local_delivery_settings(settings: Settings, host: str, own: str | None) -> LocalDeliverySettings:
    """For mail to mailboxes, files and commands here; `own` is as in `LocalDeliverySettings`."""
    return LocalDeliverySettings(
        host,
        settings.escape_from,
        tree_of(settings.vmailbox),
        own,
        settings.vuser,
        settings.command_timeout,
    )
