"""How fast the networks train: this pipeline beside a bare Keras fit and PyTorch.

python -m benchmarks.throughput --models squeezenet mobilenet
python -m benchmarks.throughput --models squeezenet --precision mixed_bfloat16

The bare fit works in a process of its own, where TensorFlow shares each operation among all
processors; this pipeline computes the parts of a batch side by side instead. PyTorch takes part
where it is installed, in another process. It is the extra `benchmark` of pyproject.toml, and not in
requirements.lock: `pip install torch` adds it to an environment. Much of the time that a run takes
is then PyTorch's compilation.
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

from benchmarks import MODELS
from benchmarks.pipeline_run import files_in, train_with
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
from nodules.training.train import compiled_for_training

# What takes part beside the pipeline's epochs: it works for a while and gives its patches a second.
Contestant = Callable[[], float]
# By glibc's defaults PyTorch returns memory to the system after an operation and faults it in again
# for the next one; these settings have glibc keep it, as TensorFlow does.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}
# (N, 50, 50, 1) intensities in 0..255, and (N, 2) one-hot labels.
Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]


def main() -> None:
    """Measure the networks one after the other and print a table for each."""
    params = read_params()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    add = parser.add_argument
    add("--models", nargs="+", choices=list(params.models), default=MODELS)
    add("--precision", choices=("float32", "mixed_bfloat16"), help="instead of the recipe's")
    add("--patches", type=int, default=5186, help="in an epoch")
    add("--val-patches", type=int, default=649, help="scored after an epoch")
    add("--rounds", type=int, default=5, help="epochs timed, after each of which all others work")
    add("--seconds", type=float, default=1.0, help="for which steps are repeated in a round")
    arguments = parser.parse_args()
    be_deterministic()
    print(
        f"{usable_processors()} processors, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}; {arguments.patches:,} patches an epoch, {arguments.rounds} "
        "rounds."
    )
    if not _torch_is_installed():
        print("PyTorch is left out: `pip install torch` in this environment lets it take part.")
    with one_line_errors():
        for name in arguments.models:
            _measure(params.model_copy(update={"model": name}), arguments)


def _torch_is_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def _measure(params: Params, arguments: argparse.Namespace) -> None:
    """Let all contestants train one network, and print the table."""
    params = _with_recipe(params, arguments)
    entry, recipe = params.chosen_model, params.chosen_recipe
    patches, labels = _random_patches(arguments.patches, params.seed)
    batch = _as_arrays(patches, labels, recipe.batch_size)

    def build(precision: str = "float32") -> keras.Model:
        return build_model(
            params.model, entry.builder, entry.config, seed=params.seed, precision=precision
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
        _torch_steps(params, model, batch, arguments.seconds) as (torch_contestants, failed),
    ):
        contestants: dict[str, Contestant] = {
            BARE_FIT: lambda: float(ask_keras("fit")),
            STEP: lambda: recipe.batch_size * steps_per_second(step, arguments.seconds),
            MATRIX_PRODUCT: lambda: float(ask_keras("matrix product")),
        }
        rates = _rates(params, patches, labels, arguments, contestants | torch_contestants)
    title = f"{params.model}, {recipe.precision}"
    print(markdown(title, model, rates, failed), flush=True)


def _with_recipe(params: Params, arguments: argparse.Namespace) -> Params:
    """Give params whose recipe has the epochs and the precision asked for, and no other model."""
    changes: dict[str, Any] = {
        # An epoch more, since TensorFlow traces and optimises its graphs in the first.
        "epochs": arguments.rounds + 1,
        "patience": 0,
        "precision": arguments.precision or params.chosen_recipe.precision,
    }
    recipe = params.chosen_recipe.model_copy(update=changes)
    # The model's own changes are in that recipe already.
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
) -> Iterator[tuple[dict[str, Contestant], list[str]]]:
    """Start PyTorch in a process of its own; give its contestants, and the names of what failed."""
    contestants: dict[str, Contestant] = {}
    failed: list[str] = []
    if not _torch_is_installed():
        yield contestants, failed
        return
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder) / "exchange.npz"
        write_exchange(exchange, model, *batch)
        with worker(
            "benchmarks.throughput.torch_worker",
            *(str(exchange), params.model, params.recipe),
            environment=KEEP_MEMORY,
        ) as ask:

            def contestant(number: int) -> Contestant:
                return lambda: len(batch[0]) * float(ask(f"run {number} {seconds}"))

            difference = float(ask("check"))
            if difference > 1e-4:
                raise RuntimeError(f"{params.model} and its twin differ by {difference}")
            for number, mode in enumerate(ask("modes").split("; ")):
                _progress(f"{params.model}: PyTorch, {mode}")
                answer = ask(f"prepare {number}")
                if answer == "ready":
                    contestants[f"{TORCH}{mode}"] = contestant(number)
                else:
                    _progress(answer)
                    failed.append(f"{TORCH}{mode}")
            yield contestants, failed


def write_exchange(
    path: Path, model: keras.Model, patches: NDArray[np.float32], labels: NDArray[np.float32]
) -> None:
    """Write what `torch_worker` reads: a network and what it computes for a batch.

    Parameters
    ----------
    path
        An .npz file.
    model
        As its builder makes it.
    patches, labels
        (batch, 50, 50, 1) intensities in 0..255; (batch, 2) one-hot.
    """
    # Numbered, so that their names sort into the order of `get_weights`.
    weights = {f"weight{n:04}": values for n, values in enumerate(model.get_weights())}
    probabilities = model.predict_on_batch(patches)
    np.savez(path, patches=patches, labels=labels, probabilities=probabilities, **weights)


def _progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _random_patches(count: int, seed: int) -> tuple[Patches, Labels]:
    """Draw patches, every other one a nodule: what they show makes no difference to the speed."""
    shape = (count, PATCH_SIZE, PATCH_SIZE)
    patches = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return patches, (np.arange(count) % 2).astype(np.uint8)


def _as_arrays(patches: Patches, labels: Labels, count: int) -> Arrays:
    one_hot = np.eye(len(CLASSES), dtype=np.float32)[labels[:count]]
    return patches[:count, ..., np.newaxis].astype(np.float32), one_hot


def _resident_step(model: keras.Model, batch: Arrays) -> Callable[[], object]:
    """Give the step that `fit` takes, on one batch over and over."""
    # As the pipeline delivers them: patches, labels, and a weight for each.
    weighted = (*batch, np.ones(len(batch[0]), np.float32))
    model.train_on_batch(*weighted)
    batches = iter(tf.data.Dataset.from_tensors(weighted).repeat())
    return lambda: model.train_function(batches)


def _rates(
    params: Params,
    patches: Patches,
    labels: Labels,
    arguments: argparse.Namespace,
    contestants: dict[str, Contestant],
) -> Rates:
    """Train in a temporary folder as the pipeline does, with the others after each epoch."""
    recipe = params.chosen_recipe
    steps = steps_per_epoch(len(patches), recipe.batch_size)
    rounds = _Rounds(steps * recipe.batch_size, contestants)
    _progress(f"{params.model}: {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        files = files_in(Path(name))
        with new_patch_file(files.train, len(patches)) as file:
            file.append(patches, labels)
        with new_patch_file(files.val, arguments.val_patches) as file:
            file.append(*_random_patches(arguments.val_patches, params.seed + 1))
        write_json(files.class_weights, class_weights(labels, params.chosen_class_weights))
        train_with(params, files, [rounds])
    return rounds.rates


class _Rounds(keras.callbacks.Callback):
    """Times the epochs of a training, and lets the contestants work after each.

    What else the machine does comes and goes; so they are to be compared within a round. While they
    work, the training's input pipeline fills its buffer, which is a few batches.

    Attributes
    ----------
    rates
        A value a round of the epochs, with and without scoring, and of the contestants.
    """

    def __init__(self, patches: int, contestants: dict[str, Contestant]) -> None:
        super().__init__()
        self.rates: Rates = {name: [] for name in (EPOCH, UNSCORED_EPOCH, *contestants)}
        self._patches, self._contestants = patches, contestants
        self._start = self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        scored = time.perf_counter()
        if epoch == 0:
            # That training began made TensorFlow forget the graphs of the others.
            for contestant in self._contestants.values():
                contestant()
            return
        self.rates[EPOCH].append(self._patches / (scored - self._start))
        self.rates[UNSCORED_EPOCH].append(self._patches / (self._trained - self._start))
        for name, contestant in self._contestants.items():
            self.rates[name].append(contestant())


if __name__ == "__main__":
    main()
