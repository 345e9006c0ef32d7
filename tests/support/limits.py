"""Disks that take no more, without a disk of that size: a limit on the size of files."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def max_file_size(size: int) -> Iterator[None]:
    """Let no file of this process or its children grow beyond `size` bytes.

    Writing more fails with EFBIG, since Python ignores SIGXFSZ; the part that fits is written, as
    on a full disk. What pytest captures from the test goes into a file too and must fit.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
