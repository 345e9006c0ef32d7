"""Predictions, metrics and parameters of commits, experiments and the workspace, read through DVC.

DVC finds each file of a revision in git, in its cache or on the remote; those of the workspace are
read from disk.
"""

import csv
import hashlib
import io
import math
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.fs import FileSystem
from dvc.repo import Repo
from dvc.utils.serialize import parse_yaml
from numpy.typing import NDArray

from nodules.comparison.repository import (
    WORKSPACE,
    check_name,
    default_remote,
    first_line,
    open_revision,
    revision_errors,
)
from nodules.errors import PatchFileError, ResultsMissingError, RevisionError, TestSetError
from nodules.evaluation.chosen_threshold import threshold_in
from nodules.evaluation.predictions import COLUMNS, group_of, source_name
from nodules.patches.layout import SOURCES, Labels, Patches
from nodules.patches.reader import PatchFile, open_patches
from nodules.system.environment import ENVIRONMENT_FILE
from nodules.system.regular_file import irregular_kind
from nodules.system.streams import printable

PREDICTIONS = "data/predictions.csv"
METRICS = "metrics/evaluate/metrics.json"
TEST_PATCHES = "data/splits/test.h5"
TRAINING_CURVES = "metrics/train/plots/metrics"
PARAMS = "params.yaml"
PACKAGES = str(ENVIRONMENT_FILE)

# Workspace files that are checked before DVC opens them.
_WORKSPACE_FILES = (PREDICTIONS, METRICS, TEST_PATCHES, PARAMS, PACKAGES, "dvc.yaml", "dvc.lock")

# Exceptions that DVC raises if a file is missing, or the cache or remote cannot be read.
_READ_ERRORS = (OSError, DvcException)

# Limits on the size of text files, in bytes: predictions of about two million patches, and far more
# metrics or epochs than any real run has.
MAX_PREDICTIONS = 100_000_000
MAX_METRICS = 1_000_000
MAX_YAML = 1_000_000


@dataclass(frozen=True)
class Predictions:
    """The predictions of one split, in ascending order of index.

    Attributes
    ----------
    index
        (N,) int64 rows in the data set, unique.
    groups
        (N,) str objects, or None if the data set has no groups.
    labels
        (N,) uint8, 1 for a nodule.
    probabilities
        (N,) float64 probabilities of a nodule, in 0..1.
    names
        (N,) names of the patches in the user's data, such as those of image files; empty strings
        if the data set has none.
    """

    index: NDArray[np.int64]
    groups: NDArray[np.object_] | None
    labels: Labels
    probabilities: NDArray[np.float64]
    names: tuple[str, ...]


class TrainingPoint(NamedTuple):
    """One value of a training curve, such as the validation loss after an epoch (from 0)."""

    split: str
    metric: str
    epoch: int
    value: float


