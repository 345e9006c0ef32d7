"""What commits, experiments and the workspace hold, read through DVC: predictions, metrics, params.

A file of a revision is found by DVC wherever it is: in git, in DVC's cache, on the remote, or, for
the workspace, on disk.
"""

import csv
import hashlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from nodules.evaluation.predictions import COLUMNS, group_of
from nodules.patches.layout import Labels, Patches
from nodules.patches.reader import PatchFile, open_patches
from nodules.system.regular_file import irregular_kind
from nodules.system.streams import printable

WORKSPACE = "workspace"
PREDICTIONS = "data/predictions.csv"
METRICS = "metrics/evaluate/metrics.json"
TEST_PATCHES = "data/splits/test.h5"
TRAINING_CURVES = "metrics/train/plots/metrics"

# Of the workspace, before DVC opens it.
_READ_FIRST = (PREDICTIONS, METRICS, TEST_PATCHES, "params.yaml", "dvc.yaml", "dvc.lock")

# What DVC raises where a file is in no place that it knows, or a place cannot be reached.
_UNREADABLE = (OSError, DvcException)

# Bytes of text that are read of a revision: predictions of some two million patches, and far more
# metrics and epochs than there are.
MAX_PREDICTIONS = 100_000_000
MAX_METRICS = 1_000_000


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
    test_hash
        Of the file of test patches that was scored, as dvc.lock records it: equal hashes mean
        equal patches. Empty where it records none.
    """

    name: str
    commit: str
    predictions: Predictions
    threshold: float
    params: dict[str, Any]
    stale: bool
    test_hash: str
    _files: FileSystem

    def training_curves(self) -> list[TrainingPoint]:
        """Read what `dvc plots` shows of the training; empty where the revision has none.

        Values that are no numbers, such as the loss of a training that failed, are left out.

        Raises
        ------
        RevisionError
            If a table is broken.
        """
        points = []
        for path in sorted(self._files.glob(f"{TRAINING_CURVES}/*/*.tsv")):
            split, metric = PurePosixPath(path).parent.name, PurePosixPath(path).stem
            origin = f"{self.name}: {PurePosixPath(TRAINING_CURVES, split, metric)}.tsv"
            text = _read_text(self._files, self.name, path, MAX_METRICS)
            try:
                rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
                read = [(int(row["step"]), float(row[metric])) for row in rows]
            except (csv.Error, KeyError, TypeError, ValueError):
                problem = f"found no table of step and {metric}, expected one"
                raise RevisionError(origin, problem) from None
            points += [
                TrainingPoint(split, metric, epoch, value)
                for epoch, value in read
                if math.isfinite(value)
            ]
        return points

    def test_patches(self, index: NDArray[np.int64]) -> Patches | None:
        """Read (n, 50, 50) uint8 test patches by their rows in the data set.

        None where the file is in no place that DVC knows, is broken, or does not hold all of them.
        """
        with suppress(PatchFileError, *_UNREADABLE), self._open_test_patches() as patches:
            known = patches.read_index()
            order = np.argsort(known)
            rows = order[np.searchsorted(known, index, sorter=order) % len(known)]
            if np.array_equal(known[rows], index):
                return np.concatenate([patches.read(row, row + 1) for row in rows])
        return None

    def test_digests(self) -> dict[int, bytes] | None:
        """Compute a digest of the pixels of each test patch, by its row in the data set.

        None where the file is in no place that DVC knows, or is broken.
        """
        with suppress(PatchFileError, *_UNREADABLE), self._open_test_patches() as patches:
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
        # It may come from a remote, and HDF5 reads what is not trusted from a file alone.
        with tempfile.TemporaryDirectory(prefix="nodules-") as folder:
            path = Path(folder) / PurePosixPath(TEST_PATCHES).name
            self._files.get_file(TEST_PATCHES, str(path))
            with open_patches(path, labelled=False) as patches:
                yield patches


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
    _check_named(name)
    with _readable(name):
        return _opened(name)[1].get_rev()


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
    _check_named(name)
    if name == WORKSPACE:
        _check_regular(repository or Path(), _READ_FIRST)
    root = None if repository is None else str(repository)
    with _readable(name):
        files, repo = _opened(name, root)
        commit = "" if name == WORKSPACE else repo.get_rev()
        params = params_show("params.yaml", repo=root, rev=commit or None)
    way = f"git switch --detach {commit[:7]} && dvc repro" if commit else "dvc repro"
    text = _read(files, name, PREDICTIONS, way, MAX_PREDICTIONS)
    threshold = _threshold(name, _read(files, name, METRICS, way, MAX_METRICS))
    predictions = parse_predictions(text, f"{name}: {PREDICTIONS}", split="test")
    with _readable(name):
        if name == WORKSPACE:
            _check_regular(Path(repo.root_dir), _followed(repo))
        stale = name == WORKSPACE and bool(repo.status())
        test_hash = scored_patches(repo)
    return Revision(
        name, commit[:7], predictions, threshold, _flat(params), stale, test_hash, files
    )


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
    # Line ends inside of a group's name are kept.
    table = csv.reader(io.StringIO(text, newline=""))
    rows = []
    grouped = False
    try:
        header = next(table, [])
        if tuple(header) != COLUMNS:
            found = printable(",".join(header), 60) or "nothing"
            raise RevisionError(origin, f"found the columns {found}, expected {','.join(COLUMNS)}")
        for row in table:
            parsed = _parse_row(row, f"{origin}: line {table.line_num}")
            # Of any split: one of its groups may have an empty name.
            grouped = grouped or bool(parsed[1])
            if row[0] == split:
                rows.append(parsed)
    except csv.Error as error:
        problem = f"line {table.line_num}: found no table ({error}), expected one"
        raise RevisionError(origin, problem) from None
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


def _parse_row(row: list[str], place: str) -> tuple[int, str, int, float]:
    """Parse index, group, label and probability."""
    try:
        _, index, group, label, probability = row
        parsed = int(index), group_of(group), int(label), float(probability)
    except ValueError:
        raise RevisionError(place, "found no numbers, expected some") from None
    if not 0 <= parsed[0] < 2**63:
        raise RevisionError(
            place, f"found index {printable(index, 60)}, expected a row of the data set"
        )
    if parsed[2] not in (0, 1) or not 0 <= parsed[3] <= 1:
        found = f"label {parsed[2]}, probability {parsed[3]}"
        raise RevisionError(place, f"found {found}, expected label 0 or 1, probability in 0..1")
    return parsed


def check_same_test_set(baseline: Revision, candidate: Revision) -> bool:
    """Refuse revisions that were not tested on the same patches.

    Rows, labels, groups and pixels are compared.

    Returns
    -------
    bool
        Whether the pixels could be compared: False where a dvc.lock does not name the test
        patches, and they are in no place that DVC knows.

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
    return _check_same_pixels(baseline, candidate)


