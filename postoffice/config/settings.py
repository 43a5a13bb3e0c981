"""The settings of one run: frozen, complete, each with where it came from.

Made by `Settings.from_text` from the text of a configuration file and the `-o` arguments; reading
the disk is left to `postoffice.config_file`. What is wrong is reported all at once (`ConfigError`).
An option's attribute is its name with underscores; the table in `postoffice.config.options` says
what it means. Times are seconds, sizes are octets, and 0 is "no limit" for every limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal

from attrs import field, frozen

from postoffice.config.filters import FilterRule
from postoffice.config.options import BY_NAME, OPTIONS, Option
from postoffice.config.parser import Assignment, Problem, parse, parse_override
from postoffice.config.places import Listen, LogTarget, MailboxRule, NameServer
from postoffice.config.values import Disposition, Network, Rate
from postoffice.mail.destination import Remote


class ConfigError(Exception):
    """The configuration cannot be used; `problems` names everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class RootOnly(PermissionError):
    """An option that is root's alone was set with `-o` by somebody else."""


@frozen(kw_only=True)
class Settings:
    """One attribute for each option, in the order of the table.

    An empty `log` stands for syslog, or stderr in the foreground; `load` of None for 4 for each CPU;
    `user` of None for the account `postoffice` when started by root; an empty `nameserver` for
    those of resolv.conf.
    """

    # Where things are
    listen: tuple[Listen, ...]
    msp: tuple[Listen, ...]
    smtps: tuple[Listen, ...]
    user: str | None
    hostname: str
    spool: str
    control: str
    control_group: str | None
    aliases: str
    banner: str
    access: tuple[str, str]
    virtual: str
    vspool: str
    vuser: str
    mailbox: MailboxRule
    vmailbox: MailboxRule
    localdomain: tuple[str, ...]
    nameserver: tuple[NameServer, ...]
    log: tuple[LogTarget, ...]

    # The conversation
    clients: int
    per_client: int
    load: int | None
    timeout: int
    min_rate: int
    errors: int
    recipients: int
    size: int
    minfree: int
    hops: int
    require_helo: bool
    lenient_order: bool
    bare_newline: Literal["normalize", "reject"]
    debug: bool
    audit: bool
    tls_cert: tuple[str, ...]
    tls_key: tuple[str, ...]
    auth: tuple[Literal["virtual", "passwd", "pam"], ...]
    auth_plaintext: bool
    auth_any_sender: bool
    msp_auth: bool
    proxy: tuple[Network, ...]
    xclient: tuple[Network, ...]

    # Policy
    trusted: tuple[str, ...]
    relay: bool
    localmx: bool
    checkhelo: bool
    dnscheck: bool
    paranoid: bool
    forbidden: Disposition
    verify_from: bool
    nodaemon: bool
    rate: tuple[Rate, ...]
    dnsbl: tuple[tuple[str, str], ...]
    dnswl: tuple[tuple[str, str], ...]
    greylist: bool
    delay: int
    greylist_from: bool
    greylist_net: tuple[int, int]
    greylist_keep: int
    greylist_null: int
    greylist_max: int
    filter: tuple[FilterRule, ...]
    safe: bool
    spam: Disposition
    av: str | None
    av_timeout: int

    # Addresses and delivery
    subaddress: str
    usermap: tuple[str, ...]
    expansion: int
    min_uid: int
    root_mail: str | None
    command_timeout: int
    escape_from: bool
    mxpool: bool
    forward_all: bool
    relay_host: Remote | None
    remote_port: int
    relay_auth: str | None
    route: tuple[str, ...]
    tls: tuple[tuple[str, str], ...]
    pace: tuple[Rate, ...]

    # The queue
    immediate: bool
    queue_run: int
    retry: tuple[int, ...]
    qreturn: int
    delay_warning: int
    history: int
    workers: int
    mailq_all: bool
    metrics: tuple[Listen, ...]
    web: tuple[Listen, ...]

    #: What was set, in force, under the current spelling of its name; defaults are not in it.
    assigned: tuple[Assignment, ...] = field(eq=False)

    @classmethod
    def from_text(
        cls, text: str, filename: str, overrides: Iterable[str] = (), *, privileged: bool = True
    ) -> Settings:
        """Read the text of a file (called `filename` in messages) and the arguments of `-o`.

        Later lines override earlier ones, lists accumulate, and an option given with `-o` replaces
        what the file says of it. Errors: `ConfigError` with every problem; `RootOnly` when not
        `privileged` and a root-only option is among the overrides.
        """
        lines = parse(text, filename)
        given = [parse_override(override) for override in overrides]
        problems = [*lines.problems, *(problem for one in given for problem in one.problems)]
        from_file = _known(lines.assignments, problems)
        from_caller = _known((found for one in given for found in one.assignments), problems)
        if not privileged:
            _check_privilege(from_caller)
        values: dict[str, Any] = {}
        in_force: list[Assignment] = []
        for option in OPTIONS:
            assigned = from_caller.get(option.name) or from_file.get(option.name, [])
            in_force.extend(assigned if option.repeatable else assigned[-1:])
            values[option.attribute] = _value(option, assigned, problems)
        _check_pairs(values, in_force, problems)
        if problems:
            raise ConfigError(sorted(problems, key=_place))
        beside = values["vspool"].replace("%", "%%") + "/%d"
        values["vmailbox"] = values["vmailbox"] or MailboxRule("mbox", beside)
        return cls(**values, assigned=tuple(in_force))

    def origin(self, name: str) -> str:
        """Where an option was set: `default`, `FILE:LINE` or `-o`; several are separated by blanks."""
        option = BY_NAME[name.replace("_", "-")]
        return " ".join(str(one.origin) for one in self.assigned if one.name == option.name) or "default"

    @contextmanager
    def blaming(self, name: str, value: str = "") -> Iterator[None]:
        """A LookupError from here tells also where this option was set, if several times: to this value."""
        try:
            yield
        except LookupError as error:
            named = [one for one in self.assigned if one.name == name]
            fitting = [one for one in named if one.value == value] or named
            if not fitting:
                raise
            raise LookupError(f"{fitting[0].origin}: {name}: {error.args[0]}") from None


