"""The errors a person can mend: each is one sentence that says where, what and what instead."""

from pathlib import Path
from typing import Any


class NodulesError(Exception):
    """Base of every error that is the input's fault and not the program's."""

    def __reduce__(self) -> tuple[Any, ...]:
        # From a worker process comes the finished sentence, which __init__ would not take.
        return type(self).__new__, (type(self), *self.args)


class ParamsError(NodulesError):
    """A parameter is missing, unknown, of the wrong type or out of range."""

    def __init__(self, path: Path, key: str, problem: str) -> None:
        super().__init__(f"{path}: {key}: {problem}" if key else f"{path}: {problem}")


class PatchFileError(NodulesError):
    """A patch file breaks the layout that the README describes."""

    def __init__(self, path: Path, problem: str, *, dataset: str = "", row: int = -1) -> None:
        place = f"{path}: {dataset}" if dataset else f"{path}"
        place = f"{place}: row {row}" if row >= 0 else place
        super().__init__(f"{place}: {problem}")


class SplitError(NodulesError):
    """The patches cannot be divided as asked."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class ModelFileError(NodulesError):
    """A file is not a model that this pipeline saved."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class ScoringError(NodulesError):
    """What a network makes of patches is no probability."""


class OutputError(NodulesError):
    """A file cannot be written where it is asked for."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class RevisionError(NodulesError):
    """A commit, experiment or the workspace lacks what a comparison needs."""

    def __init__(self, revision: str, problem: str) -> None:
        super().__init__(f"{revision}: {problem}")


class ResultsMissingError(RevisionError):
    """The results of a revision are in no place that DVC knows."""


class TestSetError(RevisionError):
    """Two revisions were not tested on the same patches."""

    __test__ = False  # pytest takes every Test... for a test


class CommentError(NodulesError):
    """A report cannot be posted on a pull request."""


class TableError(NodulesError):
    """A CSV file of points in scans breaks the layout of LUNA16."""

    def __init__(self, path: Path, problem: str, *, row: int = -1) -> None:
        place = f"{path}: row {row} (the first after the header is 0)" if row >= 0 else f"{path}"
        super().__init__(f"{place}: {problem}")


class ScanError(NodulesError):
    """A scan is missing or cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class ImageError(NodulesError):
    """An image, or a folder of images, is not what a class of patches can be made of."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class GroupError(NodulesError):
    """Scans or patients cannot be read off file names as asked."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"--group: {problem}")


class CropError(NodulesError):
    """Patches cannot be cut from scans or images as asked."""


class WorkerError(NodulesError):
    """Worker processes, on this machine or on a Dask cluster, cannot do the work."""


class MemoryLimitError(NodulesError):
    """A limit on memory leaves too little to start with."""


class TrainingError(NodulesError):
    """Training cannot go on."""
