"""Training throughput of this pipeline, compared with a bare Keras `fit` and PyTorch.

python -m benchmarks.throughput --models squeezenet mobilenet
python -m benchmarks.throughput --models squeezenet --precision mixed_bfloat16

The bare fit runs in a separate process, in which TensorFlow splits each operation across all
processors. This pipeline instead computes the parts of a batch in parallel. PyTorch is measured in
another process if it is installed. It is the extra `benchmark` of pyproject.toml and not in
requirements.lock; install it with `pip install torch`. PyTorch's compilation then takes much of the
run time.
"""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import add_models, new_parser
from benchmarks.pipeline_run import files_in
from benchmarks.stopwatch import steps_per_second
from benchmarks.throughput.table import (
    BARE_FIT,
    EPOCH,
    MATRIX_PRODUCT,
    STEP,
    TORCH,
    UNSCORED_EPOCH,
    Rates,
    markdown,
)
from benchmarks.throughput.worker_process import worker
from nodules.models.registry import build_model
from nodules.params import Params, read_params
from nodules.patches.layout import CLASSES, PATCH_SIZE, Labels, Patches
from nodules.patches.writer import new_patch_file
from nodules.runtime import be_deterministic, usable_processors
from nodules.system.atomic import write_json
from nodules.system.exits import one_line_errors
from nodules.training.class_weights import class_weights
from nodules.training.input_pipeline import steps_per_epoch
from nodules.training.train import compiled_for_training, train

# Trains for a while and returns patches/s, for comparison with the pipeline's epochs.
Baseline = Callable[[], float]
# With glibc's defaults, PyTorch returns memory to the system after each operation and page-faults
# it back in for the next. These settings keep it allocated, as TensorFlow does.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}
# (N, 50, 50, 1) intensities in 0..255, and (N, 2) one-hot labels.
Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]


def main() -> None:
    """Measure each network in turn and print its table."""
    params = read_params()
    parser = new_parser("benchmarks.throughput", __doc__)
    add = parser.add_argument
    add_models(parser, list(params.models))
    add("--precision", choices=("float32", "mixed_bfloat16"), help="instead of the recipe's")
    add("--patches", type=int, default=5186, help="patches per epoch")
    add("--val-patches", type=int, default=649, help="val patches scored after each epoch")
    add(
        "--rounds",
        type=int,
        default=5,
        help="number of timed epochs, each followed by all baselines",
    )
    add("--seconds", type=float, default=1.0, help="duration of repeated steps in a round")
    arguments = parser.parse_args()
    be_deterministic()
    print(
        f"{usable_processors()} processors, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}; {arguments.patches:,} patches per epoch, {arguments.rounds} "
        "rounds."
    )
    if not _torch_is_installed():
        print("PyTorch is not installed and not measured; to include it: pip install torch")
    with one_line_errors():
        for name in arguments.models:
            _measure(params.model_copy(update={"model": name}), arguments)


def _torch_is_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def _measure(params: Params, arguments: argparse.Namespace) -> None:
    """Measure one network against all baselines and print the table."""
    params = _with_recipe(params, arguments)
    entry, recipe = params.chosen_model, params.chosen_recipe
    patches, labels = _random_patches(arguments.patches, params.seed)
    batch = _as_arrays(patches, labels, recipe.batch_size)

    def build(precision: str = "float32") -> keras.Model:
        return build_model(
            params.model,
            entry.builder,
            entry.config,
            seed=params.training_seed,
            precision=precision,
        )

    model = build()
    steps = steps_per_epoch(len(patches), recipe.batch_size)
    step = _resident_step(compiled_for_training(build(recipe.precision), recipe, steps), batch)
    with (
        worker(
            "benchmarks.throughput.keras_worker",
            *(params.model, params.recipe, str(len(patches))),
            environment={"TF_NUM_INTRAOP_THREADS": str(usable_processors())},
        ) as ask_keras,
        _torch_steps(params, model, batch, arguments.seconds) as (torch_baselines, failed),
    ):
        baselines: dict[str, Baseline] = {
            BARE_FIT: lambda: float(ask_keras("fit")),
            STEP: lambda: recipe.batch_size * steps_per_second(step, arguments.seconds),
            MATRIX_PRODUCT: lambda: float(ask_keras("matrix product")),
        }
        rates = _rates(params, patches, labels, arguments, baselines | torch_baselines)
    title = f"{params.model}, {recipe.precision}"
    print(markdown(title, model, rates, failed), flush=True)


def _with_recipe(params: Params, arguments: argparse.Namespace) -> Params:
    """Return params with only the chosen model and recipe, and the requested settings."""
    changes: dict[str, Any] = {
        # One extra epoch: TensorFlow traces and optimises its graphs in the first.
        "epochs": arguments.rounds + 1,
        "patience": 0,
        "precision": arguments.precision or params.chosen_recipe.precision,
    }
    recipe = params.chosen_recipe.model_copy(update=changes)
    # That recipe already includes the model's overrides.
    entry = params.chosen_model.model_copy(update={"recipes": {}})
    return params.model_copy(
        update={
            "models": {params.model: entry},
            "recipes": {params.recipe: recipe},
            "strategy": "one_device",
        }
    )


