"""Checkpoint cost: time to write one, as a fraction of an epoch on the default data.

python -m benchmarks.checkpoint_cost
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import add_models, new_parser
from nodules.models.registry import build_model
from nodules.params import Params, read_params
from nodules.runtime import be_deterministic
from nodules.system.exits import one_line_errors
from nodules.training.checkpoint import Checkpoint, Combination, TrainingState
from nodules.training.input_pipeline import steps_per_epoch
from nodules.training.train import compiled_for_training


def measure(params: Params, model: str, steps: int) -> tuple[float, float, int]:
    """Time checkpoints and training steps in alternation.

    Returns
    -------
    checkpoint, step
        Median durations in seconds.
    size
        File size in bytes.
    """
    params = params.model_copy(update={"model": model})
    recipe, entry = params.chosen_recipe, params.chosen_model
    network = build_model(model, entry.builder, entry.config, seed=0, precision=recipe.precision)
    copy = compiled_for_training(network, recipe, steps)
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (recipe.batch_size, 50, 50, 1)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[np.arange(recipe.batch_size) % 2]
    copy.train_on_batch(patches, targets)  # traces the graph
    saving, training = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        checkpoint = Checkpoint(Path(folder), Combination("program", "task"), workspace=True)
        for _ in range(10):
            start = time.perf_counter()
            copy.train_on_batch(patches, targets)
            middle = time.perf_counter()
            variables = [variable.numpy() for variable in copy.state]
            epochs = [{"val/auc": 0.5}] * recipe.epochs
            checkpoint.save(TrainingState(epochs, variables, network.get_weights(), False))
            training.append(middle - start)
            saving.append(time.perf_counter() - middle)
        size = checkpoint.path.stat().st_size
    return statistics.median(saving), statistics.median(training), size


def main() -> None:
    """Print the fractions as a Markdown table."""
    parser = new_parser("benchmarks.checkpoint_cost", __doc__)
    add_models(parser, list(read_params().models))
    arguments = parser.parse_args()
    with one_line_errors():
        be_deterministic()
        params = read_params()
        patches = params.phantom.scans * params.phantom.patches_per_scan * params.split.train
        print("| model | checkpoint, MB | ms | training step, ms | fraction of an epoch |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for model in arguments.models:
            steps = steps_per_epoch(int(patches), params.recipe_of(model, params.recipe).batch_size)
            saving, training, size = measure(params, model, steps)
            print(
                f"| {model} | {size / 1e6:.1f} | {1000 * saving:.0f} | {1000 * training:.0f} "
                f"| {saving / (steps * training):.2%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