def _check_same_pixels(baseline: Revision, candidate: Revision) -> bool:
    if baseline.test_hash and baseline.test_hash == candidate.test_hash:
        return True
    # The same patches may lie in another file: of another version of HDF5, or with other types.
    ours, theirs = baseline.test_digests(), candidate.test_digests()
    index = baseline.predictions.index.tolist()
    if ours is None or theirs is None or not (ours.keys() & theirs.keys() >= set(index)):
        if baseline.test_hash and candidate.test_hash:
            found = f"found another {TEST_PATCHES} than that of {baseline.name}, and no pixels of "
            found += "both in DVC's cache or on a remote"
            raise TestSetError(candidate.name, f"{found}; expected the same test set")
        return False
    other = [row for row in index if ours[row] != theirs[row]]
    if other:
        found = f"found other pixels than in {baseline.name} in {len(other):,} of {len(index):,}"
        expected = "expected the same test set (did dataset change?)"
        raise TestSetError(
            candidate.name, f"{found} test patches, first in row {other[0]}; {expected}"
        )
    return True


def scored_patches(repository: Repo) -> str:
    """Return the hash by which dvc.lock names the test patches that the predictions are of.

    That is the dependency of the stage that made them: `split` may have run once more since then.
    """
    try:
        (predictions,) = repository.find_outs_by_path(_in(repository, PREDICTIONS))
    except DvcException:
        return ""
    stage = predictions.stage
    for data in (*stage.deps, *stage.outs):
        if data.hash_info and repository.fs.abspath(data.fs_path) == _in(repository, TEST_PATCHES):
            return str(data.hash_info)
    return ""


