"""The filters, made from the settings. Called for every front; sessions under way keep theirs."""

from __future__ import annotations

from functools import partial

from postoffice.assembly.parts import Parts
from postoffice.config.filters import FilterRule
from postoffice.config.settings import Settings
from postoffice.delivery.as_user import AsUser
from postoffice.delivery.helper.identity import NOBODY
from postoffice.directory.lookup import Directory
from postoffice.filters.av import Scanner
from postoffice.filters.chain import Chain
from postoffice.filters.milter import CONTENT, REPLY, Milter, MilterSettings
from postoffice.filters.plugin import PythonFilter
from postoffice.filters.terms import ChainSettings, Terms
from postoffice.interfaces import IFilter, IPolicy
from postoffice.milter.negotiation import CHANGES, Offer
from postoffice.services.eager import EagerReactor

# Octets that a filter may put in the place of a body where letters have no limit of their own, and what it
# may have on top of the limit where they have one.
LONGEST_BODY = 1 << 26
MARGIN = 1 << 16


def filters_of(
    settings: Settings, host: str, directory: Directory, policy: IPolicy, parts: Parts
) -> Chain | None:
    """The chain of filters; None where there are none."""
    filters = [(_filter(rule, settings, parts), _terms(rule)) for rule in settings.filter]
    if settings.av is not None:
        # The last to look, at what will be stored.
        filters.append((_scanner(settings.av, settings, parts), Terms()))
    if not filters:
        return None
    return Chain(
        filters,
        ChainSettings(host, settings.spam, settings.safe, settings.size),
        directory,
        policy,
        parts.journal,
        parts.spool.new_id,
        parts.reactor,
    )


def _scanner(command: str, settings: Settings, parts: Parts) -> IFilter:
    check = partial(AsUser(parts.identities).check, NOBODY, command)
    return Scanner(check, float(settings.av_timeout), parts.reactor)


def _terms(rule: FilterRule) -> Terms:
    return Terms(rule.on_error, rule.when, rule.lazy, rule.skip)


def _filter(rule: FilterRule, settings: Settings, parts: Parts) -> IFilter:
    if rule.python:
        timeout = REPLY if rule.timeout is None else rule.timeout
        return PythonFilter(rule.python, timeout, parts.journal.error, parts.reactor)
    longest = settings.size + MARGIN if settings.size else LONGEST_BODY
    denied = sum(CHANGES[change] for change in rule.deny)
    milter = MilterSettings(
        rule.path,
        rule.host,
        rule.port,
        rule.daemon_name,
        Offer(rule.version, rule.max_data, rule.ignore_denied_actions, denied),
        30.0 if rule.connect_timeout is None else rule.connect_timeout,
        REPLY if rule.timeout is None else rule.timeout,
        CONTENT if rule.timeout is None else rule.timeout,
        rule.oversize_header,
        longest,
    )
    return Milter(milter, parts.reactor, EagerReactor(parts.reactor), parts.journal.warning)
