"""The one table of options: what each is called, how it is written, its default, what it means.

Everything that knows an option reads it here: the parser, `Settings`, the `-bt` report, the sample
file and the man page. The third column says whether a part of the program honours the option yet.
Defaults are written as in the file; where there is none, `otherwise` says in words what happens.
"""

from __future__ import annotations

from attrs import frozen

from postoffice.config import filters, places, values
from postoffice.config.values import Kind

NOW = True
LATER = False


@frozen
class Option:
    """One option. `older` are former spellings; `root_only` ones may be set with `-o` by root alone."""

    name: str
    kind: Kind
    available: bool
    default: str | None
    meaning: str
    otherwise: str = ""
    repeatable: bool = False
    root_only: bool = False
    older: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        """The name of its attribute of `Settings`."""
        return self.name.replace("-", "_")


# fmt: off
_WHERE = (
    Option("listen", places.LISTEN, NOW, "25", "where to take SMTP", repeatable=True),
    Option("msp", places.SUBMISSION, NOW, "0", "also take submissions; 1 for port 587"),
    Option("smtps", places.IMPLICIT_TLS, NOW, "0", "also listen with implicit TLS; 1 for port 465"),
    Option("user", values.ACCOUNT, NOW, None, "account the service runs as",
           "postoffice when started by root"),
    Option("hostname", values.HOSTNAME, NOW, "auto",
           "our name: the canonical one (auto), the machine's (literal), or this one", older=("self",)),
    Option("spool", values.MADE_DIRECTORY, NOW, "/var/spool/postoffice", "directory of the spool"),
    Option("control", values.MADE_SOCKET, NOW, "/run/postoffice/control", "socket of the local commands"),
    Option("control-group", values.ACCOUNT, NOW, None,
           "group whose members may administer", "root and the service's account only"),
    Option("aliases", values.READ_FILE, NOW, "/etc/aliases", "file of the system's aliases"),
    Option("banner", values.READ_FILE, NOW, "/etc/issue.smtp", "file with further lines of the greeting"),
    Option("access", values.TWO_FILES, NOW, "/etc/hosts.allow,/etc/hosts.deny",
           "files that allow or deny clients"),
    Option("virtual", values.READ_DIRECTORY, NOW, "/etc/virtual",
           "directory of the virtual domains' configuration"),
    Option("vspool", values.PATH, NOW, "/var/spool/virtual", "directory of the virtual domains' mailboxes"),
    Option("vuser", values.ACCOUNT, NOW, "mail",
           "owner of virtual mailboxes; unprivileged, the running account"),
    Option("mailbox", places.MAILBOX, NOW, "mbox:/var/mail", "where system users get their mail"),
    Option("vmailbox", places.VIRTUAL_MAILBOX, NOW, None,
           "where virtual users get their mail", "mbox:<vspool>/%d"),
    Option("localdomain", values.DOMAIN, NOW, None, "a domain that is ours", "none", repeatable=True),
    Option("nameserver", places.NAME_SERVER, NOW, None, "DNS server to ask",
           "those of resolv.conf", repeatable=True),
    Option("log", places.LOG, NOW, None, "where to log; json: in front for structured records",
           "syslog, or stderr in the foreground", repeatable=True),
)

_CONVERSATION = (
    Option("clients", values.COUNT, NOW, "100", "most sessions at once; 0 for no limit"),
    Option("per-client", values.COUNT, NOW, "20", "most sessions at once from one address; 0 for no limit"),
    Option("load", values.COUNT, NOW, None, "load average above which new sessions wait; 0 for no limit",
           "4 for each CPU"),
    Option("timeout", values.DURATION, NOW, "5m", "idle time after which a client is dropped"),
    Option("min-rate", values.COUNT, NOW, "50",
           "bytes a second inside DATA after its first minute; 0 for no limit"),
    Option("errors", values.COUNT, NOW, "20", "refused or unknown commands before 421; 0 for no limit"),
    Option("recipients", values.COUNT, NOW, "1000", "most recipients of one letter; 0 for no limit"),
    Option("size", values.SIZE, NOW, "0", "largest letter; 0 for no limit"),
    Option("minfree", values.SPACE, NOW, "10m", "with less free space letters are put off; 0 for no limit"),
    Option("hops", values.COUNT, NOW, "100", "more Received headers than this are a loop; 0 for no limit"),
    Option("require-helo", values.FLAG, NOW, "0", "insist on HELO or EHLO before MAIL"),
    Option("lenient-order", values.FLAG, NOW, "0", "answer 250 to RCPT before MAIL, and drop it"),
    Option("bare-newline", values.BARE_NEWLINE, NOW, "normalize",
           "what to do with bare CR and LF in a letter"),
    Option("debug", values.FLAG, NOW, "0", "enable the DEBUG command, which discloses settings"),
    Option("audit", values.FLAG, NOW, "0", "log a record of each command"),
    Option("tls-cert", values.PATH, NOW, None, "PEM file of a certificate", "none", repeatable=True),
    Option("tls-key", values.PATH, NOW, None, "PEM file of its key", "none", repeatable=True),
    Option("auth", values.AUTH_SOURCES, NOW, "virtual", "where log-ins are checked"),
    Option("auth-plaintext", values.FLAG, NOW, "0", "offer plain-text AUTH without TLS to other machines"),
    Option("auth-any-sender", values.FLAG, NOW, "0", "a logged-in client may use any sender"),
    Option("msp-auth", values.FLAG, NOW, "0", "insist on AUTH on the submission ports"),
    Option("proxy", values.NETWORKS, NOW, None, "networks whose PROXY header is required", "none"),
    Option("xclient", values.NETWORKS, NOW, None, "networks whose XCLIENT is believed", "none"),
)

