"""Dialogues are held on stages: `Play` holds one, a `Stage` is what it is held with.

The stages are in `tests.dialogues.test_memory` and `tests.live.test_dialogues`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator

from tests.dialogues.script import Dialogue, Step, matches, octets, seconds


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
