"""Start TensorFlow quietly and deterministically.

Its environment is set in `nodules/__init__.py`.
"""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nodules.errors import NodulesError

# Bytes of address space, most of which is never used; prediction reserves 2.1 GB on two processors.
MIN_ADDRESS_SPACE = 2_000_000 * 1024


def usable_processors() -> int:
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _file_in_memory() -> BinaryIO:
    """Open a file in memory on Linux, where all folders may be read-only; else a temporary file."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what native code writes to stderr; print it only if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with _file_in_memory() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _check_memory_limit() -> None:
    """Raise NodulesError for a limit at which TensorFlow would abort with a stack trace."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        found = f"found a limit of {limit // 1024:,} kB (`ulimit -v`)"
        raise NodulesError(
            f"{found}, expected at least {MIN_ADDRESS_SPACE // 1024:,}, which TensorFlow reserves"
        )


def be_deterministic() -> None:
    """Import TensorFlow and make its operations bit-reproducible on one machine.

    Programs call this before importing any module that needs TensorFlow, so that the memory limit
    is checked and TensorFlow's start-up messages are suppressed. They ignore the log level and
    would bury a one-line error message.

    Raises
    ------
    NodulesError
        If the address space is limited to less than TensorFlow reserves.
    """
    _check_memory_limit()
    with _stderr_held_back():
        import tensorflow as tf
    tf.config.experimental.enable_op_determinism()


def is_deterministic() -> bool:
    """Return whether `be_deterministic` is in force."""
    from tensorflow.python.framework import config

    return config.is_op_determinism_enabled()
