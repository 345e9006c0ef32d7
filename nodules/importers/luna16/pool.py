"""Work spread over processes or a Dask cluster, its results in order and few at a time."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed

from nodules.errors import NodulesError

Result = TypeVar("Result")

# Calls handed out together, for each processor: what bounds the results that wait for their turn.
# With eight, a processor idles for about half a call in eight.
CALLS_AHEAD = 8


def run_in_order(
    function: Callable[..., Result],
    calls: Iterable[tuple],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> Generator[Result, None, None]:
    """Call `function` in parallel and yield what it returns in the order of the calls.

    Parameters
    ----------
    function
        A function of a module; it and its arguments are sent to other processes.
    calls
        The arguments of each call.
    jobs
        Processes on this machine; None for as many as it has processors.
    scheduler
        Address of a Dask scheduler, whose workers are used instead.

    Raises
    ------
    NodulesError
        As a call raises it; or if processes die, or the cluster cannot be reached or cannot do the
        work.
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
            problem = "a worker process was killed, expected memory for each (fewer --jobs?)"
            raise NodulesError(problem) from None
