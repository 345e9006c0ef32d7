"""Stage `train`: train the chosen model by the chosen recipe."""

from pathlib import Path

# First of all, since it sets up TensorFlow, which others import.
from nodules.runtime import be_deterministic  # isort: split

from nodules.params import read_params
from nodules.system.exits import one_line_errors
from nodules.training.checkpoint import checkpoint_folder
from nodules.training.train import TrainingFiles, train

if __name__ == "__main__":
    with one_line_errors():
        be_deterministic()
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
        train(read_params(), files)
