"""Score new patches with a trained model."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import FileError, ScoringError
from nodules.evaluation.predictions import group_cell, group_cells, new_table, probability_text
from nodules.inference.folding import fold_batch_norm
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.archive import ModelArchive, read_archive
from nodules.models.file import model_of
from nodules.patches.layout import SOURCES, Patches
from nodules.patches.reader import open_patches
from nodules.patches.symmetry import Views
from nodules.statistics.decision import called
from nodules.system.atomic import check_output


@dataclass(frozen=True)
class NewPatches:
    """Patches to score.

    Attributes
    ----------
    count
        Number of patches.
    blocks
        Their (n, 50, 50) uint8 blocks, each with its first row number.
    columns
        (N,) each: `group`, `file` and `candidate`, as far as they are known.
    """

    count: int
    blocks: Iterable[tuple[int, Patches]]
    columns: Mapping[str, NDArray]


@dataclass(frozen=True)
class Scored:
    """Number of patches scored, and of those called nodules (None without a threshold)."""

    patches: int
    nodules: int | None


def predict_file(model_path: Path, patches_path: Path, out: Path, *, views: Views = 1) -> int:
    """Score the patches of a patch file without a decision and return their number; see `predict`.

    Raises
    ------
    FileError, PatchFileError
        If a file is invalid, or the model's outputs are not probabilities.
    FileError
        If `out` is one of the input files, or cannot be written.
    """
    check_output(out, [model_path, patches_path])
    with open_new_patches(patches_path) as patches:
        return predict(read_archive(model_path), patches, out, views=views).patches


@contextmanager
def open_new_patches(path: Path) -> Iterator[NewPatches]:
    """Open a patch file, for which `Y` is optional, to score its patches."""
    with open_patches(path, labelled=False) as patches:
        columns: dict[str, NDArray] = dict(patches.read_sources())
        if patches.groups is not None:
            columns["group"] = patches.groups
        yield NewPatches(len(patches), patches.blocks(), columns)


def predict(
    archive: ModelArchive,
    patches: NewPatches,
    out: Path,
    *,
    views: Views = 1,
    threshold: float | None = None,
) -> Scored:
    """Write the nodule probability of each patch.

    The columns are `index,group,probability`, then `file` and `candidate` if they are known, and
    `threshold,nodule` with a threshold.

    Parameters
    ----------
    archive
        Model file of the train stage, as read by `read_archive`.
    patches
        Patches, which are read in blocks, so memory is bounded.
    out
        CSV file to write; `group` is empty if it is not known.
    views
        Number of views: 1, or 8 to average over the eight symmetric views of each patch.
    threshold
        Smallest probability that is called a nodule; None for no decision.

    Raises
    ------
    FileError, PatchFileError
        If the model or a patch is invalid, or the model's outputs are not probabilities.
    FileError
        If `out` cannot be written.
    """
    sources = [name for name in SOURCES if name in patches.columns]
    decision = () if threshold is None else ("threshold", "nodule")
    nodules = 0
    with ExitStack() as stack:
        model = fold_batch_norm(model_of(archive))
        header = ("index", "group", "probability", *sources, *decision)
        table = stack.enter_context(new_table(out, header))
        progress = stack.enter_context(tqdm(total=patches.count, desc="predict", unit="patch"))
        for start, block in patches.blocks:
            try:
                probabilities = nodule_probabilities(model, block, views=views)
            except ScoringError as error:
                raise FileError(archive.path, str(error)) from None
            rows = slice(start, start + len(block))
            of_block = {name: column[rows] for name, column in patches.columns.items()}
            columns: list[Iterable[object]] = [
                range(rows.start, rows.stop),
                group_cells(of_block.get("group"), len(block)),
                map(probability_text, probabilities),
                *(map(group_cell, of_block[name]) for name in sources),
            ]
            if threshold is not None:
                calls = called(probabilities, threshold)
                nodules += int(calls.sum())
                columns += [[probability_text(threshold)] * len(block), calls.astype(int)]
            table.writerows(zip(*columns, strict=True))
            progress.update(len(block))
    return Scored(patches.count, None if threshold is None else nodules)
