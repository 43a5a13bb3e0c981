"""Fuzzes the SMTP server engine: `python -m tests.fuzz [--seconds N] [--seed N]`.

Inputs (`harness`) begin with those in `corpus/` and go where they reach code not reached before (atheris). A
finding is made smaller, written to the corpus as `found-...`, where `test_corpus` fails on it until the
engine is right, and shown; the exit status is 1. What else was learnt stays in `--keep DIRECTORY`, if given,
and is where the next run with it begins.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.support import CHECKOUT

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"


def hunt(flags: list[str]) -> None:
    """Run libFuzzer in this process, which it ends."""
    import atheris

    with atheris.instrument_imports(include=["postoffice"]):
        from tests.fuzz.harness import check
    atheris.Setup([sys.argv[0], *flags], check)
    atheris.Fuzz()


def fails(data: bytes) -> str:
    """How an input fails, empty if it does not."""
    from tests.fuzz.harness import check

    try:
        check(data)
    except Exception:
        return traceback.format_exc()
    return ""


def smaller(data: bytes, fails: Callable[[bytes], object]) -> bytes:
    """An input that still fails and of which no piece can be left out."""
    step = max(len(data) // 2, 1)
    while True:
        at, before = 0, len(data)
        while at < len(data):
            without = data[:at] + data[at + step :]
            if fails(without):
                data = without
            else:
                at += step
        if step == 1 and len(data) == before:
            return data
        step = max(step // 2, 1)


def main() -> int:
    """The exit status: 1 after a finding."""
    parser = argparse.ArgumentParser(description="Fuzz the SMTP server engine.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**31))
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY")
    options = parser.parse_args()
    # Whoever ends us ends what we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"seed {options.seed}", flush=True)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postoffice-fuzz-")))
        learnt = options.keep or scratch / "learnt"
        learnt.mkdir(parents=True, exist_ok=True)
        program = "import sys; from tests.fuzz.__main__ import hunt; hunt(sys.argv[1:])"
        flags = {
            "max_total_time": options.seconds,
            "seed": options.seed,
            "dict": HERE / "words.dict",
            "artifact_prefix": f"{scratch}/found-",
            "max_len": 600,
            "timeout": 20,
            "rss_limit_mb": 1024,
            "print_final_stats": 1,
        }
        status = subprocess.run(
            [
                *(sys.executable, "-c", program),
                *(f"-{name}={value}" for name, value in flags.items()),
                *(str(learnt), str(CORPUS)),
            ],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path[1:]])},
            check=False,
        ).returncode
        findings = [path.read_bytes() for path in scratch.glob("found-*")]
    for finding in findings:
        least = smaller(finding, fails)
        name = f"found-{hashlib.sha256(least).hexdigest()[:12]}"
        (CORPUS / name).write_bytes(least)
        print(f"{name}: {least!r}\n{fails(least)}", flush=True)
    return 1 if findings or status else 0


if __name__ == "__main__":
    sys.exit(main())