@dataclass(frozen=True)
class Revision:
    """A commit, an experiment or the workspace.

    Created by `read_revision`.

    Attributes
    ----------
    name
        Name under which the revision was requested.
    commit
        Abbreviated commit hash; empty for the workspace.
    predictions
        Predictions of the test split.
    threshold
        Decision threshold that the revision chose on its validation split.
    params
        All parameters by dotted key.
    packages
        Recorded version of each package that affects results; empty without environment.yaml.
    stale
        Whether the workspace has changed since its results were computed.
    test_hash
        Hash of the test patch file that was scored, from dvc.lock. Equal hashes mean equal
        patches. Empty if dvc.lock has no entry.
    """

    name: str
    commit: str
    predictions: Predictions
    threshold: float
    params: dict[str, Any]
    packages: dict[str, str]
    stale: bool
    test_hash: str
    _files: FileSystem

    def training_curves(self) -> list[TrainingPoint]:
        """Return the training curves, or an empty list if the revision has none.

        Non-finite values, such as the loss of a diverged training, are omitted.

        Raises
        ------
        RevisionError
            If a table cannot be parsed.
        """
        points = []
        for path in sorted(self._files.glob(f"/{TRAINING_CURVES}/*/*.tsv")):
            split, metric = PurePosixPath(path).parent.name, PurePosixPath(path).stem
            origin = f"{self.name}: {PurePosixPath(TRAINING_CURVES, split, metric)}.tsv"
            text = _read_text(self._files, self.name, path.removeprefix("/"), MAX_METRICS)
            try:
                rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
                values = [(int(row["step"]), float(row[metric])) for row in rows]
            except (csv.Error, KeyError, TypeError, ValueError):
                problem = f"found no numeric columns step and {metric}, expected both"
                raise RevisionError(origin, problem) from None
            points += [
                TrainingPoint(split, metric, epoch, value)
                for epoch, value in values
                if math.isfinite(value)
            ]
        return points

    def test_patches(self, index: NDArray[np.int64]) -> Patches | None:
        """Return (n, 50, 50) uint8 test patches by their rows in the data set.

        Return None if the file is missing or invalid, or lacks any of them.
        """
        with suppress(PatchFileError, *_READ_ERRORS), self._open_test_patches() as patches:
            stored = patches.read_index()
            order = np.argsort(stored)
            rows = order[np.searchsorted(stored, index, sorter=order) % len(stored)]
            if np.array_equal(stored[rows], index):
                return np.concatenate([patches.read(row, row + 1) for row in rows])
        return None

    def test_digests(self) -> dict[int, bytes] | None:
        """Return a digest of the pixels of each test patch, by its row in the data set.

        Return None if the file is missing or invalid.
        """
        with suppress(PatchFileError, *_READ_ERRORS), self._open_test_patches() as patches:
            index = patches.read_index().tolist()
            digests = (
                hashlib.blake2b(patch.tobytes(), digest_size=16).digest()
                for _, block in patches.blocks()
                for patch in block
            )
            return dict(zip(index, digests, strict=True))
        return None

    @contextmanager
    def _open_test_patches(self) -> Iterator[PatchFile]:
        # Download first: the file may be untrusted, and `open_patches` can only check a local file.
        with tempfile.TemporaryDirectory(prefix="nodules-") as folder:
            path = Path(folder) / PurePosixPath(TEST_PATCHES).name
            self._files.get_file(f"/{TEST_PATCHES}", str(path))
            with open_patches(path, labelled=False) as patches:
                yield patches


def compared_names(names: Sequence[str]) -> list[str]:
    """Return the names of the revisions to compare.

    An empty list stands for HEAD and the workspace. A single name is compared with the workspace.

    Raises
    ------
    RevisionError
        If a name occurs twice.
    """
    chosen = list(names) or ["HEAD"]
    if len(chosen) == 1:
        chosen.append(WORKSPACE)
    check_different(chosen)
    return chosen


def read_revisions(names: Sequence[str]) -> list[Revision]:
    """Read the revisions to compare.

    Parameters
    ----------
    names
        Names as for `compared_names`.

    Raises
    ------
    RevisionError
        As in `read_revision`, or if a name occurs twice.
    """
    command = shlex.join(["nodules", "compare", *names, "--make"])
    return [read_revision(name, command=command) for name in compared_names(names)]


def check_different(names: Sequence[str]) -> None:
    """Check that no revision is compared with itself.

    Raises
    ------
    RevisionError
        If a name occurs twice.
    """
    for name in names:
        if names.count(name) > 1:
            raise RevisionError(name, "found twice, expected different revisions")


def read_revision(
    name: str, repository: Path | None = None, *, command: str | None = None
) -> Revision:
    """Read the results and parameters of a revision.

    Parameters
    ----------
    name
        Git revision, name of a DVC experiment, or `workspace`.
    repository
        Root of the repository; by default, the repository of the current folder.
    command
        Command that reproduces the results of a commit, for the message if they are missing; by
        default, the one that compares it with the workspace.

    Raises
    ------
    ResultsMissingError
        If its predictions or metrics are missing. The message names the command that reproduces
        them.
    RevisionError
        If there is no such revision, or its results are invalid.
    NodulesError
        If there is no repository, or git refuses to open it.
    """
    check_name(name)
    with revision_errors(name):
        repo = open_revision(name, repository)
        files = DVCFileSystem(repo)
        commit = "" if name == WORKSPACE else repo.get_rev()
    if name == WORKSPACE:
        _check_regular_files(Path(repo.root_dir), _WORKSPACE_FILES)
        command = "dvc repro"
    elif command is None:
        command = shlex.join(["nodules", "compare", name, "--make"])
    advice = f"reproduce it with: {command}"
    params = _flatten(_read_yaml(files, name, PARAMS))
    packages = {key: str(version) for key, version in _read_yaml(files, name, PACKAGES).items()}
    text = _read_result(files, repo, name, PREDICTIONS, advice, MAX_PREDICTIONS)
    metrics = _read_result(files, repo, name, METRICS, advice, MAX_METRICS)
    try:
        threshold = threshold_in(metrics)
    except ValueError as error:
        raise RevisionError(name, f"{METRICS}: {error}") from None
    predictions = parse_predictions(text, f"{name}: {PREDICTIONS}", split="test")
    with revision_errors(name):
        if name == WORKSPACE:
            _check_regular_files(Path(repo.root_dir), _tracked_files(repo))
        stale = name == WORKSPACE and bool(repo.status())
        test_hash = scored_patches(repo)
    return Revision(
        name, commit[:7], predictions, threshold, params, packages, stale, test_hash, files
    )