def _known(assignments: Iterable[Assignment], problems: list[Problem]) -> dict[str, list[Assignment]]:
    """Sort assignments by option under its current name; unknown ones are problems."""
    found: dict[str, list[Assignment]] = {}
    for one in assignments:
        option = BY_NAME.get(one.name)
        if option is None:
            problems.append(Problem(one.origin, one.name, _unknown(one.name)))
        else:
            current = Assignment(option.name, one.value, one.origin, one.bare)
            found.setdefault(option.name, []).append(current)
    return found


def _place(problem: Problem) -> tuple[bool, int]:
    """Order problems by line, those of `-o` last."""
    return not problem.origin.line, problem.origin.line


def _unknown(name: str) -> str:
    """Name the nearest known option."""
    near = get_close_matches(name[:40].lower().replace("_", "-"), BY_NAME, n=1)
    if near:
        return f"unknown option; the nearest known one is {near[0]}"
    return "unknown option; -bt lists those there are"


def _check_privilege(given: dict[str, list[Assignment]]) -> None:
    for name in given:
        if BY_NAME[name].root_only:
            raise RootOnly(f"-o: {name}: only root may set this option; ask for it in the configuration file")


def _value(option: Option, assigned: Sequence[Assignment], problems: list[Problem]) -> Any:
    """The value in force. Every assignment is checked, overridden ones too."""
    parsed: list[Any] = []
    for one in assigned:
        try:
            if one.bare and not option.kind.bare:
                raise ValueError(f"needs a value; write {option.name}=VALUE ({option.kind.form})")
            parsed.append(option.kind.parse(one.value))
        except ValueError as error:
            problems.append(Problem(one.origin, option.name, str(error)))
    if not assigned and option.default is not None:
        parsed.append(option.kind.parse(option.default))
    if option.repeatable:
        return tuple(item for one in parsed for item in (one if option.kind.spreads else (one,)))
    if parsed:
        return parsed[-1]
    return () if option.kind.spreads else None


def _check_pairs(values: dict[str, Any], in_force: Sequence[Assignment], problems: list[Problem]) -> None:
    certificates, keys = len(values["tls_cert"]), len(values["tls_key"])
    if certificates != keys:
        more = "tls-cert" if certificates > keys else "tls-key"
        origin = next(one.origin for one in reversed(in_force) if one.name == more)
        what = f"there are {certificates} tls-cert and {keys} tls-key; give each certificate its key"
        problems.append(Problem(origin, more, what))
    if values["smtps"] and not certificates:
        origin = next(one.origin for one in reversed(in_force) if one.name == "smtps")
        problems.append(Problem(origin, "smtps", "needs a certificate; name one with tls-cert and tls-key"))
