"""TensorFlow, set up in one place: quiet, and the same result from the same seed.

Import this module before anything that imports TensorFlow or Keras.
"""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nodules.errors import NodulesError

# Addresses, most of which are never used; prediction reserves 2.1 GB of them on two processors.
MIN_ADDRESS_SPACE = 2_000_000 * 1024


def usable_processors() -> int:
    """Count the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _file_in_memory() -> BinaryIO:
    """Open a file that needs no folder, which may be read-only, where the system has such files."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Keep what native code writes to stderr; show it only if the block raises."""
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
    """Refuse a limit under which TensorFlow would abort the process with a stack trace."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        found = f"found a limit of {limit // 1024:,} kB (`ulimit -v`)"
        raise NodulesError(
            f"{found}, expected {MIN_ADDRESS_SPACE // 1024:,} at least, which TensorFlow reserves"
        )


# TensorFlow takes oneDNN's kernels by itself only on CPUs with the newest instructions; they train
# these networks faster on older ones too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# How many threads share an operation decides in which order sums are added up, and so on their last
# bits. With one, results do not depend on the number of processors; these are put to use by what is
# computed side by side: the parts of a batch in training, batches in scoring.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# On a machine without a GPU TensorFlow calls that an error; real errors are raised as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_check_memory_limit()

# Its start-up notices heed no log level, and would bury the one line that says what went wrong.
with _stderr_held_back():
    import tensorflow as tf
    from tensorflow.python.framework import config


def be_deterministic() -> None:
    """Make TensorFlow's operations give the same bits on every run on one machine."""
    tf.config.experimental.enable_op_determinism()


def is_deterministic() -> bool:
    """Return whether `be_deterministic` is in force."""
    return config.is_op_determinism_enabled()
