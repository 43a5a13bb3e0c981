"""postoffice greylist: look after the greylist.

    postoffice [-C FILE] greylist list [-w]
    postoffice [-C FILE] greylist approve RECORD
    postoffice [-C FILE] greylist forbid RECORD
    postoffice [-C FILE] greylist expire [-Enuvz] [AGE]

`list` shows each record, when its mail is accepted from, a `#` if it was seen since, and when it was seen
last; on a terminal it is cut to 80 columns, unless -w is given. A RECORD is SENDER@[IP] (the part of the
address before the @), <>@[IP], or a whole address, whatever host it comes from.

`expire` removes records not seen for AGE: a number of seconds, or with m, h, d or w behind it; 14d, and not
less than a minute. -E: forbidden ones too; -z: those of the null sender whatever their age; -u: those that
did not come back once they might; -n: remove nothing; -v: say what goes, and how many.

Works with the service up or down, for root, the service's account and (up) members of control-group.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from postoffice.commands.common import Failed, ask, flags, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGE = "14d"
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_LEAST = 60


def greylist(file: str | None, overrides: Sequence[str], words: Sequence[str]) -> int:
    """The verbs of `postoffice greylist`; returns the exit code."""
    match list(words):
        case ["--help"]:
            # What stands at the top of this file is the manual.
            print((__doc__ or "").strip())
        case ["list", *rest]:
            wide = [flag for flag, _ in flags(rest, plain="w", valued="", optional="")]
            if "" in wide:
                raise Failed("list takes no arguments", os.EX_USAGE)
            show(file, overrides, wide=bool(wide))
        case ["approve" | "forbid" as verb, record]:
            set_record(file, overrides, verb, record)
        case ["expire", *rest]:
            given = list(flags(rest, plain="Enuvz", valued="", optional=""))
            expire(file, overrides, {flag for flag, _ in given}, [value for flag, value in given if not flag])
        case _:
            raise Failed(
                "say list, approve RECORD, forbid RECORD or expire [AGE]; --help says more", os.EX_USAGE
            )
    return os.EX_OK


def show(file: str | None, overrides: Sequence[str], wide: bool) -> None:
    """Print all records."""
    cut = not wide and sys.stdout.isatty()
    records = (answer for answer in _asked(file, overrides, {"do": "list"}) if "done" not in answer)
    sys.stdout.writelines(f"{line}\n" for line in table(records, cut))


def table(records: Iterable[dict[str, Any]], cut: bool) -> Iterator[str]:
    """The lines of the listing."""
    for record in records:
        name = printable(record["record"])
        accepted, seen = record["accepted"], record["seen"]
        when = "**** forbidden ****" if accepted is None else _time(accepted)
        mark = "#" if accepted is not None and seen >= accepted else " "
        yield f"{f'{name:31.31}' if cut else name}\t{when} {mark}{_time(seen)}"


def set_record(file: str | None, overrides: Sequence[str], verb: str, record: str) -> None:
    """Approve or forbid a record."""
    for _ in _asked(file, overrides, {"do": verb, "record": record}):
        pass


def expire(file: str | None, overrides: Sequence[str], given: set[str], ages: Sequence[str]) -> None:
    """Remove records; `given` are the flags, `ages` what stands behind them: an age or nothing."""
    if len(ages) > 1:
        raise Failed(f"one age is enough: {ages[1]}", os.EX_USAGE)
    dry, chatty = "n" in given, "v" in given
    request = {
        "do": "expire",
        "age": _seconds(ages[0] if ages else AGE),
        "forbidden": "E" in given,
        "null": "z" in given,
        "unused": "u" in given,
        "dry": dry,
    }
    for answer in _asked(file, overrides, request):
        if "done" not in answer:
            if dry or chatty:
                print(f"delete [{printable(answer['record'])}]")
        elif chatty:
            left = answer["records"] - (0 if dry else answer["expired"])
            print(f"{left} record{'' if left == 1 else 's'}; expired {answer['expired']}.")


def _asked(file: str | None, overrides: Sequence[str], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return ask(file, overrides, {"verb": "greylist", **request})


def _time(when: int) -> str:
    return time.strftime("<%H:%M %d %b %Y>", time.localtime(when))


def _seconds(text: str) -> int:
    number, unit = (text, 1) if text.isdigit() else (text[:-1], _UNITS.get(text[-1:].lower(), 0))
    if not (number.isascii() and number.isdigit() and unit and int(number)):
        raise Failed(f"bad expire interval ({text})", os.EX_USAGE)
    if int(number) * unit < _LEAST:
        raise Failed(f"the expiration age needs to be at least {_LEAST} seconds", os.EX_USAGE)
    return int(number) * unit
