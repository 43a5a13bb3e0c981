"""What the commands share: flags as sendmail reads them, where the service is, how a command ends.

A command's `main` returns its exit code (sysexits). What goes wrong is one line on standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import postoffice
from postoffice import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STANDARD = "/etc/postoffice.cf"
CONTROL = "/run/postoffice/control"
DOWN = "the service is not running"
_LARGEST = 1 << 20
_PIECE = 1 << 16


class Failed(Exception):
    """The command ends: the text is for the user, `exit_code` for the shell."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def flags(arguments: Sequence[str], plain: str, valued: str, optional: str) -> Iterator[tuple[str, str]]:
    """Each flag with its value, and at last ("", argument) for each argument behind the flags.

    `plain` letters have no value and may be written together; `valued` ones have it attached or as
    the next word; `optional` ones have it attached or not at all. Errors: `Failed` with EX_USAGE.
    """
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        if word == "--help":
            raise Failed("--help comes first: say it behind the name of the command", os.EX_USAGE)
        rest = word[1:]
        while rest:
            letter, rest = rest[0], rest[1:]
            if letter in plain:
                yield letter, ""
            elif letter in optional:
                yield letter, rest
                break
            elif letter in valued:
                if not rest and not words:
                    raise Failed(f"-{letter} needs a value", os.EX_USAGE)
                yield letter, rest or words.pop(0)
                break
            else:
                raise Failed(f"unknown flag -{letter} in {printable(word)}", os.EX_USAGE)
    for word in words:
        yield "", word


def words(
    arguments: Sequence[str], plain: str = "", valued: str = ""
) -> tuple[str | None, list[str], dict[str, str], list[str]]:
    """What follows a command that knows `-C FILE`, `-o OPTION` and other letters, `plain` and `valued`.

    The file, the options, the other letters with their values, the last of each, and the words behind the
    flags. Errors: as `flags`.
    """
    file: str | None = None
    overrides: list[str] = []
    given: dict[str, str] = {}
    rest: list[str] = []
    for flag, value in flags(arguments, plain, valued=f"Co{valued}", optional=""):
        match flag:
            case "":
                rest.append(value)
            case "C":
                file = value
            case "o":
                overrides.append(value)
            case _:
                given[flag] = value
    return file, overrides, given, rest


def control_path(file: str | None, overrides: Sequence[str]) -> str:
    """Where the service's socket is, from the configuration file (None: the standard one) and `-o`.

    Errors: `Failed` when the file named is not there or cannot be read.
    """
    found = _control_of(file)
    for override in overrides:
        name, _, value = override.partition("=")
        if name.strip() == "control" and value.strip():
            found = value.strip()
    return found


def _control_of(file: str | None) -> str:
    try:
        with open(file or STANDARD, encoding="utf-8", errors="replace") as opened:
            text = opened.read(_LARGEST)
    except FileNotFoundError:
        if file is None:
            return CONTROL
        raise Failed(f"{file}: there is no such configuration file", os.EX_NOINPUT) from None
    except PermissionError:
        raise Failed(f"{file or STANDARD}: may not be read", os.EX_NOPERM) from None
    except OSError as error:
        raise Failed(f"{file or STANDARD}: {error.strerror}", os.EX_OSFILE) from None
    return wire.read_options(text, ["control"]).get("control") or CONTROL


