"""What the benchmark prints: medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Protocol

COLUMNS = ("bare", "us", "postfix")


class Measured(Protocol):
    """One measurement: letters a second, and CPU milliseconds a letter."""

    @property
    def rate(self) -> float: ...

    @property
    def cost(self) -> float: ...


def summary(runs: Sequence[Measured]) -> dict[str, Any]:
    """Medians over the rounds, and every round."""
    return {
        "rate": statistics.median(run.rate for run in runs),
        "cost": statistics.median(run.cost for run in runs),
        "rates": [run.rate for run in runs],
        "costs": [run.cost for run in runs],
    }


def complete(record: dict[str, Any], names: Sequence[str], rounds: int) -> bool:
    """Has every server that takes part in this cell all its rounds?"""
    expected = [name for name in names if name != "bare" or record["mode"] != "filter"]
    return all(len(record["servers"].get(name, {"rates": ()})["rates"]) == rounds for name in expected)


def heading() -> str:
    """The two lines above the rows."""
    return (
        f"{'':26}{'letters/s':^27}{'CPU ms/letter':^24}{'us/postfix':^16}{'us/bare':>9}\n"
        f"{'mode   size    sessions':26}{''.join(f'{name:>9}' for name in COLUMNS)}"
        f"{''.join(f'{name:>8}' for name in COLUMNS)}{'rate':>8}{'CPU':>8}{'rate':>9}"
    )


def row(record: dict[str, Any]) -> str:
    """One cell as a line; `-` where there is no figure."""
    servers = record["servers"]
    size = (
        f"{record['size'] // 1024} KiB"
        if record["size"] < 1 << 20
        else f"{record['size'] / (1 << 20):.0f} MiB"
    )
    label = f"{record['mode']:7}{size:8}{record['sessions']}{' kept' if record['persistent'] else ''}"
    rates = "".join(f"{_text(_get(servers, name, 'rate'), 0):>9}" for name in COLUMNS)
    costs = "".join(f"{_text(_get(servers, name, 'cost'), 2):>8}" for name in COLUMNS)
    ratios = (
        f"{_text(_ratio(servers, 'postfix', 'rate'), 2):>8}{_text(_ratio(servers, 'postfix', 'cost'), 2):>8}"
        f"{_text(_ratio(servers, 'bare', 'rate'), 2):>9}"
    )
    return f"{label:26}{rates}{costs}{ratios}"


def _get(servers: dict[str, Any], name: str, figure: str) -> float | None:
    return servers[name][figure] if name in servers else None


def _ratio(servers: dict[str, Any], other: str, figure: str) -> float | None:
    ours, theirs = _get(servers, "us", figure), _get(servers, other, figure)
    return None if ours is None or not theirs else ours / theirs


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
