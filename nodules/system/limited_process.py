"""Call a function in a separate process, with limits on time and memory.

On damaged or hostile files, libraries may crash, loop forever or allocate any amount of memory,
which Python cannot catch. Code that reads untrusted files therefore first runs such a library here.

python -m nodules.system.limited_process one MODULE:FUNCTION SECONDS BYTES PATH [ARGUMENT ...]
python -m nodules.system.limited_process each MODULE:FUNCTION SECONDS BYTES [ARGUMENT ...]

With `each`, NUL-terminated paths are read from stdin and results are written to stdout.
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
# The limit applies to CPU time, since processes are slow on a busy machine. A process that blocks
# without using the CPU is ended after this multiple of the limit in wall-clock time.
CLOCK_FACTOR = 10


def call_limited(
    function: Callable[..., object],
    path: Path,
    *arguments: str,
    seconds: int,
    memory: int,
    failure: Callable[[Path, str], NodulesError],
) -> None:
    """Call `function(path, *arguments)` in a separate process; raise an error if it fails.

    Parameters
    ----------
    function
        Module-level function. To refuse a file, it raises a `NodulesError` whose message begins
        with `path`. Its return value is discarded.
    path
        File to read.
    arguments
        Further arguments, as text.
    seconds
        CPU time limit.
    memory
        Memory limit in bytes, in addition to the memory in use after importing the module.
    failure
        Function that creates the error to raise from the path and a problem.

    Raises
    ------
    NodulesError
        Error created by `failure`, if `function` refuses the file, or the process crashes or
        exceeds a limit. Other exceptions of `function` are ignored: they are bugs, which show
        their traceback when the function is called in this process.
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
        raise failure(
            path, f"cannot be read: not finished after {seconds * CLOCK_FACTOR} s"
        ) from None
    # Only the last line, since libraries may print lines of their own before it.
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
    """Yield `function(path, *arguments)` for each path, called in one separate process.

    The process works ahead until the pipe for its results is full.

    Parameters
    ----------
    function, arguments, failure
        As in `call_limited`; the function returns bytes.
    paths
        Files to read, in the order of the results.
    seconds
        CPU time limit per file.
    memory
        Memory limit in bytes, in addition to the memory in use after importing the module.

    Raises
    ------
    NodulesError
        As in `call_limited`, for the first path that fails.
    RuntimeError
        If the function has a bug; the process has printed its traceback.
    """
    process = subprocess.Popen(
        [*_command("each", function, seconds, memory), *arguments],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # Not `with process`, which would wait for a process that may never end.
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
    """Return why a process was ended by a limit or a crash; empty if it exited normally."""
    if status == _OUT_OF_MEMORY:
        return f"cannot be read: it takes more than {memory // 10**6:,} MB of memory"
    if status < 0:
        return "cannot be read: damaged, and the library that reads it crashes or never returns"
    return ""


_OUT_OF_MEMORY = 75  # EX_TEMPFAIL of sysexits.h, unused elsewhere
# Header of a result: whether the file was refused, and the length of the content in bytes.
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
            # There is not enough memory to format a message.
            os._exit(_OUT_OF_MEMORY)


def _call_each(
    function: Callable[..., bytes], arguments: Sequence[str], seconds: int, memory: int
) -> None:
    # The parent ends this process, also after Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    paths = [Path(os.fsdecode(name)) for name in sys.stdin.buffer.read().split(b"\0")[:-1]]
    _limit_memory(memory)
    # Discard the output of libraries: libtiff, for example, prints messages of its own.
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
        # Buffered results would be lost if the next file crashed a library.
        results.flush()
        if refused:
            break


def _limit_next_call(seconds: int) -> None:
    """Set limits at which a signal ends this process, replacing those of the previous call."""
    with suppress(ValueError, OSError):
        hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
        used = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard_limit))
    signal.setitimer(signal.ITIMER_REAL, seconds * CLOCK_FACTOR)


def _limit(seconds: int, memory: int) -> None:
    with suppress(ValueError, OSError):  # the system lacks this limit, or has a lower one
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    _limit_memory(memory)


def _limit_memory(memory: int) -> None:
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # The limit includes addresses that threads and libraries reserve but never use.
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        held = int(pages) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))


if __name__ == "__main__":
    _main()
