"""Checkpoints, from which an interrupted training resumes and produces identical files."""

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

# Version of the file's layout; a change makes all earlier checkpoints stale.
LAYOUT = 1


@dataclass(frozen=True)
class TrainingState:
    """The state of a training at the end of an epoch.

    Attributes
    ----------
    epochs
        The logged scores, one mapping per epoch.
    variables
        The `state` of the accelerated model.
    selected_weights
        Weights that would be saved if training ended here.
    stopped
        Whether training has ended here, before its last epoch.
    """

    epochs: list[dict[str, float]]
    variables: list[NDArray]
    selected_weights: list[NDArray]
    stopped: bool


@dataclass(frozen=True)
class Combination:
    """Fingerprints of everything that determines the bits of a training.

    Attributes
    ----------
    program
        Fingerprint of the code, the libraries and the machine.
    task
        Fingerprint of the data and the parameters.
    """

    program: str
    task: str


class Checkpoint:
    """The checkpoint file of one combination of data, parameters, code and machine.

    Parameters
    ----------
    folder
        Folder of all checkpoints of a repository.
    combination
        Combination after which the file is named; no other combination reads it.
    workspace
        Whether the training runs in the repository's own workspace, not in a temporary folder that
        DVC creates for an experiment.

    Attributes
    ----------
    path
        The file that `save` writes.
    saved_epochs
        Number of epochs in the checkpoint that was last read or written; 0 before.
    """

    def __init__(self, folder: Path, combination: Combination, *, workspace: bool) -> None:
        self._folder, self._combination = folder, combination
        self._name = f"{combination.program}-{combination.task}.npz"
        self.path = folder / f"{'workspace' if workspace else 'experiment'}-{self._name}"
        self.saved_epochs = 0

    def save(self, state: TrainingState) -> None:
        """Replace the previous state; if this is interrupted, one of the two remains intact."""
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
        """Return the state to resume from, if there is a checkpoint of this combination."""
        for path in self._own():
            try:
                state = _read(path)
                self.saved_epochs = len(state.epochs)
                return state
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                # A power cut may truncate a file. The training then restarts from scratch.
                reason = " ".join(str(error).split())[:200]
                print(f"warning: {path} is ignored: {reason}", file=sys.stderr)
        return None

    def remove(self) -> None:
        """Remove the checkpoint of a finished training."""
        for path in self._own():
            path.unlink(missing_ok=True)

    def remove_stale(self) -> None:
        """Remove checkpoints that cannot be resumed, and temporary files of killed processes.

        Checkpoints of other code, libraries or machines are removed. If this training runs in the
        workspace, so are the workspace's checkpoints of other data or parameters. Those of
        experiments stay until the experiment runs again. A training in progress whose file is
        removed writes it again after its next epoch.
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
        """List the files of this combination, starting with the one that this training writes."""
        found = self._folder.glob(f"*-{self._name}")
        return sorted(found, key=lambda path: path != self.path)


def checkpoint_folder() -> tuple[Path, bool]:
    """Return the folder of this repository's checkpoints.

    Returns
    -------
    folder
        A folder in the repository's `.dvc/tmp`, which git and DVC ignore. DVC runs experiments in
        temporary folders and names the repository in the environment variable `DVC_ROOT`.
    workspace
        Whether the current folder is the repository's own workspace.
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
        Input files by arbitrary names; only their contents matter, not their paths.
    params
        Parameters, as JSON values.
    program
        Code, libraries and machine, as JSON values.
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
