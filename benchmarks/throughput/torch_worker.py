"""Worker process of `benchmarks.throughput` that runs PyTorch.

python -m benchmarks.throughput.torch_worker EXCHANGE.npz ENTRY RECIPE

Answers each line on stdin with one line. `check`: the largest difference between the probabilities
of the Keras model and of its PyTorch equivalent. `modes`: the names of the PyTorch modes. `prepare
NUMBER`: whether the first steps in a mode succeeded. `run NUMBER SECONDS`: the steps/s in a mode.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.stopwatch import steps_per_second
from benchmarks.throughput.torch_networks import (
    MODES,
    build_torch_network,
    load_weights,
    parameter_count,
    probabilities,
    training_step,
)
from nodules.params import read_params


def main() -> None:
    """Answer until the input ends."""
    params = read_params()
    exchange = np.load(Path(sys.argv[1]))
    entry, recipe = params.models[sys.argv[2]], params.recipe_of(*sys.argv[2:4])
    steps: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        match line.split():
            case ["check"]:
                network = build_torch_network(entry)
                names = sorted(name for name in exchange.files if name.startswith("weight"))
                weights = [exchange[name] for name in names]
                load_weights(network, weights)
                if parameter_count(network) != sum(values.size for values in weights):
                    raise ValueError("the PyTorch equivalent has another number of parameters")
                found = probabilities(network, exchange["patches"])
                answer = str(np.abs(found - exchange["probabilities"]).max())
            case ["modes"]:
                answer = "; ".join(map(str, MODES))
            case ["prepare", mode]:
                labels = exchange["labels"]
                step = training_step(entry, recipe, exchange["patches"], labels, MODES[int(mode)])
                answer = _prepared(step)
                steps[mode] = step
            case ["run", mode, seconds]:
                answer = str(steps_per_second(steps[mode], float(seconds)))
            case _:
                raise ValueError(f"found {line!r}, expected check, modes, prepare or run")
        print(answer, flush=True)


def _prepared(step: Callable[[], float]) -> str:
    try:
        # The first steps compile and allocate.
        step()
        step()
    except Exception as error:
        return f"failed: {' '.join(str(error).split())[:200]}"
    return "ready"


if __name__ == "__main__":
    main()
