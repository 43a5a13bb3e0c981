"""Dialogues: conversations as texts that a reader of SMTP understands, and their steps as values.

`README.md` beside this file tells the form. `dialogues` reads all of them; `tests.dialogues.test_memory` and
`tests.live.test_dialogues` hold them, each with a `Stage` of its own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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


class Line(ABC):
    """One connection, as a stage makes it."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Say it to the server."""

    @abstractmethod
    def heard(self, wait: bool = True) -> str | None:
        """The next line that the server said, without its CRLF; None when there is none. One that is still
        to come is waited for, or not.
        """

    @abstractmethod
    def is_closed(self) -> bool:
        """Whether the server has closed, or will once what it said is read."""

    @abstractmethod
    def hang_up(self) -> None:
        """Close without a word."""


class Stage(ABC):
    """What a dialogue is held with: an office, its clients, and its clock."""

    @abstractmethod
    def connect(self, ip: str, door: str) -> Line:
        """A client from this address."""

    @abstractmethod
    def wait(self, seconds: int) -> None:
        """Let time pass."""

    @abstractmethod
    def letters(self, user: str, count: int) -> list[bytes]:
        """The letters of a mailbox, the newest last; `count` of them, if all is well, within some time."""

    @abstractmethod
    def logged(self, pattern: str) -> bool:
        """Whether a line of the log since the dialogue began is so."""

    @abstractmethod
    def told(self, pattern: str) -> bool:
        """The same, of what is logged by now."""

    @abstractmethod
    def load(self, average: float) -> None:
        """The machine is that busy."""

    @abstractmethod
    def rewrite(self, name: str, text: str) -> None:
        """Change a file of the dialogue."""

    @abstractmethod
    def operate(self, verb: str, record: str) -> None:
        """Have an operator approve or forbid a record of the greylist."""


class Broken(AssertionError):
    """A dialogue went another way; the message names file and line."""


class Play:
    """Holds one dialogue on a stage."""

    def __init__(self, dialogue: Dialogue, stage: Stage) -> None:
        self.dialogue = dialogue
        self.stage = stage
        self.lines: dict[str, Line] = {}
        self.line: Line | None = None
        self.letter = b""
        self.reply: list[str] = []
        self._number = 0

    def run(self) -> None:
        """From the first line to the last. Errors: `Broken`."""
        pending: list[bytes] = []
        for step in self.dialogue.steps:
            if step.verb == "C:" or (step.verb != "C:" and not pending):
                pass
            else:
                self._say(pending)
            self._number = step.number
            if step.verb == "C:":
                pending.append(octets(step.text) + b"\r\n")
            else:
                self._take(step)
        self._say(pending)
        for line in self.lines.values():
            if (more := line.heard(wait=False)) is not None:
                self._broken(f"more was said than expected: {more!r}")
            line.hang_up()

    def _say(self, pending: list[bytes]) -> None:
        """Consecutive lines go out in one piece, as a client that pipelines sends them."""
        if pending:
            self._current().send(b"".join(pending))
            pending.clear()

    def _take(self, step: Step) -> None:
        match step.verb:
            case "S:" if step.text.endswith("..."):
                self.reply = [self._expect(step.text[:3] + "*")]
                while self.reply[-1][3:4] == "-":
                    self.reply.append(self._expect(step.text[:3] + "*"))
            case "offers" | "hides":
                if any(matches(step.text, line[4:]) for line in self.reply) != (step.verb == "offers"):
                    self._broken(f"the last reply {step.verb} not: {self.reply}")
            case "S:":
                self._expect(step.text)
            case "connect":
                ip, *rest = step.text.split()
                words = dict(zip(rest[::2], rest[1::2], strict=True))
                self.line = self.stage.connect(ip, words.get("to", "smtp"))
                self.lines[words.get("as", f"line {step.number}")] = self.line
            case "back":
                self.line = self.lines[step.text.removeprefix("to ")]
            case "hang":
                self._current().hang_up()
                self.lines = {name: line for name, line in self.lines.items() if line is not self.line}
            case "closed":
                if not self._current().is_closed():
                    self._broken("the connection is still open")
            case "wait":
                self.stage.wait(seconds(step.text))
            case "file":
                name, _, text = step.text.partition(": ")
                self.stage.rewrite(name, text + "\n")
            case "load":
                self.stage.load(float(step.text))
            case "silent":
                if self.stage.told(step.text):
                    self._broken(f"the log has a line {step.text!r}")
            case "operator":
                verb, _, record = step.text.partition(" ")
                self.stage.operate(verb, record)
            case "log":
                if not self.stage.logged(step.text):
                    self._broken(f"the log has no line {step.text!r}")
            case _:
                self._look(step)

    def _expect(self, pattern: str) -> str:
        """The next line that the server said, which has to be so."""
        said = self._current().heard()
        if said is None or not matches(pattern, said):
            self._broken(f"expected {pattern!r}, got {said!r}")
        return said or ""

    def _look(self, step: Step) -> None:
        """What is in a mailbox."""
        if step.verb == "mailbox":
            user, _, count = step.text.partition(" ")
            letters = self.stage.letters(user, int(count))
            if len(letters) != int(count):
                self._broken(f"{user} has {len(letters)} letters, not {count}")
            self.letter = letters[-1] if letters else b""
            return
        there = any(matches(step.text, line) for line in self._unfolded())
        if there != (step.verb == "has"):
            self._broken(f"the letter {'has' if there else 'lacks'} {step.text!r}: {self.letter!r}")

    def _unfolded(self) -> Iterator[str]:
        text = self.letter.decode("utf-8", "replace").replace("\r\n", "\n")
        yield from re.sub(r"\n[ \t]+", " ", text).split("\n")

    def _current(self) -> Line:
        if self.line is None:
            self._broken("nobody is connected")
        assert self.line is not None
        return self.line

    def _broken(self, what: str) -> None:
        raise Broken(f"tests/dialogues/{self.dialogue.name}.txt, line {self._number}: {what}")


def logged(log: str, pattern: str) -> bool:
    """Whether a line of a log is so, its time and level apart."""
    lines = (line.split(" ", 2) for line in log.splitlines())
    return any(len(parts) == 3 and matches(pattern, parts[2]) for parts in lines)


def newest_last(directory: Path, user: str) -> list[bytes]:
    """The letters of a user's Maildir; `user/.folder` is one of his folders."""
    box = directory / "mail" / (user if user.split("/")[0] == ACCOUNT else f"{DOMAIN}/{user}")
    found = box.glob("new/*")
    return [path.read_bytes() for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]
