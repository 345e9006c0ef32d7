"""Run a fuzz target for a given time: `python -m tests.fuzz TARGET --seconds 60 [--seed N]`.

A target is a module in this folder with a function `prepare(folder: Path) -> Attempt`. An attempt
takes a `numpy.random.Generator`, creates one damaged file and has the program read it. It returns a
short outcome such as `refused`. Any exception is a finding, and so is an attempt longer than the
target's `MAX_SECONDS`. Attempt n uses `default_rng([seed, n])`; `--first n --attempts 1` repeats
only that attempt.
"""

import argparse
import importlib
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

TARGETS = ("models", "metaimage", "dicom")


def main() -> None:
    """Run attempts until the time is up; print the outcomes; exit 1 at the first finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first")
    parser.add_argument(
        "--attempts", type=int, metavar="N", help="default: as many as there is time for"
    )
    arguments = parser.parse_args()
    target = importlib.import_module(f"tests.fuzz.{arguments.target}")
    ends: Counter[str] = Counter()
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        attempt = target.prepare(Path(folder))
        start = time.monotonic()
        number = arguments.first
        while time.monotonic() - start < arguments.seconds:
            if number - arguments.first == arguments.attempts:
                break
            began = time.monotonic()
            try:
                ends[attempt(np.random.default_rng([arguments.seed, number]))] += 1
            except Exception:
                again = f"--seed {arguments.seed} --first {number} --attempts 1"
                print(f"finding: python -m tests.fuzz {arguments.target} {again}", file=sys.stderr)
                raise
            took = time.monotonic() - began
            longest = max(longest, took)
            if took > target.MAX_SECONDS:
                sys.exit(f"finding: attempt {number} of seed {arguments.seed} took {took:.1f} s")
            number += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    counts = ", ".join(f"{end} {count:,}" for end, count in ends.most_common())
    print(f"{arguments.target}: {ends.total():,} attempts ({counts})", end="; ")
    print(f"longest {longest:.2f} s, peak {peak} MB")


if __name__ == "__main__":
    main()