def parse_predictions(text: str, origin: str, *, split: str) -> Predictions:
    """Parse the predictions of one split from the text of a predictions.csv.

    Parameters
    ----------
    text
        CSV with the header `split,index,group,label,probability`, and `file` or `candidate`.
    origin
        Name of the file in error messages.
    split
        Name of the split whose rows are kept.

    Raises
    ------
    RevisionError
        If a row is invalid; the message describes the first.
    """
    # newline="" keeps line breaks inside group names.
    table = csv.reader(io.StringIO(text, newline=""))
    rows = []
    grouped = False
    try:
        header = next(table, [])
        extra = header[len(COLUMNS) :]
        if (*COLUMNS, *extra) != tuple(header) or not {*extra} <= {*SOURCES}:
            found = printable(",".join(header), 60) or "no header"
            expected = f"{','.join(COLUMNS)}, then {' or '.join(SOURCES)} if known"
            raise RevisionError(origin, f"found {found}, expected {expected}")
        for row in table:
            parsed = _parse_row(row, f"{origin}: line {table.line_num}", header)
            # Check the rows of all splits: a group may have an empty name.
            grouped = grouped or bool(parsed[1])
            if row[0] == split:
                rows.append(parsed)
    except csv.Error as error:
        problem = f"line {table.line_num}: found invalid CSV ({error}), expected a table"
        raise RevisionError(origin, problem) from None
    rows.sort(key=lambda row: row[0])
    index, groups, labels, probabilities, names = zip(*rows, strict=True) if rows else [()] * 5
    if len(set(index)) < len(index):
        raise RevisionError(origin, f"found a duplicate index in {split}, expected unique ones")
    return Predictions(
        np.array(index, np.int64),
        np.array(groups, object) if grouped else None,
        np.array(labels, np.uint8),
        np.array(probabilities, np.float64),
        names,
    )


def _parse_row(
    row: list[str], place: str, header: Sequence[str]
) -> tuple[int, str, int, float, str]:
    """Parse index, group, label and probability, and name the patch in the user's data."""
    try:
        cells = dict(zip(header, row, strict=True))
        name = source_name(group_of(cells.get("file", "")), cells.get("candidate", ""))
        parsed = (
            int(cells["index"]),
            group_of(cells["group"]),
            int(cells["label"]),
            float(cells["probability"]),
            name,
        )
    except ValueError:
        raise RevisionError(place, f"found an invalid row, expected {','.join(header)}") from None
    if not 0 <= parsed[0] < 2**63:
        raise RevisionError(
            place, f"found index {printable(parsed[0], 60)}, expected a row of the data set"
        )
    if parsed[2] not in (0, 1) or not 0 <= parsed[3] <= 1:
        found = f"label {parsed[2]}, probability {parsed[3]}"
        raise RevisionError(place, f"found {found}, expected label 0 or 1, probability in 0..1")
    return parsed


