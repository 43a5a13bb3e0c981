"""Dialogues: conversations as texts that a reader of SMTP understands, and their steps as values.

`README.md` beside this file tells the form. `dialogues` reads all of them; `tests.dialogues.test_memory` and
`tests.live.test_dialogues` hold them, each with a `Stage` of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dns.message
import dns.rcode
from attrs import field, frozen

from tests.services.dns.network import Serve, reply, zone

HERE = Path(__file__).resolve().parent
OWN_ADDRESS = "198.51.100.1"
"""An address of the machine besides those of the loopback network."""

NAME = "mail.here.test"
DOMAIN = "here.test"
USERS = ("alice", "bob", "postmaster")
# Everybody's password is `secret`.
HASH = "$5$rounds=1000$dialogues$9OpZF8sq13NRSUvW8fv1zomrzbnaiq5XWsf4G/n.o03"

WORLD = (
    "client.far.test A 192.0.2.9",
    "192.0.2.9 PTR client.far.test",
    "second.far.test A 192.0.2.10",
    "192.0.2.10 PTR second.far.test",
    "far.test MX 10 mx.far.test",
    "mx.far.test A 192.0.2.25",
    "192.0.2.25 PTR mx.far.test",
    "mail.here.test A 198.51.100.1",
    "broken.test FAILS",
)
"""What the DNS says in every dialogue. Names that are not told do not exist."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PIECES = {"<CR>": "\r", "<LF>": "\n", "<NUL>": "\0", "<TAB>": "\t"}


@frozen
class Step:
    """One line of a dialogue: what is done or expected, with its argument."""

    number: int
    verb: str
    text: str


@frozen
class Dialogue:
    """A text. `options` and `files` make the office, `dns` the world around it; `memory` is why it is not
    held live.
    """

    name: str
    title: str
    options: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    dns: tuple[str, ...]
    memory: str
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def identifier(self) -> str:
        """Its name as a part of a test's."""
        return re.sub(r"\W", "_", self.name)

    @property
    def office(self) -> tuple[object, ...]:
        """Dialogues for which this is the same can share an office."""
        return self.options, self.files


VERBS = frozenset(
    "C: S: connect back hang closed wait mailbox has lacks log silent file load operator offers hides".split()  # noqa: SIM905
)
ACCOUNT = "nobody"
"""The account the service runs as, and so the only user of the system who has a mailbox."""


def dialogues() -> list[Dialogue]:
    """All of them, by name."""
    return [read(path) for path in sorted(HERE.rglob("*.txt"))]


def read(path: Path, top: Path = HERE) -> Dialogue:
    """One file, named by its way from `top`. Errors: ValueError that names the line."""
    name = path.relative_to(top).with_suffix("").as_posix()
    title = ""
    options, dns, steps = [], [], []
    files: dict[str, str] = {}
    memory, open_file = "", ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if open_file and line.startswith("    "):
            files[open_file] += line[4:] + "\n"
            continue
        open_file = ""
        if not line.strip() or line.startswith("#"):
            title = title or line.lstrip("# ")
            continue
        verb, _, text = line.strip().partition(" ")
        match verb:
            case "option":
                options.append(text)
            case "dns":
                dns.append(text)
            case "memory":
                memory = text
            case "file" if not steps:
                open_file = text
                files[text] = ""
            case _ if verb in VERBS:
                steps.append(Step(number, verb, text))
            case _:
                raise ValueError(f"{path.name}, line {number}: what is {verb!r}?")
    return Dialogue(
        name, title, tuple(options), tuple(sorted(files.items())), tuple(dns), memory, tuple(steps)
    )


def seconds(text: str) -> int:
    """A time such as `30s`, `5m`."""
    return int(text[:-1]) * _UNITS[text[-1]]


def octets(text: str) -> bytes:
    """What a `C:` line sends, without its CRLF; `<CR>`, `<LF>`, `<NUL>` and `<TAB>` stand for octets."""
    for name, octet in _PIECES.items():
        text = text.replace(name, octet)
    return text.encode("utf-8")


def matches(pattern: str, text: str) -> bool:
    """Whether a text is what was expected; `*` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.S) is not None


def furnish(directory: Path, dialogue: Dialogue) -> None:
    """Users, their mailboxes and the files of the dialogue, in a directory of its own."""
    for name in ("mail", "spool"):
        (directory / name).mkdir(exist_ok=True)
    passwd = directory / "virtual" / DOMAIN / "passwd"
    passwd.parent.mkdir(parents=True, exist_ok=True)
    passwd.write_text("".join(f"{user}:{HASH}\n" for user in USERS))
    (directory / "virtual/domains.cf").write_text(f"root:{DOMAIN}:1:for tests\nroot:asleep.test:0:inactive\n")
    for name, text in (*((name, "") for name in ("banner", "hosts.allow", "hosts.deny")), *dialogue.files):
        (directory / name).write_text(text)


def settings(directory: Path, dialogue: Dialogue) -> list[str]:
    """The lines of the configuration file, but for the places to listen at and the name server."""
    lines = [
        f"hostname={NAME}",
        f"spool={directory}/spool",
        f"control={directory}/control",
        f"virtual={directory}/virtual",
        f"vspool={directory}/mail",
        f"vmailbox=maildir:{directory}/mail/%d/%u",
        f"mailbox=maildir:{directory}/mail/%u",
        # Most dialogues are about something else.
        "greylist=0",
        "load=0",
        "load=0",
        f"banner={directory}/banner",
        f"access={directory}/hosts.allow,{directory}/hosts.deny",
    ]
    return [*lines, *(option.replace("DIR", str(directory)) for option in dialogue.options)]


def records(dns: Sequence[str]) -> tuple[dict[str, list[str]], frozenset[str]]:
    """Lines `name TYPE data` as records by "name TYPE", and the names whose look-ups fail (`name FAILS`).

    The name of a PTR record is an address.
    """
    found: dict[str, list[str]] = {}
    failing = set()
    for line in dns:
        name, kind, *data = line.split(" ", 2)
        if kind == "FAILS":
            failing.add(name)
            continue
        if kind == "PTR":
            name = ".".join(reversed(name.split("."))) + ".in-addr.arpa"
        value = data[0] if kind in ("A", "AAAA", "TXT") or data[0].endswith(".") else f"{data[0]}."
        found.setdefault(f"{name} {kind}", []).append(f"{name} 60 {kind} {value}")
    return found, frozenset(failing)


def serve(lines: Sequence[str]) -> Serve:
    """A name server that knows the world and these lines, and fails for some names."""
    known, failing = records((*WORLD, *lines))
    answer = zone(known)

    def ask(query: bytes) -> Sequence[bytes]:
        name = dns.message.from_wire(query).question[0].name.to_text(omit_final_dot=True)
        return [reply(query, code=dns.rcode.SERVFAIL)] if name in failing else answer(query)

    return ask


def logged(log: str, pattern: str) -> bool:
    """Whether a line of a log is so, its time and level apart."""
    lines = (line.split(" ", 2) for line in log.splitlines())
    return any(len(parts) == 3 and matches(pattern, parts[2]) for parts in lines)


def newest_last(directory: Path, user: str) -> list[bytes]:
    """The letters of a user's Maildir; `user/.folder` is one of his folders."""
    box = directory / "mail" / (user if user.split("/")[0] == ACCOUNT else f"{DOMAIN}/{user}")
    found = box.glob("new/*")
    return [path.read_bytes() for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]
