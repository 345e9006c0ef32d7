"""Kill the pipeline again and again, at random moments; see whether it ends in the right result.

python -m benchmarks.kills --kills 20

It works in a temporary clone with a small network and few patches. First the pipeline runs in
peace. Then it is started afresh and killed (SIGKILL, DVC and stage together) after a random share
of the time that this took, as often as asked for; one that was done before its kill starts afresh.
At last it runs to its end. Exits with status 1 if an output differs from that of the peaceful run.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pipeline_clone import PipelineClone
from benchmarks.reproducibility import differing
from nodules.errors import one_line_errors

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


def run_peacefully(clone: PipelineClone) -> tuple[dict[str, str], float, str]:
    """Run to the end; give the hashes of the outputs, how many seconds it took, and the output."""
    start = time.perf_counter()
    with clone.dvc("repro", "--no-run-cache") as process:
        output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{output}\nerror: dvc repro exits with status {process.returncode}")
    return clone.output_hashes(), time.perf_counter() - start, output


def kill_after(clone: PipelineClone, seconds: float) -> str | None:
    """Start the pipeline and kill it; give what it had said, or None if it was done before."""
    with clone.dvc("repro", "--no-run-cache") as process:
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()[0]
    if process.returncode:
        sys.exit(f"error: dvc repro exits with status {process.returncode} by itself")
    return None


def start_afresh(clone: PipelineClone) -> None:
    """Forget all results, those in DVC's cache and lock file too."""
    clone.git("checkout", "--quiet", ".")
    clone.git("clean", "--quiet", "-dfx", "--exclude=.dvc/tmp")
    # What the committed lock file names is in no cache here, so that every stage has to run.
    (clone.path / "dvc.lock").unlink()


def place_of(output: str) -> str:
    """Say in which stage, and in which epoch of the training, a pipeline was."""
    lines = output.splitlines()
    stages = [line.split("'")[1] for line in lines if line.startswith("Running stage")]
    epochs = [line for line in lines if line.startswith(("Epoch ", "going on"))]
    stage = stages[-1] if stages else "before any stage"
    resumed = next((line for line in epochs if line.startswith("going on")), "")
    if stage != "train":
        return stage
    return ", ".join(filter(None, [stage, resumed, epochs[-1] if epochs else "before an epoch"]))


def main() -> None:
    """Print a line a kill, and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        clone = PipelineClone(Path(folder), SMALL)
        start_afresh(clone)
        expected, duration, _ = run_peacefully(clone)
        print(f"in peace: {duration:.0f} s, {len(expected)} outputs", flush=True)
        start_afresh(clone)
        for number in range(1, arguments.kills + 1):
            seconds = moments.uniform(0, duration)
            while (output := kill_after(clone, seconds)) is None:
                print("done before the kill; afresh", flush=True)
                start_afresh(clone)
            print(f"kill {number:2}: after {seconds:5.1f} s, in {place_of(output)}", flush=True)
        found, _, output = run_peacefully(clone)
        different = differing([expected, found])
        left = [p.name for p in (clone.path / ".dvc/tmp/training").glob("*")]
    print(f"after the last kill: {len(found) - len(different)} of {len(found)} outputs as in peace")
    if different or left:
        sys.exit(f"error: outputs that differ: {different}; checkpoints left: {left}")


if __name__ == "__main__":
    main()
