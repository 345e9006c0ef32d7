"""A process that answers questions for a benchmark."""

import pytest

from benchmarks.throughput.worker_process import worker


def test_a_process_that_ends_instead_of_answering_is_named() -> None:
    # This module of Python's does nothing when it is run.
    with (
        pytest.raises(RuntimeError, match="keyword ended at `anything`"),
        worker("keyword") as ask,
    ):
        ask("anything")
