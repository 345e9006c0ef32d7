"""Find patches that show the same part of a scan: equal, rotated, reflected or shifted.

Two patches are *exact duplicates* if one equals a symmetric view of the other; patches of a single
grey level are ignored. Two patches are *near-duplicates* if, for one of the eight symmetries and a
shift that leaves at least half of the patch, their overlap differs by at most `MAX_RMS` grey levels
(root mean square) and its fine detail has a correlation of at least `MIN_CORRELATION`. Patches
without a distinctive spot, such as air or plain tissue, are never near-duplicates.

The limits were measured on 6,483 LUNA16 patches. For pairs close together in the list of
candidates, every shift up to 12 pixels was tried. Pairs from one slice differ by 2 to 4 grey levels
and correlate at 0.89 to 0.99; neighbouring slices of one nodule differ by 10 to 30 grey levels and
correlate at 0.6 to 0.87. Of 6,000 pairs far apart in the list, none reached 0.65 at any shift or
symmetry. The correlation of the grey levels themselves does not separate the pairs: if both patches
show a straight edge, it exceeds 0.95 even for unrelated ones.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.patches.layout import PATCH_SIZE, SPLITS, Patches
from nodules.patches.reader import PatchFile
from nodules.patches.symmetry import symmetric_view
from nodules.splitting.fingerprints import (
    CODE_VIEWS,
    KEYPOINT,
    PIXEL_VIEWS,
    fingerprints,
    invariant_codes,
    smoothing,
)

MAX_RMS = 8.0
MIN_CORRELATION = 0.8
MIN_OVERLAP = 0.5
# Standard deviation of the blur that is subtracted to obtain the fine detail, in pixels.
DETAIL_SCALE = 2.0
# Root mean square difference between the codes of two keypoints. It is at most 0.7 for the pairs of
# one slice above, whose pixels JPEG had rounded, and rarely below 4 between different scans.
MAX_CODE_RMS = 2.0
# Number of principal components in the search. Dropping components only decreases distances.
COMPONENTS = 24
# Matches per keypoint that a search returns.
NEIGHBOURS = 16
BLOCK_PATCHES = 512
# Keypoints in the index at a time, so that memory does not grow with the data set.
INDEXED_KEYPOINTS = 2**18
KEYPOINTS_PER_CELL = 256
# With noise of 0.7 grey levels, searching 2 of 1,024 cells found 99.9% of the codes; searching 8
# found all, in 2.5 times the time. A pair has up to six keypoints to be found by.
CELLS_PROBED = 2
# With fewer cells, exhaustive search is as fast.
MIN_CELLS = 16
VERIFIED_AT_ONCE = 512
# Largest gap between wanted rows that is read along; compressed files store such rows together.
MAX_GAP = 32

DETAIL = smoothing(DETAIL_SCALE)
# (8, 2500) position of each pixel in each view.
PLACES = np.argsort(PIXEL_VIEWS, axis=1)


class Pair(NamedTuple):
    """Two near-duplicates.

    Attributes
    ----------
    first, second
        Row numbers; `first` is the smaller.
    view
        View of `second` that matches `first`, as in `symmetric_view`.
    down, right
        Shift in pixels: pixel (y, x) of that view matches (y + down, x + right) of `first`.
    rms, correlation
        Root mean square difference in grey levels, and correlation of fine detail, both over the
        overlap.
    """

    first: int
    second: int
    view: int
    down: int
    right: int
    rms: float
    correlation: float


@dataclass(frozen=True)
class Duplicates:
    """Duplicates in a data set.

    Attributes
    ----------
    copies
        (N,) int32: for each patch, the first row of which it is an exact duplicate, or its own row.
    pairs
        Near-duplicates among those first rows.
    """

    copies: NDArray[np.int32]
    pairs: list[Pair]

    def joined(self) -> NDArray[np.int32]:
        """Return (N,) numbers, equal for patches that a chain of duplicates connects.

        >>> pair = Pair(0, 3, view=0, down=0, right=0, rms=0.0, correlation=1.0)
        >>> Duplicates(np.array([0, 1, 0, 3, 4], np.int32), [pair]).joined().tolist()
        [0, 1, 0, 0, 2]
        """
        rows = np.arange(len(self.copies))
        first = np.concatenate([self.copies, [pair.first for pair in self.pairs]]).astype(np.int32)
        second = np.concatenate([rows, [pair.second for pair in self.pairs]]).astype(np.int32)
        return connected(first, second, len(rows))


def connected(first: NDArray, second: NDArray, count: int) -> NDArray[np.int32]:
    """Return the number of each node's connected component in an undirected graph.

    Parameters
    ----------
    first, second
        (m,) ends of the edges.
    count
        Number of nodes.

    Returns
    -------
    (count,) int32
    """
    # Imported here, since only `together` needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def find_duplicates(patches: PatchFile, assignment: NDArray[np.int8] | None = None) -> Duplicates:
    """Search a data set for duplicates.

    faiss finds keypoints with similar codes, whose pixels are then compared. The keypoints are
    stored in a temporary file: 55 bytes each, up to six per patch.

    Parameters
    ----------
    patches
        Open patch file.
    assignment
        (N,) indices in `SPLITS`. If given, only near pairs that may span two splits are searched
        for, which is faster if most patches are in train.

    Returns
    -------
    Duplicates
        Deterministic for a file. A pair whose keypoints all have more than `NEIGHBOURS` matches
        may be missing, but its patches are still connected through others.

    Raises
    ------
    PatchFileError
        If a value of `X` breaks the layout.
    """
    count = len(patches)
    hashes = np.empty(count, dtype=np.uint64)
    uniform = np.empty(count, dtype=np.bool_)
    with tempfile.TemporaryFile() as file:
        with tqdm(total=count, desc="fingerprints", unit="patch") as progress:
            for start, block in patches.blocks(BLOCK_PATCHES):
                found = fingerprints(block, start)
                rows = slice(start, start + len(block))
                hashes[rows], uniform[rows] = found.hashes, found.uniform
                file.write(found.keypoints.tobytes())  # `tofile` does not report a full disk
                progress.update(len(block))
        copies = _first_copies(hashes, uniform)
        held_out = np.ones(count, dtype=np.bool_)
        if assignment is not None:
            held_out[:] = False
            held_out[copies[assignment != SPLITS.index("train")]] = True
        distinct = copies == np.arange(count)
        candidates = _candidates(_Keypoints(file), distinct, held_out)
    return Duplicates(copies, _verified(patches, candidates))


def _first_copies(hashes: NDArray[np.uint64], uniform: NDArray[np.bool_]) -> NDArray[np.int32]:
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return np.where(uniform, np.arange(len(hashes)), first[inverse]).astype(np.int32)


class _Keypoints:
    """Keypoints stored in a temporary file, in order of patch."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._count = file.seek(0, 2) // KEYPOINT.itemsize

    def __len__(self) -> int:
        return self._count

    def blocks(self, size: int = 2**14) -> Iterator[NDArray]:
        for start in range(0, self._count, size):
            yield self._read(start, min(size, self._count - start))

    def _read(self, start: int, count: int) -> NDArray:
        self._file.seek(start * KEYPOINT.itemsize)
        return np.frombuffer(self._file.read(count * KEYPOINT.itemsize), dtype=KEYPOINT)


