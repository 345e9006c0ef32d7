"""What commits, experiments and the workspace hold, read through DVC: predictions, metrics, params.

A file of a revision is found by DVC wherever it is: in git, in DVC's cache, on the remote, or, for
the workspace, on disk.
"""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from dvc.api import DVCFileSystem, params_show
from dvc.exceptions import DvcException
from dvc.fs import FileSystem
from dvc.repo import Repo
from dvc.scm import RevError, SCMError
from numpy.typing import NDArray

from nodules.errors import PatchFileError, ResultsMissingError, RevisionError, TestSetError
from nodules.patches import Labels, Patches, open_patches
from nodules.predictions import COLUMNS

WORKSPACE = "workspace"
PREDICTIONS = "data/predictions.csv"
METRICS = "metrics/evaluate/metrics.json"
TEST_PATCHES = "data/splits/test.h5"
TRAINING_CURVES = "metrics/train/plots/metrics"

# What DVC raises where a file is in no place that it knows, or a place cannot be reached.
_UNREADABLE = (OSError, DvcException)


@dataclass(frozen=True)
class Predictions:
    """The predictions of one split, in ascending order of index.

    Attributes
    ----------
    index
        (N,) int64 rows in the data set, each once.
    groups
        (N,) str objects; None where the data set has no groups.
    labels
        (N,) uint8, 1 for a nodule.
    probabilities
        (N,) float64 in 0..1.
    """

    index: NDArray[np.int64]
    groups: NDArray[np.object_] | None
    labels: Labels
    probabilities: NDArray[np.float64]


class TrainingPoint(NamedTuple):
    """A value of a training curve, such as the loss on val after an epoch (from 0)."""

    split: str
    metric: str
    epoch: int
    value: float


@dataclass(frozen=True)
class Revision:
    """A commit, an experiment or the workspace.

    Use `read_revision`.

    Attributes
    ----------
    name
        As it was asked for.
    commit
        Its hash, shortened; empty for the workspace.
    predictions
        Of the test split.
    threshold
        Of the calls, as the revision chose it on its validation split.
    params
        Every parameter, by dotted key.
    stale
        Whether the workspace has changed since its results were made.
    """

    name: str
    commit: str
    predictions: Predictions
    threshold: float
    params: dict[str, Any]
    stale: bool
    _files: FileSystem

    def training_curves(self) -> list[TrainingPoint]:
        """Read what `dvc plots` shows of the training; empty where the revision has none."""
        points = []
        for path in sorted(self._files.glob(f"{TRAINING_CURVES}/*/*.tsv")):
            split, metric = PurePosixPath(path).parent.name, PurePosixPath(path).stem
            rows = csv.DictReader(io.StringIO(self._files.read_text(path)), delimiter="\t")
            points += [
                TrainingPoint(split, metric, int(row["step"]), float(row[metric])) for row in rows
            ]
        return points

    def test_patches(self, index: NDArray[np.int64]) -> Patches | None:
        """Read (n, 50, 50) uint8 test patches by their rows in the data set.

        None where the file is in no place that DVC knows, or does not hold all of them.
        """
        try:
            with (
                self._files.open(TEST_PATCHES, "rb") as stored,
                tempfile.NamedTemporaryFile(suffix=".h5") as copy,
            ):
                # It may come from a remote, and HDF5 reads what is not trusted from a file alone.
                shutil.copyfileobj(stored, copy)
                copy.flush()
                with open_patches(Path(copy.name), labelled=False) as patches:
                    known = patches.read_index()
                    order = np.argsort(known)
                    rows = order[np.searchsorted(known, index, sorter=order) % len(known)]
                    if not np.array_equal(known[rows], index):
                        return None
                    return np.concatenate([patches.read(row, row + 1) for row in rows.tolist()])
        except (*_UNREADABLE, PatchFileError):
            return None


def read_revisions(names: Sequence[str]) -> list[Revision]:
    """Read the revisions that are to be compared.

    Parameters
    ----------
    names
        As for `read_revision`. None means HEAD and the workspace; one, it and the workspace.

    Raises
    ------
    RevisionError
        As `read_revision`, or if a revision is named twice.
    """
    chosen = list(names) or ["HEAD"]
    if len(chosen) == 1:
        chosen.append(WORKSPACE)
    check_different(chosen)
    return [read_revision(name) for name in chosen]


def check_different(names: Sequence[str]) -> None:
    """Refuse to compare a revision with itself.

    Raises
    ------
    RevisionError
        If a name is there twice.
    """
    for name in names:
        if names.count(name) > 1:
            raise RevisionError(name, "found twice, expected different revisions")


def resolve(name: str) -> str:
    """Give the full hash of a commit or experiment.

    Raises
    ------
    RevisionError
        If there is none of that name.
    """
    with _readable(name):
        return DVCFileSystem(rev=name).repo.get_rev()


def read_revision(name: str, repository: Path | None = None) -> Revision:
    """Read a revision.

    Parameters
    ----------
    name
        A git revision, the name of a DVC experiment, or `workspace`.
    repository
        Its root; by default the one that holds the current folder.

    Raises
    ------
    ResultsMissingError
        If it lacks its predictions or metrics; the message says which command would get them.
    RevisionError
        If there is no such revision, or its results are broken.
    """
    root = None if repository is None else str(repository)
    with _readable(name):
        files = DVCFileSystem(root, rev=None if name == WORKSPACE else name)
        commit = "" if name == WORKSPACE else files.repo.get_rev()
        params = params_show("params.yaml", repo=root, rev=commit or None)
    way = f"git switch --detach {commit[:7]} && dvc repro" if commit else "dvc repro"
    text = _read(files, name, PREDICTIONS, way)
    threshold = _threshold(name, _read(files, name, METRICS, way))
    predictions = parse_predictions(text, f"{name}: {PREDICTIONS}", split="test")
    with _readable(name):
        stale = name == WORKSPACE and bool(files.repo.status())
    return Revision(name, commit[:7], predictions, threshold, _flat(params), stale, files)


