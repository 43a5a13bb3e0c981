"""postoffice explain: whom an address stands for, and why.

    postoffice [-C FILE] explain [--json] ADDRESS

First come the steps: each address that was met, moved in by its distance from the first, with what says what
it stands for (a file, the users, `elsewhere`). Then the copies a letter would be delivered in: whose, and to
where, or why not. --json prints both as one JSON object.

For administrators, while the service runs. Exits with EX_NOUSER for an address that stands for nobody, with
EX_TEMPFAIL where that cannot be found out now.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence

from postoffice.commands.common import Failed, connect, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def explain(path: str, words: Sequence[str]) -> int:
    """Ask the service at `path`, and print what it says; returns the exit code."""
    if list(words) == ["--help"]:
        # What stands at the top of this file is the manual.
        print((__doc__ or "").strip())
        return os.EX_OK
    addresses = [word for word in words if word != "--json"]
    if len(addresses) != 1 or addresses[0].startswith("-"):
        raise Failed("say explain ADDRESS, or explain --json ADDRESS", os.EX_USAGE)
    with connect(path) as connection:
        *answers, last = connection.request({"verb": "explain", "address": addresses[0]})
    steps = [answer for answer in answers if "depth" in answer]
    copies = [answer for answer in answers if "copy" in answer]
    refusal = last["refusal"]
    if "--json" in words:
        whole = {"address": addresses[0], "steps": steps, "copies": copies, "refusal": refusal}
        print(json.dumps(whole, indent=2))
    else:
        sys.stdout.writelines(f"{printable(line)}\n" for line in lines(steps, copies, refusal))
    if refusal is None:
        return os.EX_OK
    return os.EX_TEMPFAIL if refusal.startswith("4") else os.EX_NOUSER


def lines(steps: list[dict[str, Any]], copies: list[dict[str, Any]], refusal: str | None) -> Iterator[str]:
    """The explanation for people."""
    for step in steps:
        yield f"{'  ' * step['depth']}{step['address']}: {step['what']}"
    for copy in copies:
        yield f"=> {copy['copy']}: {copy['refusal'] or copy['destination']}"
    if refusal is not None:
        yield f"=> {refusal}"
