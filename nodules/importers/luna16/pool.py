"""Run calls in processes or on a Dask cluster, with results in order and few in memory."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed

from nodules.errors import NodulesError

Result = TypeVar("Result")

# Calls submitted together per processor, which bounds the number of buffered results. With eight, a
# processor idles for about half a call in eight.
CALLS_AHEAD = 8


def run_in_order(
    function: Callable[..., Result],
    calls: Iterable[tuple],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> Generator[Result, None, None]:
    """Call `function` in parallel and yield its results in the order of the calls.

    Parameters
    ----------
    function
        Module-level function; it and its arguments are sent to other processes.
    calls
        Arguments of each call.
    jobs
        Number of local processes; None for one per processor.
    scheduler
        Address of a Dask scheduler to use instead.

    Raises
    ------
    NodulesError
        If a call raises it, a process dies, or the cluster cannot be reached or fails.
    """
    tasks: Iterator[Callable[[], Result]] = (partial(function, *call) for call in calls)
    if scheduler is not None:
        # Dask takes half a second to import.
        from nodules.importers.luna16.cluster import run_on_cluster

        yield from run_on_cluster(tasks, scheduler, CALLS_AHEAD)
        return
    processors = jobs or cpu_count()
    pool = Parallel(processors, return_as="generator", batch_size=1)
    while some := list(islice(tasks, CALLS_AHEAD * processors)):
        try:
            yield from pool(delayed(task)() for task in some)
        except BrokenProcessPool:
            problem = "a worker process was killed, expected enough memory for each (fewer --jobs?)"
            raise NodulesError(problem) from None
