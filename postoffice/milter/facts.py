"""What filters may know of a session and of the letter in it, and the macros of the milter protocol.

One `Facts` a session, kept up to date by the chain. `value` gives a macro by its name without braces; None
where it has none, which is then not told. What the macros hold is what sendmail and Postfix give, since
filters depend on it (opendkim signs where `auth_type` is, SpamAssassin believes `_`, rspamd counts on
`daemon_name`). We ask clients for no certificate, so `verify` is what sendmail says where none was presented,
and there is nobody for `cert_subject` and `cert_issuer` to name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, frozen

from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.header import date
from postoffice.mail.reply import Reply


@frozen
class Place:
    """Where a session takes place: our name, the address and port the client came to, and what we are."""

    host: str
    address: str = ""
    port: int = 0
    program: str = "Postoffice"


@define
class Facts:
    """The facts, as far as they are known yet.

    `connections` are those that the client's address has with us now, this one included, `rate` how many it
    began within the last minute (0: nobody counts). `arguments` are the path that was given last with MAIL or
    RCPT, as it was written, and the parameters behind it, `parameters` those of MAIL; `refused` is what we
    said to that recipient ourselves. `ours` tells of sender and recipient whether they are. `recipients` are
    those that were taken, known from DATA on, `bad_recipients` those that were refused, by whomever.
    """

    client: Client
    place: Place
    now: Callable[[], float]
    connections: int = 0
    rate: int = 0
    letter_id: str = ""
    sender: Address | None = None
    parameters: Sequence[bytes] = ()
    recipient: Address | None = None
    refused: Reply | None = None
    arguments: Sequence[bytes] = ()
    ours: tuple[bool, bool] = (False, False)
    recipients: int = 0
    bad_recipients: int = 0
    message_id: str = ""
    size: int | None = None

    def forget_letter(self) -> None:
        """There is no letter any more."""
        self.letter_id = self.message_id = ""
        self.sender = self.recipient = self.refused = self.size = None
        self.recipients = self.bad_recipients = 0
        self.ours, self.arguments, self.parameters = (False, False), (), ()

    def value(self, name: str) -> str | None:
        """The value of a macro."""
        find = _MACROS.get(name)
        found = None if find is None else find(self)
        return found if found or (found is not None and name == "mail_addr") else None

    @property
    def peer(self) -> tuple[str, str, int, str]:
        """The client as CONNECT tells it: name or address literal, family, port and address.

        A local command is this machine, which is how signing filters know our own.
        """
        client = self.client
        if not client.ip:
            return "localhost", "4", 0, "127.0.0.1"
        family = "6" if ":" in client.ip else "4"
        return self.name or f"[{client.ip}]", family, client.port, client.ip

    @property
    def name(self) -> str | None:
        """The name of the client that is certain; this machine has ours at each of its addresses."""
        client = self.client
        return client.name or (self.place.host if client.here else None)

    @property
    def greeting(self) -> str | None:
        """The name the client gave itself; a local command would give ours."""
        return self.client.helo if self.client.ip else self.place.host


def _tagged(ip: str) -> str:
    return f"IPv6:{ip}" if ":" in ip else ip


def _trace(facts: Facts) -> str:
    name, _, _, ip = facts.peer
    literal = f"[{_tagged(ip)}]"
    if not name.startswith("["):
        return f"{name} {literal}"
    claimed = facts.client.claimed
    return f"{claimed} {literal} (may be forged)" if claimed else literal


def _resolved(facts: Facts) -> str:
    """How the look-up of the client's name went, in sendmail's words."""
    client = facts.client
    if not client.ip or facts.name:
        return "OK"
    if client.claimed:
        return "FORGED"
    return "FAIL" if client.nameless else "TEMP"


def _name(facts: Facts) -> str:
    name = facts.peer[0]
    return "unknown" if name.startswith("[") else name


def _address_type(facts: Facts) -> str | None:
    if not facts.letter_id:
        return None
    return "e s" if facts.recipient is None else "e r"


def parameter(arguments: Sequence[bytes], name: bytes) -> str:
    """The value of a parameter of MAIL or RCPT (its name in capitals), empty without one."""
    for argument in arguments:
        word, _, value = argument.partition(b"=")
        if word.upper() == name:
            return value.decode("utf-8", "replace")
    return ""


def _local_address(facts: Facts) -> str | None:
    address = facts.place.address
    return None if address.startswith("127.") or address == "::1" else _tagged(address)


def _login(value: Callable[[Facts], str]) -> Callable[[Facts], str | None]:
    return lambda facts: None if facts.client.login is None else value(facts)


def _tls(value: Callable[[Facts], str]) -> Callable[[Facts], str | None]:
    return lambda facts: None if facts.client.tls is None else value(facts)


def _bits(facts: Facts) -> str:
    tls = facts.client.tls
    return "0" if tls is None else str(tls.bits)


def _mailer(ours: bool) -> str:
    return "local" if ours else "esmtp"


def _recipient_mailer(facts: Facts) -> str | None:
    if facts.refused is not None:
        return "error"
    return None if facts.recipient is None else _mailer(facts.ours[1])


def _recipient_host(facts: Facts) -> str | None:
    if facts.refused is not None:
        return facts.refused.status
    return None if facts.recipient is None else facts.recipient.domain or facts.place.host


def _recipient_address(facts: Facts) -> str | None:
    if facts.refused is not None:
        return f"Recipient address rejected: {facts.refused.text}"
    return None if facts.recipient is None else str(facts.recipient)


_MACROS: dict[str, Callable[[Facts], str | None]] = {
    "j": lambda facts: facts.place.host,
    "_": _trace,
    "v": lambda facts: facts.place.program,
    "Z": lambda facts: facts.place.program.rpartition(" ")[2],
    "b": lambda facts: date(int(facts.now())),
    "r": lambda facts: facts.client.keyword if facts.client.ip else "SMTP",
    "s": lambda facts: facts.greeting,
    "i": lambda facts: facts.letter_id,
    "daemon_name": lambda facts: facts.place.host,
    "daemon_addr": lambda facts: _tagged(facts.place.address),
    "daemon_port": lambda facts: str(facts.place.port or ""),
    "if_name": lambda facts: facts.place.host if _local_address(facts) else None,
    "if_addr": _local_address,
    "client_addr": lambda facts: _tagged(facts.peer[3]),
    "client_port": lambda facts: str(facts.peer[2]),
    "client_name": _name,
    "client_ptr": lambda facts: facts.client.claimed or _name(facts),
    "client_resolve": _resolved,
    "client_connections": lambda facts: str(facts.connections or ""),
    "client_rate": lambda facts: str(facts.rate or ""),
    "tls_version": _tls(lambda facts: facts.client.tls.version if facts.client.tls else ""),
    "cipher": _tls(lambda facts: facts.client.tls.cipher if facts.client.tls else ""),
    "cipher_bits": _tls(_bits),
    "verify": lambda facts: "NONE" if facts.client.tls is None else "NO",
    "tls_sni": _tls(lambda facts: (facts.client.tls and facts.client.tls.server_name) or ""),
    "auth_type": _login(lambda facts: facts.client.mechanism or "PLAIN"),
    "auth_authen": _login(lambda facts: facts.client.login or ""),
    "auth_ssf": _login(_bits),
    "auth_author": lambda facts: parameter(facts.parameters, b"AUTH"),
    "addr_type": _address_type,
    "envid": lambda facts: parameter(facts.parameters, b"ENVID"),
    "dsn_ret": lambda facts: parameter(facts.parameters, b"RET"),
    "dsn_notify": lambda facts: parameter(facts.arguments[1:], b"NOTIFY"),
    "mail_addr": lambda facts: "" if facts.sender is None else str(facts.sender),
    "mail_host": lambda facts: (facts.sender and facts.sender.domain) or facts.place.host,
    "mail_mailer": lambda facts: _mailer(facts.sender is None or facts.ours[0]),
    "rcpt_addr": _recipient_address,
    "rcpt_host": _recipient_host,
    "rcpt_mailer": _recipient_mailer,
    "nrcpts": lambda facts: str(facts.recipients),
    "nbadrcpts": lambda facts: str(facts.bad_recipients),
    "msg_id": lambda facts: facts.message_id,
    "msg_size": lambda facts: None if facts.size is None else str(facts.size),
}