def parse_predictions(text: str, origin: str, *, split: str) -> Predictions:
    """Read a split from the text of a predictions.csv.

    Parameters
    ----------
    text
        `split,index,group,label,probability` with a header.
    origin
        How messages name it.
    split
        The rows to keep.

    Raises
    ------
    RevisionError
        For the first row that is not as expected.
    """
    # A group may hold the end of a line; it is quoted, and stays as it is.
    table = csv.DictReader(io.StringIO(text, newline=""))
    if tuple(table.fieldnames or ()) != COLUMNS:
        found = ",".join(table.fieldnames or ()) or "nothing"
        raise RevisionError(origin, f"found the columns {found}, expected {','.join(COLUMNS)}")
    rows = []
    grouped = False
    for number, row in _numbered(table, origin):
        try:
            probability = float(row["probability"])
            parsed = int(row["index"]), row["group"], int(row["label"]), probability
        except (TypeError, ValueError):
            raise RevisionError(origin, f"line {number}: found no numbers, expected some") from None
        if parsed[2] not in (0, 1) or not 0 <= probability <= 1:
            found = f"label {parsed[2]}, probability {probability}"
            expected = "label 0 or 1, probability in 0..1"
            raise RevisionError(origin, f"line {number}: found {found}, expected {expected}")
        if not 0 <= parsed[0] <= np.iinfo(np.int64).max:
            raise RevisionError(origin, f"line {number}: found index {parsed[0]}, expected a row")
        # Of any split: one of its groups may have an empty name.
        grouped = grouped or bool(parsed[1])
        if row["split"] == split:
            rows.append(parsed)
    rows.sort(key=lambda row: row[0])
    index, groups, labels, probabilities = zip(*rows, strict=True) if rows else ((), (), (), ())
    if len(set(index)) < len(index):
        raise RevisionError(origin, f"found an index twice in {split}, expected each row once")
    return Predictions(
        np.array(index, np.int64),
        np.array(groups, object) if grouped else None,
        np.array(labels, np.uint8),
        np.array(probabilities, np.float64),
    )


def _numbered(table: csv.DictReader, origin: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over the rows of a table, each with the line that it ends on."""
    try:
        for row in table:
            yield table.line_num, row
    except csv.Error as error:
        raise RevisionError(origin, f"line {table.line_num}: no CSV ({error})") from None


def check_same_test_set(baseline: Revision, candidate: Revision) -> None:
    """Refuse revisions that were not tested on the same patches.

    Raises
    ------
    TestSetError
        Saying how the test sets differ. Only the same patches can be compared in pairs.
    """
    ours, theirs = baseline.predictions, candidate.predictions
    common = len(np.intersect1d(ours.index, theirs.index))
    if not common == len(ours.index) == len(theirs.index):
        found = f"found {len(theirs.index)} test patches, {common} of them among the"
        expected = f"{len(ours.index)} of {baseline.name}; expected the same test set"
        raise TestSetError(
            candidate.name, f"{found} {expected} (did dataset, split or seed change?)"
        )
    same_labels = np.array_equal(ours.labels, theirs.labels)
    same_groups = _listed(ours.groups) == _listed(theirs.groups)
    for what, same in (("label", same_labels), ("group", same_groups)):
        if not same:
            problem = f"found test patches whose {what} differs in {baseline.name}"
            raise TestSetError(
                candidate.name, f"{problem}; expected the same test set (did dataset change?)"
            )


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what DVC raises for a revision that is not there, or not readable, into one line."""
    try:
        yield
    except RevError:
        problem = "no such revision, expected a commit, a branch, a tag, an experiment"
        raise RevisionError(name, f"{problem} (`dvc exp list`) or {WORKSPACE}") from None
    except (SCMError, DvcException) as error:
        raise RevisionError(name, _first_line(error)) from None


def _read(files: FileSystem, name: str, path: str, way: str) -> str:
    try:
        return str(files.read_bytes(path), "utf-8")
    except UnicodeDecodeError:
        raise RevisionError(name, f"{path}: found bytes that are not UTF-8 text") from None
    except FileNotFoundError:
        places = "in DVC's cache nor on a remote"
        if name == WORKSPACE and Repo().config["core"].get("remote"):
            way = f"dvc pull {path}, or {way}"
        problem = f"{path} is neither {places}"
        raise ResultsMissingError(name, f"{problem}; get it with: {way}") from None
    except _UNREADABLE as error:
        problem = f"{path} cannot be had ({_first_line(error)})"
        raise ResultsMissingError(name, f"{problem}; get it with: dvc pull, or {way}") from None


def _threshold(name: str, metrics: str) -> float:
    try:
        found = json.loads(metrics)["threshold"]
    except (ValueError, KeyError, TypeError):
        raise RevisionError(name, f"{METRICS}: found no threshold, expected a number") from None
    if not isinstance(found, float | int):
        raise RevisionError(name, f"{METRICS}: threshold: found {found!r}, expected a number")
    return float(found)


def _listed(values: NDArray | None) -> list | None:
    return None if values is None else values.tolist()


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
