"""Settings as text: the report of `-bt`, warnings for the log, and the sample file.

The report is itself a configuration file: read again, it gives the same settings.
"""

from __future__ import annotations

from postoffice.config.options import BY_NAME, OPTIONS, SECTIONS
from postoffice.config.parser import quote
from postoffice.config.settings import Settings


def report(settings: Settings) -> str:
    """One line for each value of each option, with where it came from; warnings at the end."""
    lines: list[str] = []
    for option in OPTIONS:
        later = "" if option.available else "; not yet available"
        assigned = [one for one in settings.assigned if one.name == option.name]
        lines.extend(_line(f"{one.name}={quote(one.value)}", f"{one.origin}{later}") for one in assigned)
        if not assigned and option.default is not None:
            lines.append(_line(f"{option.name}={quote(option.default)}", f"default{later}"))
        elif not assigned:
            lines.append(_line(f"#{option.name}=", f"default: {option.otherwise}{later}"))
    lines.extend(f"# warning: {warning}" for warning in warnings(settings))
    return "\n".join(lines) + "\n"


def in_force(settings: Settings) -> list[str]:
    """A line for each value of each option, without where it came from.

    None holds a secret: those are in files that options name.
    """
    lines: list[str] = []
    for option in OPTIONS:
        assigned = [one.value for one in settings.assigned if one.name == option.name]
        if assigned or option.default is not None:
            lines.extend(f"{option.name}={quote(value)}" for value in assigned or [option.default or ""])
        else:
            lines.append(f"{option.name}: {option.otherwise}")
    return lines


def _line(text: str, remark: str) -> str:
    return f"{text:<47} # {remark}"


def warnings(settings: Settings) -> list[str]:
    """What an operator should know about settings that are allowed: for `-bt` and for the log at start."""
    found = [
        f"{one.origin}: {one.name}: not yet available; it has no effect"
        for one in settings.assigned
        if not BY_NAME[one.name].available
    ]
    if settings.relay:
        found.append(f"{settings.origin('relay')}: relay: anybody may send mail through this server")
    if settings.auth_plaintext:
        where = settings.origin("auth-plaintext")
        found.append(f"{where}: auth-plaintext: whoever is between clients and us may read their passwords")
    return found


def differences(before: Settings, after: Settings) -> list[str]:
    """The options whose values are not the same, in the order of the table."""
    return [
        option.name
        for option in OPTIONS
        if getattr(before, option.attribute) != getattr(after, option.attribute)
    ]


def sample() -> str:
    """The sample configuration file: every available option with its default, commented out."""
    lines = [
        "# The configuration of postoffice. Lines are name or name=value; a bare name means 1.",
        '# Quotes protect a "#" or blanks in a value. What is commented out shows the default.',
        "# Times: seconds, or a number with m, h, d, w. A limit of 0 is no limit.",
    ]
    for title, options in SECTIONS:
        lines.extend(("", f"## {title}", ""))
        for option in options:
            if option.available:
                default = option.default if option.default is not None else ""
                meaning = f"{option.meaning} ({option.otherwise})" if option.otherwise else option.meaning
                lines.append(_line(f"#{option.name}={default}", meaning))
    return "\n".join(lines) + "\n"
