"""Stage `train`: train the chosen model with the chosen recipe."""

import sys
from pathlib import Path

from nodules.runtime import be_deterministic
from nodules.system.exits import one_line_errors


def main() -> None:
    """Read params, train, write the model and its log."""
    be_deterministic()  # before any import of TensorFlow

    from nodules.params import read_params
    from nodules.training.checkpoint import checkpoint_folder
    from nodules.training.train import TrainingFiles, train

    checkpoints, workspace = checkpoint_folder()
    files = TrainingFiles(
        train=Path("data/splits/train.h5"),
        val=Path("data/splits/val.h5"),
        class_weights=Path("data/class_weights.json"),
        model=Path("models/model.keras"),
        log=Path("metrics/train"),
        checkpoints=checkpoints,
        workspace=workspace,
        provenance=Path("metrics/train/provenance.json"),
    )
    params = read_params()
    if note := params.unusual_choice():
        print(f"note: {note}", file=sys.stderr)
    train(params.chosen_training, files)


if __name__ == "__main__":
    with one_line_errors():
        main()
