"""Image readers that fail like decoders, for tests of calls under limits."""

import os
from pathlib import Path


def read_badly(path: Path, *arguments: str) -> bytes:
    """Fail in the way named by the file; otherwise return its name."""
    if path.stem == "endless":
        while True:
            pass
    if path.stem == "greedy":
        return bytes(10**10)
    if path.stem == "crash":
        os.abort()
    if path.stem == "noisy":
        print("what a library prints is no result", flush=True)
    return path.name.encode()