def _candidates(
    keypoints: _Keypoints, distinct: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> NDArray:
    """Find pairs of patches with keypoints whose codes match under a symmetry.

    Both patches are in `distinct`, and at least one of them is in `held_out`. The result has one
    int32 row (first, second, view, down, right) per alignment, in sorted order.
    """
    found = []
    wanted = distinct & held_out
    indexed = sum(int(wanted[block["row"]].sum()) for block in keypoints.blocks())
    if indexed:
        rounds = -(-indexed // INDEXED_KEYPOINTS)
        with tqdm(total=rounds * len(keypoints), desc="matches", unit="keypoint") as progress:
            for part in _parts(keypoints, wanted):
                index = _index(invariant_codes(part["code"]))
                for block in keypoints.blocks():
                    queries = block[distinct[block["row"]]]
                    if len(queries):
                        found.append(_matches(index, part, queries))
                    progress.update(len(block))
    if not found:
        return np.empty((0, 5), dtype=np.int32)
    return np.unique(np.concatenate(found), axis=0)


def _parts(keypoints: _Keypoints, wanted: NDArray[np.bool_]) -> Iterator[NDArray]:
    """Yield the keypoints of the wanted patches in parts of `INDEXED_KEYPOINTS`."""
    waiting = np.empty(0, dtype=KEYPOINT)
    for block in keypoints.blocks():
        waiting = np.concatenate([waiting, block[wanted[block["row"]]]])
        if len(waiting) >= INDEXED_KEYPOINTS:
            yield waiting[:INDEXED_KEYPOINTS]
            waiting = waiting[INDEXED_KEYPOINTS:]
    if len(waiting):
        yield waiting


def _index(vectors: NDArray[np.float32]) -> faiss.Index:
    """Build an index of (m, 49) invariant codes that searches their first principal components."""
    size = vectors.shape[1]
    cells = min(len(vectors) // KEYPOINTS_PER_CELL, 1024)
    if cells < MIN_CELLS:
        index: Any = faiss.index_factory(size, "Flat")
    else:
        index = faiss.index_factory(size, f"PCA{COMPONENTS},IVF{cells},Flat")
        inverted_file = faiss.extract_index_ivf(index)
        inverted_file.nprobe = CELLS_PROBED
        inverted_file.cp.seed = 1
        inverted_file.cp.niter = 10
        step = max(1, len(vectors) // (64 * cells))
        index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    return index


def _matches(index: faiss.Index, part: NDArray, queries: NDArray) -> NDArray[np.int32]:
    """Return (first, second, view, down, right) for each keypoint that matches a query."""
    neighbours = min(NEIGHBOURS, index.ntotal)
    distances, numbers = index.search(invariant_codes(queries["code"]), neighbours)
    cells = part["code"].shape[1]
    query, rank = np.nonzero((distances <= cells * MAX_CODE_RMS**2) & (numbers >= 0))
    one, other = queries[query], part[numbers[query, rank]]
    swapped = one["row"] > other["row"]
    one, other = np.where(swapped, other, one), np.where(swapped, one, other)
    different = one["row"] != other["row"]
    one, other = one[different], other[different]
    errors = np.stack(
        [
            ((one["code"].astype(np.int32) - other["code"][:, order]) ** 2).mean(axis=1)
            for order in CODE_VIEWS
        ]
    )
    view = errors.argmin(axis=0)
    y, x = np.divmod(PLACES[view, other["y"].astype(np.intp) * PATCH_SIZE + other["x"]], PATCH_SIZE)
    found = np.stack([one["row"], other["row"], view, one["y"] - y, one["x"] - x], axis=1)
    shared = (PATCH_SIZE - np.abs(found[:, 3])) * (PATCH_SIZE - np.abs(found[:, 4]))
    keep = (errors.min(axis=0) <= MAX_CODE_RMS**2) & (shared >= MIN_OVERLAP * PATCH_SIZE**2)
    return found[keep].astype(np.int32)


def _verified(patches: PatchFile, candidates: NDArray[np.int32]) -> list[Pair]:
    best: dict[tuple[int, int], Pair] = {}
    starts = range(0, len(candidates), VERIFIED_AT_ONCE)
    for start in tqdm(starts, desc="pixel check", unit="batch", disable=not len(candidates)):
        batch = candidates[start : start + VERIFIED_AT_ONCE]
        rows = np.unique(batch[:, :2])
        pixels = dict(zip(rows.tolist(), _read_rows(patches, rows), strict=True))
        for first, second, view, down, right in batch.tolist():
            pair = compare(pixels[first], pixels[second], view, down, right)
            known = best.get((first, second))
            if pair and (known is None or pair.correlation > known.correlation):
                best[first, second] = pair._replace(first=first, second=second)
    return list(best.values())


def compare(first: Patches, second: Patches, view: int, down: int, right: int) -> Pair | None:
    """Compare the pixels of two patches at one alignment.

    Parameters
    ----------
    first, second
        (50, 50) uint8.
    view, down, right
        As in `Pair`.

    Returns
    -------
    Pair or None
        Pair with rows 0 and 1; None if the patches are not near-duplicates.
    """
    whole, turned = first.astype(np.float32), symmetric_view(second, view).astype(np.float32)
    here, there = _shared(down, right), _shared(-down, -right)
    rms = float(np.sqrt(np.mean((whole[here] - turned[there]) ** 2)))
    if rms > MAX_RMS:
        return None
    one = (whole - DETAIL @ whole @ DETAIL.T)[here]
    other = (turned - DETAIL @ turned @ DETAIL.T)[there]
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    correlation = float((one * other).sum()) / scale if scale else 0.0
    if correlation < MIN_CORRELATION:
        return None
    return Pair(0, 1, view, down, right, rms, correlation)


def _shared(down: int, right: int) -> tuple[slice, slice]:
    """Return the slices of a patch that overlap another, shifted by `down` and `right`."""
    return tuple(slice(max(0, by), PATCH_SIZE + min(0, by)) for by in (down, right))  # type: ignore[return-value]


def _read_rows(patches: PatchFile, rows: NDArray) -> Iterator[Patches]:
    """Yield the patches of ascending rows; read rows close together in one call."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > MAX_GAP) + 1):
        block = patches.read(int(run[0]), int(run[-1]) + 1)
        yield from block[run - run[0]].copy()
