"""Worker processes of benchmarks."""

import pytest

from benchmarks.throughput.worker_process import worker


def test_a_process_that_ends_instead_of_answering_is_named() -> None:
    # This standard library module does nothing when run.
    with (
        pytest.raises(RuntimeError, match="keyword ended at `anything`"),
        worker("keyword") as ask,
    ):
        ask("anything")
