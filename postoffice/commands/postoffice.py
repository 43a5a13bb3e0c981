"""postoffice: the service, and mail from the command line.

    postoffice [-C FILE] [-o NAME=VALUE]... MODE

    -bD, -bd    serve, in the foreground or the background; -qTIME sets the time between queue runs, -a
                logs a record of every command
    -bt         check the configuration and print every setting with where it came from
    -bp         show the queue (mailq); -q{PATTERN} chooses letters
    -bq, -q     run the queue now; -qI, -qS or -qR and a text choose letters
    -bi         check the alias file (newaliases); with names, those of virtual domains
    -bm         send the letter on standard input to the addresses given (without a mode: this)
    explain     whom an address stands for: explain [--json] ADDRESS (for administrators)
    hold, release, delete, show
                what is done with letters in the queue (for administrators; hold --help says more)
    greylist    look after the greylist: list, approve, forbid, expire (greylist --help says more)
    helper      become the users whose mail is delivered: for systemd alone, which hands over a socket

For -bm: -f or -r ADDRESS names the sender (`<>` for none); -i keeps a line with a lone dot from ending
the letter; -v prints the queue id. -V prints the version, --help this.

The service does the work; for -bD, -bd and -bt this command replaces itself by it. With the service down
root and the service's account may still see and change the queue, the greylist and the files of virtual
domains; -q has letters tried as soon as it starts. Exit codes are those of sysexits(3): EX_OK also when only
some recipients are good (the others are named on standard error), EX_NOUSER when none is, EX_TEMPFAIL when
the service is needed and not running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

import postoffice
from postoffice.commands.common import (
    DOWN,
    STANDARD,
    Failed,
    ask,
    complain,
    configuration,
    connect,
    control_path,
    flags,
    pattern_of,
    program,
    run,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

_PIECE = 1 << 16
_MODES = "Ddtpqmi"
_ABOUT_LETTERS = ("hold", "release", "delete", "show")


class _Line:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.mode = ""
        self.file: str | None = None
        self.overrides: list[str] = []
        self.sender: str | None = None
        self.arguments: list[str] = []
        self.queue: str | None = None
        self.dot_ends = True
        self.verbose = False
        self.attached = False


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("postoffice", _postoffice, arguments)


def _postoffice(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--help"]:
        # What stands at the top of this file is the manual.
        print((__doc__ or "").strip())
        return os.EX_OK
    line = _read(arguments)
    if not line.mode and line.arguments[:1] == ["explain"]:
        from postoffice.commands.explain import explain

        return explain(control_path(line.file, line.overrides), line.arguments[1:])
    if not line.mode and line.arguments and line.arguments[0] in _ABOUT_LETTERS:
        # Imported here, since only this needs it.
        from postoffice.commands.letters import letters

        return letters(line.file, line.overrides, line.arguments)
    if not line.mode and line.arguments[:1] == ["greylist"]:
        # Imported here, since only this needs it.
        from postoffice.commands.greylist import greylist

        return greylist(line.file, line.overrides, line.arguments[1:])
    if not line.mode and line.arguments == ["helper"]:
        return _execute([*program([])[:-1], "postoffice.delivery.helper.unit", line.file or STANDARD])
    match line.mode:
        case "V":
            print(f"postoffice {postoffice.__version__}")
            return os.EX_OK
        case "D" | "d":
            return _serve(line)
        case "t":
            return _become(["check", *configuration(line.file, line.overrides)])
        case "i":
            # Imported here, since only this mode needs it.
            from postoffice.commands.newaliases import rebuild

            return rebuild("postoffice", line.file, line.overrides, line.arguments)
        case "p":
            # Imported here, since only this mode needs it.
            from postoffice.commands.mailq import show

            return show("postoffice", line.file, line.overrides, line.queue or "")
        case "q":
            return _run_queue(line)
    return _deliver(control_path(line.file, line.overrides), line)


def _read(arguments: Sequence[str]) -> _Line:
    line = _Line()
    for flag, value in flags(arguments, plain="aimnvV", valued="bCfor", optional="dq"):
        match flag:
            case "":
                line.arguments.append(value)
            case "b":
                if len(value) != 1 or value not in _MODES:
                    raise Failed(f"unknown mode -b{value}; there are -b{', -b'.join(_MODES)}", os.EX_USAGE)
                line.mode = value
            case "C":
                line.file = value
            case "f" | "r":
                line.sender = value
            case "i":
                line.dot_ends = False
            case "o":
                if value == "i":
                    line.dot_ends = False
                else:
                    line.overrides.append(value)
            case "q":
                line.queue = value
            case "v":
                line.verbose = True
            case "V":
                line.mode = "V"
            case "a":
                line.overrides.append("audit=1")
            case "d":
                line.attached = True
    if line.queue is not None and not line.mode:
        line.mode = "q"
    if line.arguments and line.mode not in ("", "m", "i"):
        raise Failed(f"-b{line.mode} takes no arguments: {line.arguments[0]}", os.EX_USAGE)
    return line


# The service.


def _serve(line: _Line) -> int:
    words = ["serve", *configuration(line.file, line.overrides)]
    if line.mode == "d" and not line.attached:
        words.append("--daemon")
    if line.queue:
        words.extend(("-o", f"queue-run={_period(line.queue)}"))
    return _become(words)


def _period(text: str) -> str:
    """A time as `queue-run` takes it: on the command line a bare number means minutes."""
    number, unit = (text, "m") if text.isdigit() else (text[:-1], text[-1:].lower())
    if not (number.isascii() and number.isdigit()) or unit not in "mhdw":
        raise Failed(f"-q{text}: is no time; use minutes, or a number with m, h, d or w", os.EX_USAGE)
    return number + unit


def _become(words: list[str]) -> int:
    """Replace this process by the service, never importing from the current directory."""
    return _execute(program(words))


def _execute(command: list[str]) -> int:
    sys.stdout.flush()
    try:
        return os.execv(command[0], command)
    except OSError as error:
        raise Failed(f"{sys.executable} cannot be run: {error.strerror}", os.EX_OSERR) from None


# What is asked of the service.


def _run_queue(line: _Line) -> int:
    wanted = line.queue or ""
    if wanted and wanted[0] not in "ISR":
        raise Failed(
            f"-q{wanted}: a time goes with -bd or -bD, a choice of letters is -qI, -qS or -qR", os.EX_USAGE
        )
    *_, answer = ask(line.file, line.overrides, {"verb": "run", "pattern": pattern_of(wanted)})
    if "down" in answer:
        complain("postoffice", f"warning: {DOWN}; it tries these letters as soon as it starts")
    if line.verbose:
        count = answer["letters"]
        print("1 letter is due now" if count == 1 else f"{count} letters are due now")
    return os.EX_OK


def _deliver(path: str, line: _Line) -> int:
    if not line.arguments:
        raise Failed("no recipients; name them as arguments", os.EX_USAGE)
    request: dict[str, Any] = {"verb": "submit", "recipients": line.arguments}
    if line.sender is not None:
        request["sender"] = None if line.sender in ("", "<>") else line.sender
    content = _content(sys.stdin.buffer, line.dot_ends)
    # What is there is read before the service is bothered: people may take long to type.
    first = next(content, b"")
    with connect(path) as connection:
        answer = connection.submit(request, _chain(first, content))
    for address, reply in answer["refused"]:
        complain("postoffice", f"warning: {address}: {reply}")
    if line.verbose:
        print(answer["id"])
    return os.EX_OK


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _content(stream: BinaryIO, dot_ends: bool) -> Iterator[bytes]:
    """The letter in pieces of about 64 KiB, up to its end or a line that is a lone dot."""
    try:
        if dot_ends:
            yield from _until_dot(stream.readline)
        else:
            while data := stream.read(_PIECE):
                yield data
    except OSError as error:
        raise Failed(f"standard input: {error.strerror}", os.EX_IOERR) from None


def _until_dot(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    lines: list[bytes] = []
    size = 0
    begins = True
    while data := readline(_PIECE):
        if begins and data.rstrip(b"\r\n") == b"." and len(data) <= 3:
            break
        begins = data.endswith(b"\n")
        lines.append(data)
        size += len(data)
        if size >= _PIECE:
            yield b"".join(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines)


if __name__ == "__main__":
    sys.exit(main())
