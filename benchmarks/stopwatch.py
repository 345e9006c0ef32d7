"""Timing by repetition."""

import time
from collections.abc import Callable


def steps_per_second(step: Callable[[], object], seconds: float) -> float:
    """Call `step` repeatedly for at least `seconds`, and at least once; return calls/s."""
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not calls:
        step()
        calls += 1
    return calls / elapsed
