"""Timing by repetition."""

import time
from collections.abc import Callable


def steps_per_second(step: Callable[[], object], seconds: float) -> float:
    """Call `step` again and again for at least so long, and at least once."""
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not calls:
        step()
        calls += 1
    return calls / elapsed