_POLICY = (
    Option("trusted", places.TRUSTED, NOW, None, "client that is treated like this machine", "none",
           repeatable=True, root_only=True),
    Option("relay", values.FLAG, NOW, "0", "anybody may relay (an open relay)"),
    Option("localmx", values.FLAG, NOW, "0", "treat a client whose MX points at us as local"),
    Option("checkhelo", values.FLAG, NOW, "0", "refuse other machines that greet with our name"),
    Option("dnscheck", values.FLAG, NOW, "0", "a client whose name is not confirmed counts as nameless"),
    Option("paranoid", values.FLAG, NOW, "0", "refuse clients without a name"),
    Option("forbidden", values.DISPOSITION, NOW, "bounce", "what happens to clients that are denied",
           root_only=True, older=("blacklist",)),
    Option("verify-from", values.FLAG, NOW, "1", "check the sender's domain"),
    Option("nodaemon", values.FLAG, NOW, "0", "refuse mail from <>"),
    Option("rate", values.RATE, NOW, None, "letters a network or account may send",
           "no limit", repeatable=True),
    Option("dnsbl", values.DNS_LIST, NOW, None, "DNS list of unwanted clients", "none", repeatable=True),
    Option("dnswl", values.DNS_LIST, NOW, None, "DNS list of welcome clients", "none", repeatable=True),
    Option("greylist", values.FLAG, NOW, "1", "make strangers come back later"),
    Option("delay", values.DURATION, NOW, "1h", "how long the greylist makes them wait"),
    Option("greylist-from", values.FLAG, NOW, "0", "greylist by the full sender address"),
    Option("greylist-net", values.PREFIXES, NOW, "32/128", "prefix lengths of a client's network"),
    Option("greylist-keep", values.DURATION, NOW, "35d", "how long a pair that passed stays passed"),
    Option("greylist-null", values.COUNT, NOW, "5", "multiplier of the delay for the null sender"),
    Option("greylist-max", values.COUNT, NOW, "1000000", "most records of the greylist; 0 for no limit"),
    Option("filter", filters.FILTER, NOW, None, "a milter, or a Python filter", "none", repeatable=True),
    Option("safe", values.FLAG, NOW, "0", "authenticated clients bypass the filters"),
    Option("spam", values.DISPOSITION, NOW, "bounce",
           "what happens to mail a filter rejects", root_only=True),
    Option("av", values.COMMAND, NOW, None, "command that may refuse a letter", "none"),
    Option("av-timeout", values.DURATION, NOW, "2m", "its time limit; 0 for no limit"),
)

_DELIVERY = (
    Option("subaddress", values.SEPARATORS, NOW, "+", "signs that separate a detail from a user's name"),
    Option("usermap", values.USERMAP, NOW, None, "pattern of personal aliases", "none", repeatable=True),
    Option("expansion", values.COUNT, NOW, "10000",
           "most recipients one address may expand to; 0 for no limit"),
    Option("min-uid", values.COUNT, NOW, "100", "accounts below neither receive mail nor log in"),
    Option("root-mail", values.ACCOUNT, NOW, None, "who gets the mail of accounts below min-uid",
           "the mailbox mail"),
    Option("command-timeout", values.DURATION, NOW, "5m", "time limit of a |command; 0 for no limit"),
    Option("escape-from", values.FLAG, NOW, "1", "quote lines that begin with From in mbox files"),
    Option("mxpool", values.FLAG, NOW, "0", "relay to a better MX of a local domain"),
    Option("forward-all", values.FLAG, NOW, "0", "hand recipients without MX or address to relay-host",
           root_only=True),
    Option("relay-host", places.RELAY_HOST, NOW, None, "host that takes all mail for elsewhere",
           "the MX of the recipient's domain", root_only=True),
    Option("remote-port", values.PORT, NOW, "25", "port used when following MX"),
    Option("relay-auth", values.READ_FILE, LATER, None, "file of host, user and password, mode 0600", "none"),
    Option("route", places.ROUTE, LATER, None, "host for a domain, or for a sender's domain",
           "none", repeatable=True),
    Option("tls", values.TLS, LATER, "*:may", "how much TLS a domain needs", repeatable=True),
    Option("pace", values.PACE, LATER, None, "letters to a domain in a period", "no limit", repeatable=True),
)

_QUEUE = (
    Option("immediate", values.FLAG, NOW, "1", "try remote delivery at once, not at the next queue run"),
    Option("queue-run", values.DURATION, NOW, "15m", "time between queue runs; 0 for none"),
    Option("retry", values.WAITS, NOW, "5m,15m,30m,1h,2h,4h,6h", "waits between attempts; the last repeats"),
    Option("qreturn", values.DURATION, NOW, "3d", "mail that cannot be delivered goes back after this"),
    Option("delay-warning", values.DURATION, LATER, "4h", "when the sender hears of a delay; 0 for never"),
    Option("history", values.DURATION, LATER, "7d", "how long attempts of letters that are gone are kept"),
    Option("workers", values.POSITIVE, LATER, "1", "processes that share the sockets and the spool"),
    Option("mailq-all", values.FLAG, NOW, "1",
           "everybody sees the whole queue, not only their own letters"),
    Option("metrics", places.SERVE, LATER, "0", "where to answer Prometheus"),
    Option("web", places.SERVE, LATER, "0", "where to show the status page"),
)

# fmt: on
SECTIONS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("Where things are", _WHERE),
    ("The conversation", _CONVERSATION),
    ("Policy", _POLICY),
    ("Addresses and delivery", _DELIVERY),
    ("The queue", _QUEUE),
)

OPTIONS: tuple[Option, ...] = tuple(option for _, options in SECTIONS for option in options)

#: Every spelling, older ones included.
BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in (option.name, *option.older)}
