"""Runs the tests: `python tests/run.py [NAME...]` or `python -m tests.run [NAME...]`.

NAME is a dotted name or a file below tests/; without one everything runs. Tests go in random order (the seed
is printed and can be given again), several processes at a time, in a temporary directory that is gone
afterwards; those of `tests.live` follow one at a time, since they measure and load the machine. What went
wrong is printed as it happens. The last line is `N passed, N failed, N skipped`, the exit status 1 if
anything failed or, under CI=true, was skipped.
"""

from __future__ import annotations

import os
import sys

# Before anything else is imported: started by its path, the folders beside this file (tests/queue) would hide
# modules of the standard library.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from tests.runner import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
