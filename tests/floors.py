"""Holds the floors of coverage: `python -m tests.floors` after `tests/run.py --coverage`.

The total is `fail_under` of `[tool.coverage.report]`, those of single packages are
`[tool.postoffice.floors]`, both in pyproject.toml and in per cent of lines and branches. A package of which
nothing was measured is below its floor.
"""

from __future__ import annotations

import io
import sys
import tomllib
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import NoDataError

CHECKOUT = Path(__file__).resolve().parent.parent


def measured(coverage: Coverage, folder: str) -> float:
    """Per cent of the lines and branches below `folder` that ran."""
    try:
        return coverage.report(include=[f"{CHECKOUT / folder}/*"], skip_covered=False, file=io.StringIO())
    except NoDataError:
        return 0.0


def main() -> int:
    """Print the report and every floor; 1 if one does not hold."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    coverage = Coverage(data_file=str(CHECKOUT / ".coverage"), config_file=str(CHECKOUT / "pyproject.toml"))
    coverage.load()
    results = [("postoffice", coverage.report(), settings["coverage"]["report"]["fail_under"])]
    for folder, floor in settings["postoffice"]["floors"].items():
        results.append((folder, measured(coverage, folder), floor))
    for folder, value, floor in results:
        verdict = "ok" if value >= floor else "TOO LOW"
        print(f"coverage of {folder}: {value:.1f} %, floor {floor} %: {verdict}")
    return int(any(value < floor for _, value, floor in results))


if __name__ == "__main__":
    sys.exit(main())