def _in(repository: Repo, path: str) -> str:
    return repository.fs.join(repository.root_dir, *path.split("/"))


def _check_named(name: str) -> None:
    if not name:
        raise RevisionError("revision", "found an empty name, expected a commit or a branch")
    try:
        name.encode()
    except UnicodeEncodeError:  # Python could not decode it
        encoding = sys.getfilesystemencoding()
        problem = f"found letters that are not in the encoding of the locale ({encoding})"
        raise RevisionError(name, f"{problem}, expected such ones, or a commit's hash") from None


def _check_regular(folder: Path, paths: Iterable[str]) -> None:
    """Refuse pipes and devices in the workspace, which DVC would read without an end."""
    for path in paths:
        with suppress(OSError):
            if kind := irregular_kind(folder / path):
                raise RevisionError(WORKSPACE, f"{path}: found {kind}, expected a regular file")


def _followed(repo: Repo) -> Iterator[str]:
    """Yield what `dvc status` reads: the files of all dependencies and outputs."""
    places = {data.fs_path for data in (*repo.index.deps, *repo.index.outs) if data.is_in_repo}
    for place in map(Path, sorted(places)):
        files = (path for path in place.rglob("*") if not path.is_dir())
        for path in files if place.is_dir() else [place]:
            yield path.relative_to(repo.root_dir).as_posix()


def _opened(name: str, root: str | None = None) -> tuple[DVCFileSystem, Repo]:
    """Open the files of a revision, or of the workspace."""
    try:
        files = DVCFileSystem(root, rev=None if name == WORKSPACE else name)
        return files, files.repo  # which is opened when it is asked for
    except (AttributeError, ValueError):
        # pygit2's, for what names a file or a folder of a commit, and for an impossible name.
        raise RevError(name) from None


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


def _read(files: FileSystem, name: str, path: str, way: str, most: int) -> str:
    try:
        return _read_text(files, name, path, most)
    except FileNotFoundError:
        places = "in DVC's cache nor on a remote"
        if name == WORKSPACE and Repo().config["core"].get("remote"):
            way = f"dvc pull {path}, or {way}"
        problem = f"{path} is neither {places}"
        raise ResultsMissingError(name, f"{problem}; get it with: {way}") from None
    except _UNREADABLE as error:
        problem = f"{path} cannot be had ({_first_line(error)})"
        raise ResultsMissingError(name, f"{problem}; get it with: dvc pull, or {way}") from None


def _read_text(files: FileSystem, name: str, path: str, most: int) -> str:
    """Read a text with its line ends as they are, unless it is longer than any real one."""
    with files.open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RevisionError(name, f"{path}: found over {most:,} bytes, expected at most as many")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        problem = f"{path}: found no UTF-8 at byte {error.start}, expected text"
        raise RevisionError(name, problem) from None


def _threshold(name: str, metrics: str) -> float:
    try:
        found = json.loads(metrics)["threshold"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RevisionError(name, f"{METRICS}: found no threshold, expected a number") from None
    if isinstance(found, bool) or not isinstance(found, float | int) or not -1e9 < found < 1e9:
        problem = f"threshold: found {printable(repr(found), 60)}, expected a number"
        raise RevisionError(name, f"{METRICS}: {problem}")
    return float(found)


def _listed(values: NDArray | None) -> list | None:
    return None if values is None else values.tolist()


def _flat(params: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
