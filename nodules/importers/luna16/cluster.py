"""joblib's Dask backend, made to end where it would wait for ever."""

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import cloudpickle
from distributed import Client
from joblib._dask import DaskDistributedBackend

import nodules
from nodules.errors import NodulesError

CONNECT_SECONDS = 10


class ClusterBackend(DaskDistributedBackend):
    """joblib's Dask backend, which also gives results one by one and reports Dask's own failures.

    joblib 1.6 tells its pool of a call that returned or raised, but not of one that Dask gave up:
    because no worker can load it, or because several workers died of it.
    """

    supports_return_generator = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Count the cluster's processors, as two if it has one: joblib calls alone for one."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Any = None) -> Future:
        """Submit a batch, and call `callback` with an error, too, if Dask gives it up."""

        def report(done: Future) -> None:
            if failure := done.exception():
                problem = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
                callback(NodulesError(f"Dask gave up a scan ({problem})"))

        future = super().submit(func, callback)
        future.add_done_callback(report)
        return future


@contextmanager
def cluster_backend(scheduler: str) -> Iterator[ClusterBackend]:
    """Connect to a Dask cluster.

    Inside the block the code of this checkout is sent along with calls that are wrapped by
    `joblib.wrap_non_picklable_objects`: scheduler and workers need the libraries alone.

    Parameters
    ----------
    scheduler
        Its address, as in `tcp://host:8786`.

    Yields
    ------
    ClusterBackend
        For joblib.

    Raises
    ------
    NodulesError
        If there is no scheduler or no worker within ten seconds.
    """
    # It logs with a traceback what ends here in one line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with _connected(scheduler) as client:
        cloudpickle.register_pickle_by_value(nodules)
        try:
            yield ClusterBackend(client=client)
        finally:
            cloudpickle.unregister_pickle_by_value(nodules)


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
