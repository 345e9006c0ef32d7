"""Exit statuses: what a person can fix ends the program in one line, a bug in a traceback."""

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

# What a person can fix outside the program: a full or read-only disk, a quota, a limit on the size
# of files, a broken device, a name that no file can have, a file of another user. No bug of ours
# leads to one of them.
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
# What `tempfile` says where it finds no folder to write in.
_NO_TEMPORARY_FOLDER = "No usable temporary directory"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can fix, or has asked for, into one sentence on stderr.

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
        # An object that the signal caught in its constructor, such as a progress bar, may fail to
        # be destroyed.
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
    """Print `error:`, a sentence and the notes on its cause as one printable line, and exit."""
    notes = getattr(cause, "__notes__", [])
    print(printable("; ".join([f"error: {sentence}", *notes])), file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def exit_in_one_line_at_import() -> None:
    """End in one line if libraries cannot be loaded for lack of memory.

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
    """Return what a system or its user can fix about an exception; None where it is a bug.

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


def _memory_limit() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" (`ulimit -v` allows {limit // 1024:,} kB)"