@contextlib.contextmanager
def _torch_steps(
    params: Params, model: keras.Model, batch: Arrays, seconds: float
) -> Iterator[tuple[dict[str, Baseline], list[str]]]:
    """Start PyTorch in a separate process; yield its baselines and the names of failed ones."""
    baselines: dict[str, Baseline] = {}
    failed: list[str] = []
    if not _torch_is_installed():
        yield baselines, failed
        return
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder) / "exchange.npz"
        write_exchange(exchange, model, *batch)
        with worker(
            "benchmarks.throughput.torch_worker",
            *(str(exchange), params.model, params.recipe),
            environment=KEEP_MEMORY,
        ) as ask:

            def baseline(number: int) -> Baseline:
                return lambda: len(batch[0]) * float(ask(f"run {number} {seconds}"))

            difference = float(ask("check"))
            if difference > 1e-4:
                raise RuntimeError(
                    f"{params.model} and its PyTorch equivalent differ by {difference}"
                )
            for number, mode in enumerate(ask("modes").split("; ")):
                _progress(f"{params.model}: PyTorch, {mode}")
                answer = ask(f"prepare {number}")
                if answer == "ready":
                    baselines[f"{TORCH}{mode}"] = baseline(number)
                else:
                    _progress(answer)
                    failed.append(f"{TORCH}{mode}")
            yield baselines, failed


def write_exchange(
    path: Path, model: keras.Model, patches: NDArray[np.float32], labels: NDArray[np.float32]
) -> None:
    """Write the input of `torch_worker`: a network, a batch and its probabilities.

    Parameters
    ----------
    path
        Output file, .npz.
    model
        Network as returned by its builder.
    patches, labels
        (batch, 50, 50, 1) intensities in 0..255; (batch, 2) one-hot labels.
    """
    # Zero-padded numbers, so that the names sort in the order of `get_weights`.
    weights = {f"weight{n:04}": values for n, values in enumerate(model.get_weights())}
    probabilities = model.predict_on_batch(patches)
    np.savez(path, patches=patches, labels=labels, probabilities=probabilities, **weights)


def _progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _random_patches(count: int, seed: int) -> tuple[Patches, Labels]:
    """Draw noise patches, half of them labelled nodules; content does not affect speed."""
    shape = (count, PATCH_SIZE, PATCH_SIZE)
    patches = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return patches, (np.arange(count) % 2).astype(np.uint8)


def _as_arrays(patches: Patches, labels: Labels, count: int) -> Arrays:
    one_hot = np.eye(len(CLASSES), dtype=np.float32)[labels[:count]]
    return patches[:count, ..., np.newaxis].astype(np.float32), one_hot


def _resident_step(model: keras.Model, batch: Arrays) -> Callable[[], object]:
    """Return the training step of `fit`, applied to the same batch every time."""
    # As delivered by the pipeline: patches, labels and sample weights.
    weighted = (*batch, np.ones(len(batch[0]), np.float32))
    model.train_on_batch(*weighted)
    batches = iter(tf.data.Dataset.from_tensors(weighted).repeat())
    return lambda: model.train_function(batches)


def _rates(
    params: Params,
    patches: Patches,
    labels: Labels,
    arguments: argparse.Namespace,
    baselines: dict[str, Baseline],
) -> Rates:
    """Train as the pipeline does, in a temporary folder, and run the baselines each epoch."""
    recipe = params.chosen_recipe
    steps = steps_per_epoch(len(patches), recipe.batch_size)
    rounds = _Rounds(steps * recipe.batch_size, baselines)
    _progress(f"{params.model}: {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        files = files_in(Path(name))
        with new_patch_file(files.train, len(patches)) as file:
            file.append(patches, labels)
        with new_patch_file(files.val, arguments.val_patches) as file:
            file.append(*_random_patches(arguments.val_patches, params.seed + 1))
        write_json(files.class_weights, class_weights(labels, params.chosen_class_weights))
        train(params.chosen_training, files, [rounds])
    return rounds.rates


class _Rounds(keras.callbacks.Callback):
    """Times the epochs of a training and runs the baselines after each.

    The load on the machine varies, so rates are compared within a round. While the baselines run,
    the input pipeline prefetches a few batches.

    Attributes
    ----------
    rates
        Rates of the epochs, with and without scoring, and of the baselines; one per round.
    """

    def __init__(self, patches: int, baselines: dict[str, Baseline]) -> None:
        super().__init__()
        self.rates: Rates = {name: [] for name in (EPOCH, UNSCORED_EPOCH, *baselines)}
        self._patches, self._baselines = patches, baselines
        self._start = self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        scored = time.perf_counter()
        if epoch == 0:
            # Starting the training cleared the TensorFlow graphs of the baselines; rebuild them.
            for baseline in self._baselines.values():
                baseline()
            return
        self.rates[EPOCH].append(self._patches / (scored - self._start))
        self.rates[UNSCORED_EPOCH].append(self._patches / (self._trained - self._start))
        for name, baseline in self._baselines.items():
            self.rates[name].append(baseline())


if __name__ == "__main__":
    main()
