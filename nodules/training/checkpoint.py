"""Checkpoints: what a training needs to go on, where it was stopped, as if it had not been."""

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodules.system.atomic import remove_abandoned, replacing

# Of this file's layout; another number makes all earlier checkpoints stale.
LAYOUT = 1


@dataclass(frozen=True)
class TrainingState:
    """What a training has become by the end of an epoch.

    Attributes
    ----------
    epochs
        The scores that were logged, a mapping an epoch.
    variables
        The `state` of the copy in training.
    selected_weights
        Of the epoch that would be saved if training ended here.
    stopped
        Whether it has ended here, before its last epoch.
    """

    epochs: list[dict[str, float]]
    variables: list[NDArray]
    selected_weights: list[NDArray]
    stopped: bool


@dataclass(frozen=True)
class Combination:
    """What decides on every bit of a training, as two fingerprints.

    Attributes
    ----------
    program
        Of the code, the libraries and the machine.
    task
        Of the data and the parameters.
    """

    program: str
    task: str


class Checkpoint:
    """The checkpoint file of one combination of data, parameters, code and machine.

    Parameters
    ----------
    folder
        Of all checkpoints of a repository.
    combination
        To which the file belongs, and by which it is named: another combination never reads it.
    workspace
        Whether the training runs in the repository's own workspace, and not in one of the
        temporary folders that DVC makes for experiments.

    Attributes
    ----------
    path
        The file that `save` writes.
    saved_epochs
        After how many epochs a training can go on, as far as it was read or written here.
    """

    def __init__(self, folder: Path, combination: Combination, *, workspace: bool) -> None:
        self._folder, self._combination = folder, combination
        self._name = f"{combination.program}-{combination.task}.npz"
        self.path = folder / f"{'workspace' if workspace else 'experiment'}-{self._name}"
        self.saved_epochs = 0

    def save(self, state: TrainingState) -> None:
        """Put a state in the place of the one before; whenever this is cut off, one is whole."""
        content = {
            "epochs": state.epochs,
            "stopped": state.stopped,
            "variables": len(state.variables),
        }
        arrays = [*state.variables, *state.selected_weights]
        with replacing(self.path) as temporary:
            np.savez(temporary, *arrays, content=np.array(json.dumps(content)))
        self.saved_epochs = len(state.epochs)

    def load(self) -> TrainingState | None:
        """Read the state to go on from, if a training of this combination has left one."""
        for path in self._own():
            try:
                state = _read(path)
                self.saved_epochs = len(state.epochs)
                return state
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                # After a power cut a file may be short of its end. All it would save is time.
                reason = " ".join(str(error).split())[:200]
                print(f"warning: {path} is left out: {reason}", file=sys.stderr)
        return None

    def remove(self) -> None:
        """Remove the checkpoint: its training is done."""
        for path in self._own():
            path.unlink(missing_ok=True)

    def remove_stale(self) -> None:
        """Remove what nobody will go on from, and what a killed writer has left.

        That is the checkpoints of other code, libraries or machines, and, where this training runs
        in the workspace, those that the workspace has left behind for other data or parameters.
        Those of experiments stay until their experiment is run again. Taking the file of a training
        that still runs does no harm: its next epoch writes it anew.
        """
        if not self._folder.is_dir():
            return
        remove_abandoned(self._folder, ".npz")
        for path in self._folder.glob("[!.]*-*-*.npz"):
            place, program, task = path.stem.split("-")
            superseded = place == "workspace" and self.path.name.startswith(place)
            other_task = task != self._combination.task
            if program != self._combination.program or (superseded and other_task):
                path.unlink(missing_ok=True)

    def _own(self) -> list[Path]:
        """List the files of this combination, the one that this training writes first."""
        found = self._folder.glob(f"*-{self._name}")
        return sorted(found, key=lambda path: path != self.path)


def checkpoint_folder() -> tuple[Path, bool]:
    """Find where the checkpoints of this repository are.

    Returns
    -------
    folder
        In `.dvc/tmp`, which neither git nor DVC looks at, of the repository itself: for an
        experiment in a temporary folder, which a later run does not see, DVC names the repository
        in the environment variable `DVC_ROOT`.
    workspace
        Whether this is the repository's own workspace.
    """
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    return root / ".dvc" / "tmp" / "training", root.resolve() == Path.cwd().resolve()


def combination_of(
    files: Mapping[str, Path], params: Mapping[str, Any], program: Mapping[str, Any]
) -> Combination:
    """Fingerprint a training.

    Parameters
    ----------
    files
        What it reads, by any name; the contents count, and where they are does not.
    params
        What it is told, as JSON takes it.
    program
        Its code, libraries and machine, as JSON takes it.
    """
    contents = {}
    for name, path in files.items():
        with path.open("rb") as file:
            contents[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return Combination(
        program=_fingerprint({**program, "layout": LAYOUT}),
        task=_fingerprint({"files": contents, "params": params}),
    )


def _fingerprint(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path) -> TrainingState:
    with np.load(path, allow_pickle=False) as file:
        content = json.loads(str(file["content"]))
        arrays = [file[f"arr_{number}"] for number in range(len(file.files) - 1)]
    count = content["variables"]
    return TrainingState(content["epochs"], arrays[:count], arrays[count:], content["stopped"])
