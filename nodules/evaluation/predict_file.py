"""Score new patches with a trained model."""

from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from nodules.errors import FileError, ScoringError
from nodules.evaluation.predictions import group_cell, new_table, probability_text
from nodules.inference.folding import fold_batch_norm
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model
from nodules.patches.reader import open_patches
from nodules.patches.symmetry import Views
from nodules.system.atomic import check_output


def predict_file(model_path: Path, patches_path: Path, out: Path, *, views: Views = 1) -> int:
    """Write the nodule probability of each patch: `index,group,probability`.

    Parameters
    ----------
    model_path
        `.keras` archive of the train stage.
    patches_path
        Patch file; `Y` is optional.
    out
        CSV file to write; `group` is empty if the patch file has none.
    views
        Number of views: 1, or 8 to average over the eight symmetric views of each patch.

    Returns
    -------
    int
        Number of patches scored. They are read in blocks, so memory is bounded.

    Raises
    ------
    FileError, PatchFileError
        If a file is invalid, or the model's outputs are not probabilities.
    FileError
        If `out` is one of the input files, or cannot be written.
    """
    check_output(out, [model_path, patches_path])
    with ExitStack() as stack:
        patches = stack.enter_context(open_patches(patches_path, labelled=False))
        model = fold_batch_norm(load_model(model_path))
        table = stack.enter_context(new_table(out, ("index", "group", "probability")))
        progress = stack.enter_context(tqdm(total=len(patches), desc="predict", unit="patch"))
        for start, block in patches.blocks():
            try:
                probabilities = nodule_probabilities(model, block, views=views)
            except ScoringError as error:
                raise FileError(model_path, str(error)) from None
            for row, probability in enumerate(probabilities, start):
                group = "" if patches.groups is None else group_cell(patches.groups[row])
                table.writerow((row, group, probability_text(probability)))
            progress.update(len(block))
        return len(patches)
