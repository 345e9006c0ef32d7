"""Errors that the user can fix. Each message is one sentence: place, what was found and expected.

An error has its own class if code catches it by name or its message has other parts.
"""

from pathlib import Path
from typing import Any


class NodulesError(Exception):
    """Base of all errors caused by the input, not by a bug."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes send the finished message, which __init__ does not accept.
        return type(self).__new__, (type(self), *self.args)


class FileError(NodulesError):
    """A file cannot be read, written or used as requested."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class SplitError(FileError):
    """The patches of a file cannot be split as requested."""


class PatchFileError(NodulesError):
    """A patch file breaks the layout described in `nodules.patches.layout`."""

    def __init__(self, path: Path, problem: str, *, dataset: str = "", row: int = -1) -> None:
        place = f"{path}: {dataset}" if dataset else f"{path}"
        place = f"{place}: row {row}" if row >= 0 else place
        super().__init__(f"{place}: {problem}")


class TableError(NodulesError):
    """A CSV file of points in scans breaks the layout of LUNA16."""

    def __init__(self, path: Path, problem: str, *, row: int = -1) -> None:
        place = f"{path}: row {row} (the first after the header is 0)" if row >= 0 else f"{path}"
        super().__init__(f"{place}: {problem}")


class ParamsError(NodulesError):
    """A parameter is missing, unknown, of the wrong type or out of range."""

    def __init__(self, path: Path, key: str, problem: str) -> None:
        super().__init__(f"{path}: {key}: {problem}" if key else f"{path}: {problem}")


class RevisionError(NodulesError):
    """A commit, experiment or the workspace lacks what a comparison needs."""

    def __init__(self, revision: str, problem: str) -> None:
        super().__init__(f"{revision}: {problem}")


class ResultsMissingError(RevisionError):
    """The results of a revision are missing from every place that DVC knows."""


class TestSetError(RevisionError):
    """Two revisions were not tested on the same patches."""

    __test__ = False  # pytest collects classes named Test...


class ScoringError(NodulesError):
    """The outputs of a network are not probabilities."""


class TrainingError(NodulesError):
    """A training cannot continue."""
