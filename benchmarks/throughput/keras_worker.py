"""Worker process of `benchmarks.throughput` that times a bare Keras `fit`.

python -m benchmarks.throughput.keras_worker ENTRY RECIPE PATCHES

Answers each line on stdin with one line: `fit` with the patches/s of an epoch of PATCHES patches,
`matrix product` with the float32 FLOP/s of a large product. TensorFlow splits each operation across
all processors, as it does by default.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from benchmarks.stopwatch import steps_per_second
from nodules.models.registry import build_model
from nodules.params import Params, read_params
from nodules.patches.layout import CLASSES, PATCH_SIZE
from nodules.runtime import be_deterministic

# Size of the square float32 matrices whose product measures peak throughput.
MATRIX_SIZE = 2048


def main() -> None:
    """Answer until the input ends."""
    be_deterministic()
    params = read_params().model_copy(update={"model": sys.argv[1], "recipe": sys.argv[2]})
    fit = _BareFit(params, int(sys.argv[3]))
    for line in sys.stdin:
        match line.strip():
            case "fit":
                answer = fit.patches_per_second()
            case "matrix product":
                answer = _matrix_product()
            case _:
                raise ValueError(f"found {line!r}, expected fit or matrix product")
        print(answer, flush=True)


class _BareFit:
    """Training as anybody would: arrays in memory, shuffled, no augmentation, no average."""

    def __init__(self, params: Params, count: int) -> None:
        entry, recipe = params.chosen_model, params.chosen_recipe
        self._model = build_model(
            params.model, entry.builder, entry.config, seed=params.training_seed
        )
        optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay)
        self._model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
        self._batch_size = recipe.batch_size
        rng = np.random.default_rng(params.seed)
        shape = (count - count % recipe.batch_size, PATCH_SIZE, PATCH_SIZE, 1)
        self._patches = rng.uniform(0, 255, shape).astype(np.float32)
        labels = np.arange(len(self._patches)) % len(CLASSES)
        self._one_hot = np.eye(len(CLASSES), dtype=np.float32)[labels]

    def patches_per_second(self) -> float:
        def fit() -> object:
            return self._model.fit(
                self._patches, self._one_hot, batch_size=self._batch_size, shuffle=True, verbose=0
            )

        return len(self._patches) * steps_per_second(fit, 0)


def _matrix_product() -> float:
    matrix = tf.ones((MATRIX_SIZE, MATRIX_SIZE))
    return 2 * MATRIX_SIZE**3 * steps_per_second(lambda: tf.matmul(matrix, matrix).numpy(), 0.5)


if __name__ == "__main__":
    main()
