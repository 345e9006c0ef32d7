"""Read patch files, each in a forked process, because damaged ones may crash HDF5.

python -m tests.support.read_apart

Answers each path on stdin with one line: `read`, `refused SENTENCE`, `killed SIGNAL`, or
`failed ERROR`.
"""

import os
import resource
import sys
from pathlib import Path

from nodules.errors import PatchFileError
from nodules.patches import probe
from nodules.patches.reader import open_patches

CPU_SECONDS = 2


def outcome(path: Path) -> str:
    """Return the outcome of reading a whole file."""
    try:
        with open_patches(path) as patches:
            for _ in patches.blocks():
                pass
    except PatchFileError as error:
        return f"refused {error}"
    except Exception as error:
        return f"failed {error!r}"
    return "read"


def read_in_fork(path: Path) -> str:
    """Return the outcome of reading a whole file that may crash the process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(writer, outcome(path).encode(errors="backslashreplace"))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said if code == 0 else f"killed {-code}"


if __name__ == "__main__":
    setattr(probe, "_probe_once", lambda *_: None)  # noqa: B010 - a fork is enough
    for line in sys.stdin:
        print(ascii(read_in_fork(Path(line.rstrip("\n")))), flush=True)
