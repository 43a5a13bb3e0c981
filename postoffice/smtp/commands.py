"""The commands of SMTP, each from its argument to its event. RFC 5321 section 4.1.1.

Used by the server engine; what order they may come in is in `phases`. A parser gets what stands
behind the verb, printable ASCII without blanks around it, and raises `Refusal` where that does not fit.
An extension adds a verb to `COMMANDS` or a keyword to one of the parameter tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from postoffice.mail.reply import Refusal, Reply
from postoffice.smtp import grammar
from postoffice.smtp.events import (
    Auth,
    Data,
    Debug,
    Etrn,
    Event,
    Expand,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Verify,
    Xclient,
)

NO_ARGUMENT = Reply(501, (5, 4), "This command takes no argument")
HELO_ARGUMENT = Reply(501, (5, 4), "Send your host name or address literal with HELO or EHLO")
MAIL_ARGUMENT = Reply(501, (5, 4), "Syntax: MAIL FROM:<address>")
RCPT_ARGUMENT = Reply(501, (5, 4), "Syntax: RCPT TO:<address>")
TEXT_ARGUMENT = Reply(501, (5, 4), "This command needs an argument")
AUTH_ARGUMENT = Reply(501, (5, 4), "Syntax: AUTH mechanism [initial-response]")

# RFC 4422 section 3.1, and base64 as RFC 4954 section 8 has it; whether it decodes is found out later.
_AUTH = re.compile(r"([A-Za-z0-9_-]{1,20})(?: ([A-Za-z0-9+/=]+))?\Z").match

MAIL_PARAMETERS: grammar.ParameterTable = {
    b"SIZE": ("size", grammar.parse_size),
    b"BODY": ("body", grammar.parse_body),
    b"RET": ("ret", grammar.parse_ret),
    b"ENVID": ("envid", grammar.parse_envid),
    b"AUTH": ("auth", grammar.check_auth),
    b"SMTPUTF8": ("smtputf8", grammar.parse_nothing),
}
"""Parameters of MAIL by keyword; the names are attributes of `Mail`, but for `auth`, which has no effect."""

RCPT_PARAMETERS: grammar.ParameterTable = {
    b"NOTIFY": ("notify", grammar.parse_notify),
    b"ORCPT": ("orcpt", grammar.parse_orcpt),
}
"""Parameters of RCPT by keyword; the names are attributes of `Rcpt`."""


def _helo(argument: bytes) -> Event:
    return Helo(_host(argument), False)


def _ehlo(argument: bytes) -> Event:
    return Helo(_host(argument), True)


def _host(argument: bytes) -> str:
    if not grammar.is_host(argument):
        raise Refusal(HELO_ARGUMENT)
    return argument.decode("ascii")


def _mail(argument: bytes) -> Event:
    if argument[:5].upper() != b"FROM:":
        raise Refusal(MAIL_ARGUMENT)
    sender, rest = grammar.parse_reverse_path(argument[5:].lstrip())
    if not rest:
        return Mail(sender)
    parameters = grammar.parse_parameters(rest, MAIL_PARAMETERS)
    parameters.pop("auth", None)
    return Mail(sender, **parameters)


def _rcpt(argument: bytes) -> Event:
    if argument[:3].upper() != b"TO:":
        raise Refusal(RCPT_ARGUMENT)
    recipient, rest = grammar.parse_path(argument[3:].lstrip())
    if not rest:
        return Rcpt(recipient)
    return Rcpt(recipient, **grammar.parse_parameters(rest, RCPT_PARAMETERS))


def _alone(event: Event) -> Callable[[bytes], Event]:
    def parse(argument: bytes) -> Event:
        if argument:
            raise Refusal(NO_ARGUMENT)
        return event

    return parse


def _text(make: type[Verify] | type[Expand] | type[Etrn] | type[Xclient]) -> Callable[[bytes], Event]:
    def parse(argument: bytes) -> Event:
        if not argument:
            raise Refusal(TEXT_ARGUMENT)
        return make(argument.decode("ascii"))

    return parse


def _auth(argument: bytes) -> Event:
    found = _AUTH(argument.decode("ascii"))
    if found is None:
        raise Refusal(AUTH_ARGUMENT)
    return Auth(found[1].upper(), found[2])


def _noop(argument: bytes) -> Event:
    return Noop()


def _help(argument: bytes) -> Event:
    return Help(argument.decode("ascii"))


COMMANDS: dict[bytes, Callable[[bytes], Event]] = {
    b"HELO": _helo,
    b"EHLO": _ehlo,
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _alone(Data()),
    b"RSET": _alone(Reset()),
    b"NOOP": _noop,
    b"VRFY": _text(Verify),
    b"EXPN": _text(Expand),
    b"HELP": _help,
    b"QUIT": _alone(Quit()),
    b"STARTTLS": _alone(StartTls()),
    b"AUTH": _auth,
    b"ETRN": _text(Etrn),
    b"XCLIENT": _text(Xclient),
    b"DEBUG": _alone(Debug()),
}
"""What parses the argument of each command, by verb in upper case."""

OPTIONAL = frozenset({b"STARTTLS", b"AUTH", b"ETRN", b"XCLIENT", b"DEBUG"})
"""Commands that are refused unless the engine is told to offer them."""
