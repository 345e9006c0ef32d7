"""Kill the pipeline again and again, in each stage, at random moments; check the result.

python -m benchmarks.kills --kills 20

It works in a temporary copy with a small network and few patches. First the pipeline runs in
peace. Then it is started afresh and killed (SIGKILL, DVC and stage together) some time after a
stage has begun, at most as long as that stage took in peace, or when the stage is done. That is
done as often as asked for, the stages in their order. At last the pipeline runs to its end. Exits
with status 1 if an output differs.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.repository_copy import RepositoryCopy
from benchmarks.reproducibility import differing
from nodules.system.exits import one_line_errors


class Run(NamedTuple):
    """Whether a run was killed, how long each stage took in seconds, and what was printed."""

    killed: bool
    durations: dict[str, float]
    output: str


SMALL = {
    "phantom": {"scans": 24, "patches_per_scan": 10, "nodule_fraction": 0.3},
    "evaluate": {"bootstrap_resamples": 200},
    "models": {
        "squeezenet": {
            "config": {
                "stem_filters": 8,
                "stem_stride": 2,
                "fires": [[4, 8], [4, 8]],
                "pool_before": [0, 1],
                "bypass": False,
            }
        }
    },
    "recipes": {"tuned": {"epochs": 30, "batch_size": 8}},
}


STAGES = ("phantom", "split", "class_weights", "train", "evaluate")


def run(copy: RepositoryCopy, *arguments: str, kill_in: str = "", seconds: float = 0.0) -> Run:
    """Run the pipeline.

    Parameters
    ----------
    copy
        Where.
    arguments
        Of `dvc repro`.
    kill_in, seconds
        The stage to be killed in, and how long after its beginning; by default none.
    """
    began: dict[str, float] = {}
    lines = []
    with copy.start_dvc("repro", "--no-run-cache", *arguments) as process:
        killer = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Running stage"):
                if kill_in in began:
                    os.killpg(process.pid, signal.SIGKILL)
                stage = line.split("'")[1]
                began[stage] = time.perf_counter()
                if stage == kill_in:
                    killer.start()
        killer.cancel()
        began["end"] = time.perf_counter()
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit("".join(lines) + f"error: dvc repro exits with status {process.returncode}")
    durations = {
        stage: began[following] - began[stage] for stage, following in itertools.pairwise(began)
    }
    return Run(process.returncode != 0, durations, "".join(lines))


def start_afresh(copy: RepositoryCopy) -> None:
    """Forget all results, those in DVC's cache and lock file too."""
    copy("git", "checkout", "--quiet", ".")
    copy("git", "clean", "--quiet", "-dfx", "--exclude=.dvc/tmp")
    # What the committed lock file names is in no cache here, so that every stage has to run.
    (copy.path / "dvc.lock").unlink()


def place_of(run: Run) -> list[str]:
    """Say where a run was killed: the stage, and the epochs that a training had begun."""
    stage = ["nothing", *run.durations][-1]
    said = run.output.splitlines()
    resumed = [line for line in said if line.startswith("resuming")]
    epochs = [line for line in said if line.startswith("Epoch ")]
    return [stage, *resumed, *epochs[-1:]]


def main() -> None:
    """Print a line a kill, and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    kills = 0
    done: set[str] = set()
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        copy = RepositoryCopy.create(Path(folder), SMALL)
        start_afresh(copy)
        peaceful = run(copy)
        expected = copy.output_hashes()
        took = ", ".join(f"{stage} {span:.1f}" for stage, span in peaceful.durations.items())
        print(f"in peace: {len(expected)} outputs; seconds: {took}", flush=True)
        start_afresh(copy)
        for number in range(arguments.kills):
            stage = STAGES[number * len(STAGES) // arguments.kills]
            seconds = moments.uniform(0, peaceful.durations[stage])
            again = ("--single-item", "--force", stage) if stage in done else ()
            killed = run(copy, *again, kill_in=stage, seconds=seconds)
            if not killed.killed or place_of(killed)[0] != stage:
                done.add(stage)
            kills += killed.killed
            how = f"kill {kills} after {seconds:.1f} s" if killed.killed else "done before the kill"
            print(f"{how}: {', '.join(place_of(killed))}", flush=True)
        last = run(copy)
        found = copy.output_hashes()
        different = differing([expected, found])
        left = [path.name for path in (copy.path / ".dvc/tmp/training").glob("*")]
    print(f"after {kills} kills, run to the end ({', '.join(place_of(last))}):", end=" ")
    print(f"{len(found) - len(different)} of {len(found)} outputs as in peace")
    if different or left:
        sys.exit(f"error: outputs that differ: {different}; checkpoints left: {left}")


if __name__ == "__main__":
    main()
