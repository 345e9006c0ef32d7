"""Exit statuses: errors that the user can fix print one line, bugs print a traceback."""

import errno
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

from nodules.errors import NodulesError
from nodules.system.signals import raised_interruptions, sentence_of, signal_of
from nodules.system.streams import (
    CLOSED_PIPE,
    StandardOutputError,
    delivered_output,
    prepare_streams,
    printable,
)

# Errors that the user can fix outside the program: a full or read-only disk, a quota, a limit on
# file sizes, a broken device, an invalid file name, a file of another user. Bugs in this program do
# not cause them.
_OUTSIDE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
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
# Messages of libraries that do not raise MemoryError.
_NO_MEMORY = re.compile(
    "cannot allocate memory|memory allocation failed|failed to map segment|unable to allocate|"
    "can't start new thread|out of memory|OOM when allocating",
    re.IGNORECASE,
)
# Message of `tempfile` if it finds no writable folder.
_NO_TEMPORARY_FOLDER = "No usable temporary directory"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report interruptions and errors that the user can fix as one line on stderr.

    A `NodulesError`, a full or read-only disk and exhausted memory exit with status 1, Ctrl-C with
    130 and SIGTERM with 143 (128 plus the signal, as in shells), and a closed pipe silently with
    141. Notes on the exception are appended after a semicolon. Any other exception is a bug and
    keeps its traceback.
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
        # The destructor of an object that the signal interrupted in its constructor, such as a
        # progress bar, may fail.
        sys.unraisablehook = lambda _: None
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
    """Print `error:`, a sentence and the notes of its cause as one printable line, and exit."""
    notes = getattr(cause, "__notes__", [])
    print(printable("; ".join([f"error: {sentence}", *notes])), file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def exit_in_one_line_at_import() -> None:
    """Report errors during imports as one line, such as too little memory for a library.

    Libraries are imported before a program enters `one_line_errors`.
    """

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        problem = str(error) if isinstance(error, NodulesError) else outside_problem(error)
        if problem is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(printable(f"error: {problem}"), file=sys.stderr, flush=True)

    sys.excepthook = end


def outside_problem(error: BaseException | None) -> str | None:
    """Return the problem outside the program behind an exception; None if it is a bug.

    Causes and contexts are examined too, since writers such as HDF5's fail again on closing.
    """
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (problem := _missing_package(error)):
            return problem
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return f"out of memory{_memory_limit()}"
        if isinstance(error, FileNotFoundError) and _NO_TEMPORARY_FOLDER in str(error):
            return f"{error.strerror}, expected a writable one; TMPDIR can name it"
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


def _missing_package(error: ModuleNotFoundError) -> str | None:
    """Return a sentence about a package that is not installed; None for a module of our own."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "nodules", "stages", "benchmarks"):
        return None
    expected = "the environment of `make setup`: type `source .venv/bin/activate` first"
    return f"{package} is not installed in {sys.prefix}, expected {expected}"


def _memory_limit() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" (`ulimit -v` allows {limit // 1024:,} kB)"