def connect(path: str) -> wire.Connection:
    """A connection to the service. Errors: `Failed` with EX_TEMPFAIL."""
    try:
        return wire.Connection(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise Failed(f"{DOWN}: nothing answers at {path}", os.EX_TEMPFAIL) from None
    except OSError as error:
        raise Failed(f"the service cannot be reached at {path}: {error.strerror}", os.EX_TEMPFAIL) from None


def ask(file: str | None, overrides: Sequence[str], message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The frames of the answer, from the service or, when none runs, from a program that does its work.

    Errors: `Failed`, `wire.Refused`, `OSError`, `wire.WireError`.
    """
    connection = _somebody(file, overrides)
    if connection is None:
        frames = _ask_nobody(configuration(file, overrides), message)
        yield from (frame for frame in frames if isinstance(frame, dict))
        return
    with connection:
        yield from connection.request(message)


def ask_content(file: str | None, overrides: Sequence[str], message: dict[str, Any]) -> Iterator[bytes]:
    """The pieces of content that are the answer, as `ask` gets it. Errors: the same."""
    connection = _somebody(file, overrides)
    if connection is None:
        frames = _ask_nobody(configuration(file, overrides), message)
        yield from (frame for frame in frames if isinstance(frame, bytes))
        return
    with connection:
        yield from connection.content(message)


def _somebody(file: str | None, overrides: Sequence[str]) -> wire.Connection | None:
    """A connection to the service, None where none runs."""
    path = control_path(file, overrides)
    try:
        return wire.Connection(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise Failed(f"the service cannot be reached at {path}: {error.strerror}", os.EX_TEMPFAIL) from None


def _ask_nobody(words: list[str], message: dict[str, Any]) -> Iterator[dict[str, Any] | bytes]:
    # Imported here, since the service is up as a rule.
    import subprocess

    command = program(["ask", *words])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            # Other people can read the words of a command, and a request may hold a password.
            process.stdin.write(wire.encode_json(message))
            process.stdin.close()
        decoder = wire.Decoder()
        while data := os.read(process.stdout.fileno(), _PIECE):
            for frame in decoder.feed(data):
                assert frame is not None
                if isinstance(frame, dict) and "error" in frame:
                    raise wire.Refused(str(frame["error"]), int(frame["exit"]))
                yield frame
    if process.returncode:
        raise Failed(f"{DOWN}, and nothing else could do it", process.returncode)


def program(words: Sequence[str]) -> list[str]:
    """What runs `postoffice.tap`, never importing from the current directory; the environment is prepared."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(postoffice.__file__)))
    if os.path.basename(root) not in ("site-packages", "dist-packages"):
        # Run from a source tree: the service must be the one beside this command.
        given = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([root, given] if given else [root])
    return [sys.executable, "-P", "-m", "postoffice.tap", *words]


def configuration(file: str | None, overrides: Iterable[str]) -> list[str]:
    """The words by which `postoffice.tap` is told of `-C` and `-o`."""
    words = ["-C", os.path.abspath(file or STANDARD)]
    for override in overrides:
        words.extend(("-o", override))
    return words


def pattern_of(text: str) -> dict[str, str] | None:
    """The `{pattern}` of `-q{pattern}`: `I`, `S`, `R` and text for id, sender, recipient; or any text."""
    if not text:
        return None
    fields = {"I": "id", "S": "sender", "R": "recipient"}
    if text[0] in fields and text[1:]:
        return {"field": fields[text[0]], "text": text[1:]}
    return {"field": "any", "text": text}


def name_and_domain(address: str) -> tuple[str, str]:
    """What an address of a virtual domain consists of. Errors: `Failed` with EX_USAGE."""
    name, _, domain = address.rpartition("@")
    if not name or not domain:
        raise Failed(f"{address}: not of the form NAME@DOMAIN", os.EX_USAGE)
    return name, domain


def printable(text: str) -> str:
    """Foreign text fit for a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def complain(name: str, text: str) -> None:
    """One line on standard error."""
    print(f"{name}: {printable(text)}", file=sys.stderr)


def run(
    name: str,
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[str] | None,
    manual: str | None = None,
) -> int:
    """Run a command to its exit code, whatever happens; `--help` prints its manual, where it has one."""
    _open_standard_files()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if manual is not None and given[:1] == ["--help"]:
            print(manual.strip())
            code = os.EX_OK
        else:
            code = command(given)
        sys.stdout.flush()
        return code
    except (Failed, wire.Refused) as error:
        complain(name, str(error))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be flushed into it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except (OSError, wire.WireError) as error:
        complain(name, f"the conversation with the service broke off: {error}")
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        return 130


def _open_standard_files() -> None:
    """Give standard files that were closed the null device.

    Else the next file or socket that is opened, here or in the service this becomes, would take the number,
    and what is meant for standard error be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
