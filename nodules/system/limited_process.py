"""Calling a function in a process of its own, under limits of time and memory.

Libraries that read files may crash, loop forever or ask for any amount of memory on damaged or
hostile ones, and nothing in Python can catch that. Whatever takes files from outside tries such a
library here first.

python -m nodules.system.limited_process one MODULE:FUNCTION SECONDS BYTES PATH [ARGUMENT ...]
python -m nodules.system.limited_process each MODULE:FUNCTION SECONDS BYTES [ARGUMENT ...]

With `each` the paths come on stdin, each ended by a zero byte, and the results go to stdout.
"""

import importlib
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from nodules.errors import NodulesError
from nodules.system.exits import one_line_errors
from nodules.system.streams import STDERR, STDOUT, printable

REPOSITORY = Path(__file__).parents[2]
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
        refuses the file. Its return value is discarded.
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
    try:
        process = subprocess.run(
            [*_command("one", function, seconds, memory), str(path), *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=seconds * CLOCK_FACTOR,
        )
    except subprocess.TimeoutExpired:
        raise failure(path, f"cannot be read: no end after {seconds * CLOCK_FACTOR} s") from None
    # The last line: libraries may print theirs before it.
    sentence = process.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
    place = f"{printable(path)}: "
    if process.returncode == 1 and sentence.startswith(place):
        raise failure(path, sentence.removeprefix(place))
    if problem := _death(process.returncode, memory):
        raise failure(path, problem)


def call_each_limited(
    function: Callable[..., bytes],
    paths: Sequence[Path],
    *arguments: str,
    seconds: int,
    memory: int,
    failure: Callable[[Path, str], NodulesError],
) -> Iterator[bytes]:
    """Yield `function(path, *arguments)` of each path, all called in one other process.

    That process works ahead, as far as a pipe holds its results.

    Parameters
    ----------
    function, arguments, failure
        As for `call_limited`; the function returns bytes.
    paths
        The files to read, in this order.
    seconds
        Processor time for one file.
    memory
        Bytes that the process may take on top of what it holds once the function's module is
        imported.

    Raises
    ------
    NodulesError
        As for `call_limited`, for the first path that fails.
    RuntimeError
        If the function has a bug, whose traceback the process has printed.
    """
    process = subprocess.Popen(
        [*_command("each", function, seconds, memory), *arguments],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # Without `with process`, which waits for a process that may never end.
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError), process.stdin as names:
            names.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
        for path in paths:
            refused, content = _receive(process.stdout)
            if content is None:
                problem = _death(process.wait(), memory)
                if problem:
                    raise failure(path, problem)
                raise RuntimeError(f"{path}: the process that reads it failed")
            if refused:
                sentence = content.decode()
                raise failure(path, sentence.removeprefix(f"{printable(path)}: "))
            yield content
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _command(mode: str, function: Callable[..., object], seconds: int, memory: int) -> list[str]:
    target = f"{function.__module__}:{function.__qualname__}"
    return [sys.executable, "-m", __name__, mode, target, str(seconds), str(memory)]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"}


def _death(status: int, memory: int) -> str:
    """Return what a process died of, or nothing if it ended by itself."""
    if status == _OUT_OF_MEMORY:
        return f"cannot be read: it takes more than {memory // 10**6:,} MB of memory"
    if status < 0:
        return "cannot be read: damaged so that the library that reads it crashes or never ends"
    return ""


_OUT_OF_MEMORY = 75  # EX_TEMPFAIL of sysexits.h, which nothing else here exits with
# Of each result: whether it is the sentence of a refusal, and its length in bytes.
_RESULT_HEADER = struct.Struct("<?Q")


def _receive(stream: IO[bytes]) -> tuple[bool, bytes | None]:
    header = stream.read(_RESULT_HEADER.size)
    if len(header) < _RESULT_HEADER.size:
        return False, None
    refused, length = _RESULT_HEADER.unpack(header)
    content = stream.read(length)
    return refused, content if len(content) == length else None


def _main() -> None:
    mode, target, seconds, memory, *arguments = sys.argv[1:]
    module, name = target.split(":")
    function = getattr(importlib.import_module(module), name)
    if mode == "each":
        _call_each(function, arguments, int(seconds), int(memory))
        return
    path, *arguments = arguments
    _limit(int(seconds), int(memory))
    with one_line_errors():
        try:
            function(Path(path), *arguments)
        except MemoryError:
            # Without memory no sentence can be formatted.
            os._exit(_OUT_OF_MEMORY)


def _call_each(
    function: Callable[..., bytes], arguments: Sequence[str], seconds: int, memory: int
) -> None:
    # The parent ends this process, after Ctrl-C too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    paths = [Path(os.fsdecode(name)) for name in sys.stdin.buffer.read().split(b"\0")[:-1]]
    _limit_memory(memory)
    # What a library prints is no result, and no message: libtiff prints lines of its own.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stderr = os.fdopen(os.dup(STDERR), "w", errors="backslashreplace")  # for a traceback
    for stream in (STDOUT, STDERR):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for path in paths:
        _limit_next_call(seconds)
        try:
            refused, content = False, function(path, *arguments)
        except NodulesError as error:
            refused, content = True, printable(error).encode()
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        results.write(_RESULT_HEADER.pack(refused, len(content)) + content)
        # What is kept back is lost if the next file crashes a library.
        results.flush()
        if refused:
            break


def _limit_next_call(seconds: int) -> None:
    """End this process by a signal unless this is called again in time."""
    with suppress(ValueError, OSError):
        hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
        used = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard_limit))
    signal.setitimer(signal.ITIMER_REAL, seconds * CLOCK_FACTOR)


def _limit(seconds: int, memory: int) -> None:
    with suppress(ValueError, OSError):  # limits that the system lacks, or has set lower
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    _limit_memory(memory)


def _limit_memory(memory: int) -> None:
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Threads and shared libraries reserve addresses that they never use.
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        held = int(pages) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))


if __name__ == "__main__":
    _main()