def check_same_test_set(baseline: Revision, candidate: Revision) -> bool:
    """Check that two revisions were tested on the same patches, as paired tests require.

    Rows, labels, groups and pixels are compared.

    Returns
    -------
    bool
        Whether the pixels were compared. False if a dvc.lock does not list the test patches and
        the file is missing.

    Raises
    ------
    TestSetError
        If the test sets differ. The message says how.
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
    same_groups = _to_list(ours.groups) == _to_list(theirs.groups)
    for column, same in (("label", same_labels), ("group", same_groups)):
        if not same:
            problem = f"found test patches with another {column} than in {baseline.name}"
            raise TestSetError(
                candidate.name, f"{problem}; expected the same test set (did dataset change?)"
            )
    return _check_same_pixels(baseline, candidate)


def _check_same_pixels(baseline: Revision, candidate: Revision) -> bool:
    if baseline.test_hash and baseline.test_hash == candidate.test_hash:
        return True
    # Files with different hashes can hold equal patches: HDF5 versions and data types may differ.
    ours, theirs = baseline.test_digests(), candidate.test_digests()
    index = baseline.predictions.index.tolist()
    if ours is None or theirs is None or not (ours.keys() & theirs.keys() >= set(index)):
        if baseline.test_hash and candidate.test_hash:
            found = f"found another {TEST_PATCHES} than in {baseline.name}, and pixels that are "
            found += "neither in DVC's cache nor on a remote"
            raise TestSetError(candidate.name, f"{found}; expected the same test set")
        return False
    changed = [row for row in index if ours[row] != theirs[row]]
    if changed:
        count = f"{len(changed):,} of {len(index):,} test patches, first in row {changed[0]}"
        problem = f"found pixels that differ from {baseline.name} in {count}"
        raise TestSetError(
            candidate.name, f"{problem}; expected the same test set (did dataset change?)"
        )
    return True


def scored_patches(repository: Repo) -> str:
    """Return the hash of the scored test patches in dvc.lock, or an empty string.

    The hash is that of the dependency of the stage that wrote the predictions, since `split` may
    have been rerun later.
    """
    try:
        (predictions,) = repository.find_outs_by_path(_absolute(repository, PREDICTIONS))
    except DvcException:
        return ""
    stage = predictions.stage
    for data in (*stage.deps, *stage.outs):
        if data.hash_info and repository.fs.abspath(data.fs_path) == _absolute(
            repository, TEST_PATCHES
        ):
            return str(data.hash_info)
    return ""


def _absolute(repository: Repo, path: str) -> str:
    return repository.fs.join(repository.root_dir, *path.split("/"))


def _check_regular_files(folder: Path, paths: Iterable[str]) -> None:
    """Reject pipes and devices in the workspace, which DVC would read forever."""
    for path in paths:
        with suppress(OSError):
            if kind := irregular_kind(folder / path):
                raise RevisionError(WORKSPACE, f"{path}: found {kind}, expected a regular file")


def _tracked_files(repo: Repo) -> Iterator[str]:
    """Yield the paths that `dvc status` reads: the files of all dependencies and outputs."""
    paths = {data.fs_path for data in (*repo.index.deps, *repo.index.outs) if data.is_in_repo}
    for path in map(Path, sorted(paths)):
        files = (file for file in path.rglob("*") if not file.is_dir())
        for file in files if path.is_dir() else [path]:
            yield file.relative_to(repo.root_dir).as_posix()


def _read_result(
    files: FileSystem, repo: Repo, name: str, path: str, advice: str, max_bytes: int
) -> str:
    remote = default_remote(repo)
    try:
        return _read_text(files, name, path, max_bytes)
    except FileNotFoundError:
        # DVC also raises this if the remote does not answer.
        stores = f"{'the workspace' if name == WORKSPACE else 'git'} or DVC's cache"
        elsewhere = f", nor on the remote {remote}" if remote else " (no remote is configured)"
        found = f"not found in {stores}{elsewhere}"
    except _READ_ERRORS as error:
        found = f"cannot be read ({first_line(error)})"
    if remote:
        fetch = f"dvc pull {path}" if name == WORKSPACE else "dvc fetch --all-commits"
        advice = f"get it with: {fetch}, or {advice}"
    problem = f"{found}, expected the file of `dvc repro`"
    raise ResultsMissingError(name, f"{path}: {problem}; {advice}")


def _read_yaml(files: FileSystem, name: str, path: str) -> dict[Any, Any]:
    """Read a mapping, or return an empty one if there is no such file."""
    try:
        with revision_errors(name):
            content = parse_yaml(_read_text(files, name, path, MAX_YAML), path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # such as a date in month 13
        problem = f"{path}: cannot be read ({first_line(error)}), expected YAML"
        raise RevisionError(name, problem) from None
    if not isinstance(content, dict):
        problem = f"{path}: found a {type(content).__name__}, expected `name: value` per line"
        raise RevisionError(name, problem)
    return content


def _read_text(files: FileSystem, name: str, path: str, max_bytes: int) -> str:
    """Read a text file of limited size, keeping its line endings.

    The path is relative to the folder of DVC.
    """
    with files.open(f"/{path}", "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise RevisionError(
            name, f"{path}: found more than {max_bytes:,} bytes, expected at most that many"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        problem = f"{path}: found invalid UTF-8 at byte {error.start}, expected text"
        raise RevisionError(name, problem) from None


def _to_list(values: NDArray | None) -> list | None:
    return None if values is None else values.tolist()


def _flatten(params: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
