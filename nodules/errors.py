"""The errors a person can mend: each is one sentence that says where, what and what instead."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NodulesError(Exception):
    """Base of every error that is the input's fault and not the program's."""


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


class OutputError(NodulesError):
    """A file cannot be written where it is asked for."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class RevisionError(NodulesError):
    """A commit, experiment or the workspace lacks what a comparison needs."""

    def __init__(self, revision: str, problem: str) -> None:
        super().__init__(f"{revision}: {problem}")


class TrainingError(NodulesError):
    """Training cannot go on."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `NodulesError` into its sentence on stderr and exit status 1.

    Anything else is a bug and keeps its traceback.
    """
    try:
        yield
    except NodulesError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
