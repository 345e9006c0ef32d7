"""Check whether environment settings change results: hash a network after a few steps.

TF_NUM_INTRAOP_THREADS=2 python -m benchmarks.bits
ONEDNN_MAX_CPU_ISA=AVX2 taskset -c 0 python -m benchmarks.bits --models mobilenet
"""

import hashlib

import numpy as np

from benchmarks import add_models, new_parser
from nodules.models.registry import build_model
from nodules.params import Params, read_params
from nodules.runtime import be_deterministic, usable_processors
from nodules.system.exits import one_line_errors
from nodules.training.input_pipeline import training_batches
from nodules.training.provenance import environment
from nodules.training.train import compiled_for_training

STEPS = 3
PATCHES = 192


def hashes(params: Params, model: str) -> tuple[str, str]:
    """Return the hashes of the weights after training and of the untrained predictions."""
    params = params.model_copy(update={"model": model})
    recipe, entry = params.chosen_recipe, params.chosen_model
    network = build_model(model, entry.builder, entry.config, seed=1, precision=recipe.precision)
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (PATCHES, 50, 50), dtype=np.uint8)
    batches = training_batches(
        patches,
        (np.arange(PATCHES) % 2).astype(np.uint8),
        batch_size=recipe.batch_size,
        epochs=1,
        augmentation=recipe.augmentation,
        class_weights=(0.4, 0.6),
        label_smoothing=recipe.label_smoothing,
        seed=1,
    )
    copy = compiled_for_training(network, recipe, STEPS)
    copy.fit(batches, epochs=1, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    weights = b"".join(weight.tobytes() for weight in copy.get_weights())
    predictions = network.predict_on_batch(patches[..., np.newaxis].astype(np.float32)).tobytes()
    return hashlib.sha256(weights).hexdigest()[:8], hashlib.sha256(predictions).hexdigest()[:8]


def main() -> None:
    """Print the hashes in Markdown."""
    parser = new_parser("benchmarks.bits", __doc__)
    params = read_params()
    add_models(parser, list(params.models))
    parser.add_argument("--recipe", choices=list(params.recipes), default="tuned")
    parser.add_argument("--not-deterministic", action="store_true")
    arguments = parser.parse_args()
    with one_line_errors():
        if not arguments.not_deterministic:
            be_deterministic()
        params = params.model_copy(update={"recipe": arguments.recipe})
        settings = environment()["settings"]
        described = ", ".join(f"{name}={value}" for name, value in settings.items() if value)
        print(f"{usable_processors()} processors, {described}\n")
        print("| model | weights | predictions |\n| --- | --- | --- |")
        for model in arguments.models:
            weights, predictions = hashes(params, model)
            print(f"| {model} | `{weights}` | `{predictions}` |", flush=True)


if __name__ == "__main__":
    main()
