"""Errors that a person can fix: each is one sentence with the place, what is wrong and what to do.

A class of its own has what some code catches by name, or what builds its sentence from other parts.
"""

from pathlib import Path
from typing import Any


class NodulesError(Exception):
    """Base of all errors that the input causes, and not the program."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process sends the finished sentence, which __init__ would not take.
        return type(self).__new__, (type(self), *self.args)


class FileError(NodulesError):
    """A file cannot be read, written or used as asked."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class SplitError(FileError):
    """The patches of a file cannot be divided as asked."""


class PatchFileError(NodulesError):
    """A patch file breaks the layout that `nodules.patches.layout` describes."""

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
    """The results of a revision are in no place that DVC knows."""


class TestSetError(RevisionError):
    """Two revisions were not tested on the same patches."""

    __test__ = False  # pytest collects classes named Test...


class ScoringError(NodulesError):
    """The outputs of a network are no probabilities."""


class TrainingError(NodulesError):
    """A training cannot continue."""
