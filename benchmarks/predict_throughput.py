"""Speed and memory of `predict` on a large file, compared with the bare model.

python -m benchmarks.predict_throughput --patches 100000

The rate of `predict` includes loading the model and writing the table. The bare model scores
batches already in memory, both as loaded by Keras and with folded batch norm as in `predict`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import add_models, new_parser
from nodules.evaluation.predict_file import predict_file
from nodules.inference.folding import fold_batch_norm
from nodules.inference.probabilities import BATCH_SIZE
from nodules.models.file import save_model
from nodules.models.registry import build_model
from nodules.params import read_params
from nodules.patches.layout import PATCH_SIZE
from nodules.patches.writer import new_patch_file
from nodules.runtime import be_deterministic, usable_processors

RESIDENT_BATCHES = 200


def main() -> None:
    """Print the rates, their ratios and the peak memory at two sizes for each model."""
    parser = new_parser("benchmarks.predict_throughput", __doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    known = list(read_params().models)
    add_models(parser, known)
    arguments = parser.parse_args()
    be_deterministic()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = (arguments.patches // 10, arguments.patches)
        small, large = (_write_noise(folder / f"{count}.h5", count) for count in sizes)
        for entry in arguments.models:
            path = folder / f"{entry}.keras"
            chosen = read_params().models[entry]
            model = build_model(entry, chosen.builder, chosen.config, seed=0)
            save_model(model, path)
            memory = [_peak_megabytes(path, file, folder) for file in (small, large)]
            alone = (model, fold_batch_norm(model))
            # Measured before and after, because the speed of the machine may drift.
            before = [_resident_rate(each) for each in alone]
            began = time.perf_counter()
            predict_file(path, large, folder / "scores.csv")
            rate = arguments.patches / (time.perf_counter() - began)
            after = [_resident_rate(each) for each in alone]
            rates = [statistics.mean(pair) for pair in zip(before, after, strict=True)]
            ratios = " | ".join(f"{each:.0f} | {rate / each:.2f}" for each in rates)
            rows.append(f"| {entry} | {rate:.0f} | {ratios} | {memory[0]} | {memory[1]} |")
    print(
        f"\n| model | predict, patches/s | model alone | ratio | folded, alone | ratio "
        f"| peak MB, {sizes[0]:,} patches | {sizes[1]:,} patches |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))


def _write_noise(path: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    with new_patch_file(path, count) as file:
        for start in range(0, count, 1000):
            here = min(1000, count - start)
            patches = rng.integers(0, 256, (here, PATCH_SIZE, PATCH_SIZE), dtype=np.uint8)
            file.append(patches, np.arange(here, dtype=np.uint8) % 2)
    return path


def _resident_rate(model: keras.Model) -> float:
    """Return patches/s of the bare model when every processor scores a batch in memory."""
    batch = tf.zeros((BATCH_SIZE, PATCH_SIZE, PATCH_SIZE, 1))
    score = tf.function(lambda patches: model(patches, training=False))

    def score_one(_: int) -> None:
        score(batch).numpy()

    score_one(0)
    with ThreadPoolExecutor(usable_processors()) as threads:
        began = time.perf_counter()
        list(threads.map(score_one, range(RESIDENT_BATCHES)))
        return BATCH_SIZE * RESIDENT_BATCHES / (time.perf_counter() - began)


def _peak_megabytes(model: Path, patches: Path, folder: Path) -> int:
    """Return the peak resident memory of the command, run in a separate process."""
    predict = ["predict", str(model), str(patches), "--out", str(folder / "scores.csv")]
    command = [sys.executable, "-m", "nodules", *predict]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss // 1024


if __name__ == "__main__":
    main()
