"""The program behind `Scripted`: a filter on libmilter, told by a script what to do; writes what it is told.

`puppet.py SOCKET SCRIPT`, run by Debian's Python. Every event is a line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import Milter  # type: ignore[import-not-found]

MACROS = "i j _ {daemon_name} {client_addr} {client_name} {mail_addr} {auth_authen} {rcpt_mailer} {msg_id}"


def note(event: list[Any]) -> None:
    """Write an event down, in one piece: sessions are threads."""
    os.write(1, f"{json.dumps(event)}\n".encode())


class Puppet(Milter.Base):  # type: ignore[misc]
    """Answers each event with what the script says of it, or goes on. Every connection reads it anew."""

    def __init__(self) -> None:
        self.script: dict[str, Any] = json.loads(Path(sys.argv[2]).read_text())

    def tell(self, event: str, *what: Any) -> int:
        """Write the event down; the verdict on it."""
        note([event, *what])
        events = self.script["events"]
        verdict = events.get(f"{event} {what[0]}" if what else event) or events.get(event, "CONTINUE")
        if isinstance(verdict, list):
            code, status, *lines = verdict
            self.setreply(code, status, *lines)
            return int(Milter.TEMPFAIL if code.startswith("4") else Milter.REJECT)
        return int(getattr(Milter, verdict))

    def connect(self, name: str, family: int, address: Any) -> int:
        return self.tell("connect", name, str(address))

    def hello(self, name: str) -> int:
        return self.tell("hello", name)

    def envfrom(self, address: str, *parameters: str) -> int:
        return self.tell("envfrom", address, *parameters)

    def envrcpt(self, address: str, *parameters: str) -> int:
        return self.tell("envrcpt", address, *parameters)

    def data(self) -> int:
        return self.tell("data")

    @Milter.decode("bytes")  # type: ignore[misc]
    def header(self, name: str, value: bytes) -> int:
        return self.tell("header", name, value.decode("latin-1"))

    def eoh(self) -> int:
        return self.tell("eoh")

    def body(self, chunk: bytes) -> int:
        return self.tell("body", len(chunk))

    def unknown(self, line: str) -> int:
        return self.tell("unknown", line)

    def eom(self) -> int:
        """Everything the script says, then its last word."""
        told = {name: self.getsymval(name) for name in MACROS.split()}
        verdict = self.tell("end", {name: value for name, value in told.items() if value is not None})
        for name, *arguments in self.script["actions"]:
            values = [value.encode() if name == "replacebody" else value for value in arguments]
            getattr(self, name)(*values)
        if self.script["last"] == "DIE":
            os._exit(1)
        return verdict if "end" in self.script["events"] else int(getattr(Milter, self.script["last"]))

    def abort(self) -> int:
        note(["abort"])
        return int(Milter.CONTINUE)

    def close(self) -> int:
        note(["close"])
        return int(Milter.CONTINUE)


Milter.factory = Puppet
Milter.set_flags(0xFF)
Milter.runmilter("puppet", sys.argv[1], 60)
