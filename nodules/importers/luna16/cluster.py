"""Run tasks on a Dask cluster, with results in order and one-line errors."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, TypeVar

import cloudpickle
from distributed import CancelledError, Client, Future
from joblib import wrap_non_picklable_objects

import nodules
from nodules.errors import NodulesError

Result = TypeVar("Result")

CONNECT_SECONDS = 10


def run_on_cluster(
    tasks: Iterable[Callable[[], Result]], scheduler: str, calls_ahead: int
) -> Generator[Result, None, None]:
    """Run tasks on a Dask cluster and yield their results in order.

    This checkout's code is sent with the tasks: scheduler and workers need only the libraries.

    Parameters
    ----------
    tasks
        Functions of this package with bound arguments.
    scheduler
        Address of the scheduler, such as `tcp://host:8786`.
    calls_ahead
        Number of tasks submitted at a time for each processor of the cluster, including those of
        workers that join later.

    Raises
    ------
    NodulesError
        If no scheduler or worker responds within ten seconds, the cluster gives up on a task, the
        connection breaks, or a task raises this error.
    """
    # Dask would log a traceback for errors that are reported here in one line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with _connected(scheduler) as client:
        cloudpickle.register_pickle_by_value(nodules)
        try:
            waiting: deque[Future] = deque()
            for task in tasks:
                sent = wrap_non_picklable_objects(partial(_outcome, task))
                waiting.append(client.submit(sent, pure=False))
                # The number of processors is that of now: workers join and leave.
                while waiting and len(waiting) >= calls_ahead * _processors(client, scheduler):
                    yield _result(waiting.popleft(), scheduler)
            while waiting:
                yield _result(waiting.popleft(), scheduler)
        finally:
            cloudpickle.unregister_pickle_by_value(nodules)


def _processors(client: Client, scheduler: str) -> int:
    try:
        return sum(client.nthreads().values())
    except (CancelledError, OSError):
        raise _connection_broke(scheduler) from None


def _outcome(task: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    """Run a task on a worker; return its exception, to tell it from a failure of Dask."""
    try:
        return task(), None
    except Exception as error:
        return None, error


def _result(future: Future, scheduler: str) -> Any:
    try:
        result, error = future.result()
    except CancelledError:
        raise _connection_broke(scheduler) from None
    except Exception as failure:
        problem = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
        raise NodulesError(f"Dask gave up on a scan ({problem})") from None
    if error is not None:
        raise error
    return result


def _connection_broke(scheduler: str) -> NodulesError:
    return NodulesError(f"{scheduler}: the connection to the scheduler broke")


def _connected(scheduler: str) -> Client:
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError):
        problem = "no Dask scheduler answers, expected the address that `dask scheduler` prints"
        raise NodulesError(f"{scheduler}: {problem}") from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        client.close()
        problem = f"found no worker in {CONNECT_SECONDS} s, expected one started by `dask worker`"
        raise NodulesError(f"{scheduler}: {problem}") from None
    return client
