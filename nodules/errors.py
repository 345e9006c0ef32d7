"""The errors a person can mend: each is one sentence that says where, what and what instead."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodules.interruption import raised_interruptions, sentence_of, signal_of


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


class TrainingError(NodulesError):
    """Training cannot go on."""


# What a person can mend outside the program: a full or read-only disk, a quota, a broken device.
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can mend, or has asked for, into one sentence on stderr.

    A `NodulesError` and a full or read-only disk exit with status 1, Ctrl-C with 130 and SIGTERM
    with 143, as shells count signals. Notes on the exception follow after a semicolon. Anything
    else is a bug and keeps its traceback.
    """
    try:
        with raised_interruptions():
            yield
    except NodulesError as error:
        _exit(error, str(error), 1)
    except KeyboardInterrupt as interruption:
        number = signal_of(interruption)
        _exit(interruption, sentence_of(number), 128 + number)
    except Exception as error:
        problem = _storage_problem(error)
        if problem is None:
            raise
        _exit(error, problem, 1)


def _exit(error: BaseException, sentence: str, status: int) -> None:
    notes = getattr(error, "__notes__", [])
    print("; ".join([f"error: {sentence}", *notes]), file=sys.stderr)
    raise SystemExit(status) from None


def _storage_problem(error: BaseException | None) -> str | None:
    """Say what the storage refused; writers such as HDF5's fail once more as they are closed."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number is None and (match := re.search(r"errno = (\d+)", str(error))):
            number = int(match[1])
        if number in _STORAGE_ERRORS:
            place = getattr(error, "filename", None)
            problem = os.strerror(number)
            return f"{place}: {problem}" if place else f"an output cannot be written: {problem}"
        error = error.__cause__ or error.__context__
    return None
