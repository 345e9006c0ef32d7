"""Time and memory of split, class weights, training input and predict by data set size.

python -m benchmarks.scale --patches 10000 100000

Each step runs in a separate process. Patches are mixtures of two phantom patches; few of them are
near-duplicates. A plain chunked copy of the file is the baseline for writing the splits. The
network is tiny, so that training measures the input pipeline. Files in --folder are deleted
afterwards.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from tqdm import tqdm

from benchmarks import new_parser
from nodules.models.params import ModelParams
from nodules.params import Params, read_params
from nodules.patches.layout import BLOCK_PATCHES, PATCH_SIZE
from nodules.patches.reader import open_patches
from nodules.patches.writer import new_patch_file

PHANTOM_SCANS = 40
PATCHES_PER_SCAN = 600  # as in LUNA16's candidate list
CHUNK = (64, PATCH_SIZE, PATCH_SIZE)
TINY = ModelParams(
    builder="squeezenet",
    config={
        "margin": 0,
        "stem_filters": 4,
        "stem_stride": 2,
        "fires": [[2, 4]],
        "pool_before": [0],
        "bypass": False,
        "batch_norm": True,
        "batch_norm_momentum": 0.9,
        "pooling": "average",
        "dropout": 0.0,
    },
)


class Usage(NamedTuple):
    """Wall-clock and CPU seconds and peak resident memory (MB) of a process."""

    seconds: float
    processor: float
    megabytes: int


def main() -> None:
    """Print a table of all sizes, storage types and steps, or run one step."""
    parser = new_parser("benchmarks.scale", __doc__)
    parser.add_argument("--patches", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--folder", type=Path, help="folder for the files; a temporary one by default"
    )
    parser.add_argument("--storage", nargs="+", choices=STORAGE, default=list(STORAGE))
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=STEPS,
        default=list(STEPS),
        metavar="STEP",
        help=f"some of {', '.join(map(repr, STEPS))}; all by default",
    )
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        STEPS[arguments.step](arguments.work)
        return
    print("| patches | stored | step | seconds | processor s | us per patch | peak MB |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    for count in arguments.patches:
        for storage in arguments.storage:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
                work = Path(name)
                write_patches(work / "patches.h5", count, compression=STORAGE[storage])
                for step in arguments.steps:
                    used = _run(step, work)
                    print(
                        f"| {count:,} | {storage} | {step} | {used.seconds:.1f} "
                        f"| {used.processor:.1f} | {used.processor / count * 1e6:.0f} "
                        f"| {used.megabytes} |",
                        flush=True,
                    )
                if "shuffling" in arguments.steps:
                    print(f"\n{(work / 'shuffling.md').read_text()}\n", flush=True)


def write_patches(path: Path, count: int, *, compression: str | None) -> None:
    """Write a patch file with groups.

    Parameters
    ----------
    path
        File to write.
    count
        Number of patches.
    compression
        HDF5 name of the compression filter; None for a contiguous `X`.
    """
    from nodules.phantom.params import PhantomParams
    from nodules.phantom.patch_file import write_phantom

    phantom = path.with_name("phantom.h5")
    size = PhantomParams(scans=PHANTOM_SCANS, patches_per_scan=25, nodule_fraction=0.17)
    write_phantom(size, 0, phantom)
    with open_patches(phantom) as source:
        base, labels = source.read(0, len(source)), source.labels
    phantom.unlink()
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        layout = {"chunks": CHUNK, "compression": compression} if compression else {}
        pixels = file.create_dataset("X", (count, PATCH_SIZE, PATCH_SIZE), np.uint8, **layout)
        marks = file.create_dataset("Y", (count,), np.uint8)
        file["group"] = np.arange(count) // PATCHES_PER_SCAN
        for start in tqdm(range(0, count, 1000), desc="write", unit="kilopatch"):
            here = min(1000, count - start)
            one, other = rng.integers(0, len(base), (2, here))
            weight = rng.uniform(0.5, 0.9, (here, 1, 1)).astype(np.float32)
            mixed = base[one] * weight + np.roll(base[other], 7, axis=1) * (1 - weight)
            pixels[start : start + here] = np.rint(mixed).astype(np.uint8)
            marks[start : start + here] = labels[one]


def _run(step: str, work: Path) -> Usage:
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, "--work", str(work)]
    began = time.perf_counter()
    with (work / f"{step.replace(' ', '_')}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.stderr.write(Path(log.name).read_text(encoding="utf-8", errors="replace"))
        raise subprocess.CalledProcessError(process.returncode, command)
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


def _copy(work: Path) -> None:
    """Copy `X` block by block with h5py."""
    target = work / "copy.h5"
    with h5py.File(work / "patches.h5") as source, h5py.File(target, "w") as file:
        data = source["X"]
        pixels = file.create_dataset("X", data.shape, np.uint8)
        for start in range(0, len(data), BLOCK_PATCHES):
            pixels[start : start + BLOCK_PATCHES] = data[start : start + BLOCK_PATCHES]
    target.unlink()


def _split(work: Path, *, search: bool) -> None:
    from nodules.splitting.split import split_patches

    params = read_params()
    folder, picture = work / "splits", work / "near_duplicates.png"
    shutil.rmtree(folder, ignore_errors=True)
    counts = split_patches(
        work / "patches.h5", folder, params.split, params.seed, picture=picture, search=search
    )
    print(counts)


def _class_weights(work: Path) -> None:
    from nodules.system.atomic import write_json
    from nodules.training.class_weights import class_weights

    with open_patches(work / "splits" / "train.h5") as split:
        write_json(work / "splits" / "class_weights.json", class_weights(split.labels, "balanced"))


def _params() -> Params:
    params = read_params()
    tuned = params.recipes["tuned"].model_copy(update={"epochs": 1})
    changes = {"model": "tiny", "recipe": "tuned", "models": {"tiny": TINY}}
    return params.model_copy(update={**changes, "recipes": {"tuned": tuned}})


def _train(work: Path) -> None:
    from benchmarks.pipeline_run import files_in
    from nodules.runtime import be_deterministic
    from nodules.training.train import train

    be_deterministic()
    files = files_in(work / "splits")
    # Only 100 val patches, so that scoring hardly counts.
    with open_patches(files.val) as val:
        rows = np.r_[np.flatnonzero(val.labels)[:50], np.flatnonzero(val.labels == 0)[:50]]
        pixels, labels = val.on_disk()[rows], val.labels[rows]
    few = work / "few.h5"
    with new_patch_file(few, len(rows)) as file:
        file.append(pixels, labels)
    train(_params().chosen_training, replace(files, val=few))


def _predict(work: Path) -> None:
    from nodules.evaluation.predict_file import predict_file
    from nodules.runtime import be_deterministic

    be_deterministic()
    predict_file(work / "splits" / "model.keras", work / "patches.h5", work / "scores.csv")


def _shuffling(work: Path) -> None:
    """Write a table of shuffling quality, within epochs and between consecutive ones."""
    from scipy.stats import chisquare, hypergeom, spearmanr

    from nodules.training.input_pipeline import epoch_order, steps_per_epoch

    params = _params()
    size = params.chosen_recipe.batch_size
    with open_patches(work / "splits" / "train.h5") as split:
        labels = split.labels
    steps = steps_per_epoch(len(labels), size)
    lines = [
        "| epoch | rank correlation with the file | with the epoch before "
        "| nodules per batch, mean and SD | SD of a fair draw | p of a fair draw |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    places = np.arange(len(labels))
    before = places
    for epoch in range(3):
        order = epoch_order(len(labels), seed=params.training_seed, epoch=epoch)
        with_file = spearmanr(places, order).statistic
        with_last = spearmanr(np.argsort(before), np.argsort(order)).statistic
        nodules = labels[order[: steps * size]].reshape(steps, size).sum(axis=1)
        fair = hypergeom(len(labels), int(labels.sum()), size)
        # The chi-squared test needs at least five expected counts per cell.
        expected = fair.pmf(np.arange(size + 1)) * steps
        cells = np.minimum(np.cumsum(expected) // 5, expected.sum() // 5 - 1).astype(int)
        _, cells = np.unique(cells, return_inverse=True)
        counts = np.bincount(cells, np.bincount(nodules, minlength=size + 1))
        expected_counts = np.bincount(cells, expected)
        p = chisquare(counts, expected_counts / expected_counts.sum() * counts.sum()).pvalue
        lines.append(
            f"| {epoch + 1} | {with_file:+.4f} | {'' if not epoch else f'{with_last:+.4f}'} "
            f"| {nodules.mean():.2f}, {nodules.std():.2f} | {fair.std():.2f} | {p:.2f} |"
        )
        before = order
    (work / "shuffling.md").write_text("\n".join(lines))


STORAGE = {"contiguous": None, "gzip": "gzip"}
STEPS: dict[str, Callable[[Path], None]] = {
    "plain copy": _copy,
    "split, no search": lambda work: _split(work, search=False),
    "split, report": lambda work: _split(work, search=True),
    "class weights": _class_weights,
    "train, one epoch": _train,
    "predict": _predict,
    "shuffling": _shuffling,
}

if __name__ == "__main__":
    main()
