"""Cost of determinism: training speed with and without TensorFlow's deterministic operations.

python -m benchmarks.determinism

Two processes take turns. Each round yields the ratio of two consecutive bursts, so that other load
on the machine affects both.
"""

import argparse
import statistics
import subprocess
import sys
from contextlib import ExitStack

import numpy as np

from benchmarks import add_models, new_parser
from benchmarks.stopwatch import steps_per_second
from nodules.models.registry import build_model
from nodules.params import read_params
from nodules.runtime import be_deterministic
from nodules.system.exits import one_line_errors
from nodules.training.input_pipeline import training_batches
from nodules.training.train import compiled_for_training


def work(model: str, seconds: float, *, deterministic: bool) -> None:
    """Train for `seconds` per line on stdin; print the steps per second."""
    if deterministic:
        be_deterministic()
    params = read_params().model_copy(update={"model": model})
    recipe, entry = params.chosen_recipe, params.chosen_model
    network = build_model(model, entry.builder, entry.config, seed=0, precision=recipe.precision)
    copy = compiled_for_training(network, recipe, steps=1000)
    rng = np.random.default_rng(0)
    count = 4 * recipe.batch_size
    batches = iter(
        training_batches(
            rng.integers(0, 256, (count, 50, 50), dtype=np.uint8),
            (np.arange(count) % 2).astype(np.uint8),
            batch_size=recipe.batch_size,
            epochs=10**6,
            augmentation=recipe.augmentation,
            class_weights=(1.0, 1.0),
            label_smoothing=recipe.label_smoothing,
            seed=0,
        )
    )

    def step() -> None:
        patches, targets, weights = next(batches)
        copy.train_on_batch(patches, targets, sample_weight=weights)

    step()  # traces the graph
    print("ready", flush=True)
    for _ in sys.stdin:
        print(steps_per_second(step, seconds), flush=True)


def ratios(model: str, rounds: int, seconds: float) -> list[float]:
    """Return the speed with determinism divided by that without, one ratio per round."""
    with ExitStack() as stack:
        processes = []
        for setting in ("on", "off"):
            command = [sys.executable, "-m", "benchmarks.determinism", "--models", model]
            command += ["--seconds", str(seconds), "--work", setting]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            processes.append(stack.enter_context(process))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        found = []
        for number in range(rounds):
            # The order alternates between rounds.
            order = processes if number % 2 else processes[::-1]
            speeds = {process.pid: _burst(process) for process in order}
            found.append(speeds[processes[0].pid] / speeds[processes[1].pid])
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
    return found


def _burst(process: "subprocess.Popen[str]") -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Print the ratios as a Markdown table."""
    parser = new_parser("benchmarks.determinism", __doc__)
    add_models(parser, list(read_params().models))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of a burst")
    parser.add_argument("--work", choices=("on", "off"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with one_line_errors():
        if arguments.work:
            deterministic = arguments.work == "on"
            work(arguments.models[0], arguments.seconds, deterministic=deterministic)
            return
        print("| model | speed with determinism / without, median | lowest | highest |")
        print("| --- | ---: | ---: | ---: |")
        for model in arguments.models:
            found = ratios(model, arguments.rounds, arguments.seconds)
            print(
                f"| {model} | {statistics.median(found):.2f} | {min(found):.2f} "
                f"| {max(found):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
