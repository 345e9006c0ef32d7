"""Kill the pipeline repeatedly, in every stage at random times, and check the result.

python -m benchmarks.kills --kills 20

Runs in a temporary copy with a small network and few patches. The pipeline first runs
uninterrupted. It then restarts from scratch and is killed `--kills` times, stage by stage. Each
SIGKILL hits DVC and the stage together, at a random time within the stage's uninterrupted duration,
or when the stage ends if that is earlier. Finally the pipeline runs to completion. Exits with
status 1 if an output differs.
"""

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

from benchmarks import new_parser
from benchmarks.repository_copy import RepositoryCopy
from benchmarks.reproducibility import differing
from nodules.system.exits import one_line_errors


class Run(NamedTuple):
    """Whether a run was killed, the duration of each stage in seconds, and the output."""

    killed: bool
    durations: dict[str, float]
    output: str


SMALL = {
    "phantom": {"scans": 24, "patches_per_scan": 10, "nodule_fraction": 0.3},
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
        Repository copy to run in.
    arguments
        Further arguments of `dvc repro`.
    kill_in, seconds
        Stage to kill, and the delay after its start; by default the run is not killed.
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


def restart_from_scratch(copy: RepositoryCopy) -> None:
    """Delete all results, including DVC's cache and lock file."""
    copy("git", "checkout", "--quiet", ".")
    copy("git", "clean", "--quiet", "-dfx", "--exclude=.dvc/tmp")
    # The outputs in the committed lock file are not cached here, so every stage has to run.
    (copy.path / "dvc.lock").unlink()


def place_of(run: Run) -> list[str]:
    """Return where a run was killed: the stage and, in training, the epoch."""
    stage = ["nothing", *run.durations][-1]
    said = run.output.splitlines()
    resumed = [line for line in said if line.startswith("resuming")]
    epochs = [line for line in said if line.startswith("Epoch ")]
    return [stage, *resumed, *epochs[-1:]]


def main() -> None:
    """Print one line per kill, then the verdict."""
    parser = new_parser("benchmarks.kills", __doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    kills = 0
    done: set[str] = set()
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        copy = RepositoryCopy.create(Path(folder), SMALL)
        restart_from_scratch(copy)
        uninterrupted = run(copy)
        expected = copy.output_hashes()
        took = ", ".join(f"{stage} {span:.1f}" for stage, span in uninterrupted.durations.items())
        print(f"uninterrupted: {len(expected)} outputs; seconds: {took}", flush=True)
        restart_from_scratch(copy)
        for number in range(arguments.kills):
            stage = STAGES[number * len(STAGES) // arguments.kills]
            seconds = moments.uniform(0, uninterrupted.durations[stage])
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
    print(f"{len(found) - len(different)} of {len(found)} outputs match the uninterrupted run")
    if different or left:
        sys.exit(f"error: outputs that differ: {different}; checkpoints left: {left}")


if __name__ == "__main__":
    main()
