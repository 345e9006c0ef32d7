"""Calling a function in a process of its own, under limits of time and memory.

Libraries that read files may crash, loop forever or ask for any amount of memory on damaged or
hostile ones, and nothing in Python can catch that. Whatever takes files from outside tries such a
library here first.

python -m nodules.limited_process MODULE:FUNCTION SECONDS BYTES PATH [ARGUMENT ...]
"""

import importlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nodules.errors import NodulesError, one_line_errors, printable

REPOSITORY = Path(__file__).parent.parent
# Processor time is what is limited. Where a file blocks instead of computing, this many times as
# long on the clock ends it; a busy machine gives a process its seconds later.
CLOCK_FACTOR = 10


def call_limited(
    function: Callable[..., object],
    path: Path,
    *arguments: str,
    seconds: int,
    memory: int,
    failure: Callable[[Path, str], NodulesError],
) -> None:
    """Call `function(path, *arguments)` in another process; raise if it refuses or fails.

    Parameters
    ----------
    function
        A function of a module, which raises a `NodulesError` that begins with `path` where it
        refuses the file. What it returns is lost.
    path
        The file to read.
    arguments
        Further arguments, as text.
    seconds
        Processor time before the process is ended.
    memory
        Bytes that it may take on top of what it holds once the function's module is imported.
    failure
        Makes the error to raise, from the path and a problem.

    Raises
    ------
    NodulesError
        As `failure` makes it: with the sentence of `function`, or because the process crashed or
        exceeded a limit. Any other exception of `function` raises nothing: it is a bug, which
        shows with its traceback when the same function is called in this process.
    """
    target = f"{function.__module__}:{function.__qualname__}"
    command = [sys.executable, "-m", __name__, target, str(seconds), str(memory), str(path)]
    try:
        process = subprocess.run(
            [*command, *arguments],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds * CLOCK_FACTOR,
        )
    except subprocess.TimeoutExpired:
        raise failure(path, f"cannot be read: no end after {seconds * CLOCK_FACTOR} s") from None
    sentence = process.stderr.strip().removeprefix("error: ")
    place = f"{printable(str(path))}: "
    if process.returncode == 1 and sentence.startswith(place):
        raise failure(path, sentence.removeprefix(place))
    if process.returncode == _OUT_OF_MEMORY:
        megabytes = memory // 10**6
        raise failure(path, f"cannot be read: it takes more than {megabytes:,} MB of memory")
    if process.returncode < 0:
        problem = "damaged so that the library that reads it crashes or never ends"
        raise failure(path, f"cannot be read: {problem}")


_OUT_OF_MEMORY = 75  # EX_TEMPFAIL of sysexits.h, which nothing else here exits with


def _main() -> None:
    target, seconds, memory, path, *arguments = sys.argv[1:]
    module, name = target.split(":")
    function = getattr(importlib.import_module(module), name)
    _limit(int(seconds), int(memory))
    with one_line_errors():
        try:
            function(Path(path), *arguments)
        except MemoryError:
            # Whoever has no memory left cannot format a sentence.
            os._exit(_OUT_OF_MEMORY)


def _limit(seconds: int, memory: int) -> None:
    with suppress(ValueError, OSError):  # limits that the system lacks, or has set lower
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        # Threads and shared libraries reserve addresses that they never use.
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))


if __name__ == "__main__":
    _main()
