"""The errors a person can mend: each is one sentence that says where, what and what instead."""

import errno
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from nodules.system.signals import raised_interruptions, sentence_of, signal_of
from nodules.system.streams import (
    CLOSED_PIPE,
    StandardOutputError,
    delivered_output,
    prepare_streams,
    printable,
)


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
        super().__init__(f"{printable(path)}: {problem}")


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


# What a person can mend outside the program: a full or read-only disk, a quota, a broken device, a
# name that no file can have, a file of somebody else. No bug in here leads to one of them.
_OUTSIDE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
)
# What libraries say instead of raising MemoryError.
_NO_MEMORY = re.compile(
    "cannot allocate memory|memory allocation failed|failed to map segment|unable to allocate|"
    "can't start new thread|out of memory|OOM when allocating",
    re.IGNORECASE,
)
# What `tempfile` says where it finds no folder to write in.
_NO_TEMPORARY_FOLDER = "No usable temporary directory"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can mend, or has asked for, into one sentence on stderr.

    A `NodulesError`, a full or read-only disk and exhausted memory exit with status 1, Ctrl-C with
    130 and SIGTERM with 143, as shells count signals, and a closed pipe quietly with 141. Notes on
    the exception follow after a semicolon. Anything else is a bug and keeps its traceback.
    """
    prepare_streams()
    try:
        with raised_interruptions(), delivered_output():
            yield
    except NodulesError as error:
        exit_in_one_line(str(error), cause=error)
    except StandardOutputError as error:
        if error.pipe_closed:
            raise SystemExit(CLOSED_PIPE) from None
        exit_in_one_line(str(error))
    except KeyboardInterrupt as interruption:
        number = signal_of(interruption)
        exit_in_one_line(sentence_of(number), 128 + number, cause=interruption)
    except Exception as error:
        problem = outside_problem(error)
        if problem is None:
            raise
        exit_in_one_line(problem, cause=error)


def exit_in_one_line(
    sentence: str, status: int = 1, *, cause: BaseException | None = None
) -> NoReturn:
    """Print `error:`, a sentence and the notes on its cause as one printable line, and exit."""
    notes = getattr(cause, "__notes__", [])
    print(printable("; ".join([f"error: {sentence}", *notes])), file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def exit_in_one_line_at_import() -> None:
    """End in one line if libraries cannot be loaded for want of memory.

    A program imports them before it enters `one_line_errors`.
    """

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        problem = str(error) if isinstance(error, NodulesError) else outside_problem(error)
        if problem is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(printable(f"error: {problem}"), file=sys.stderr, flush=True)

    sys.excepthook = end


def outside_problem(error: BaseException | None) -> str | None:
    """Return what a system or its user can mend about an exception; None where it is a bug.

    Writers such as HDF5's fail once more as they are closed, so the causes are looked at too.
    """
    while error is not None:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return f"out of memory{_memory_limit()}"
        if isinstance(error, FileNotFoundError) and _NO_TEMPORARY_FOLDER in str(error):
            return f"{error.strerror}, expected one to write in; TMPDIR can name it"
        number = getattr(error, "errno", None)
        if number is None and (match := re.search(r"errno = (\d+)", str(error))):
            number = int(match[1])
        if number == errno.ENOMEM:
            return f"out of memory{_memory_limit()}"
        if number in _OUTSIDE:
            place = getattr(error, "filename", None)
            problem = os.strerror(number)
            return f"{place}: {problem}" if place else f"an output cannot be written: {problem}"
        error = error.__cause__ or error.__context__
    return None


def os_error_text(error: OSError) -> str:
    """Return what the system says of a file, to stand in the middle of a sentence."""
    return (error.strerror or str(error)).lower()


def _memory_limit() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" (`ulimit -v` allows {limit // 1024:,} kB)"
