"""Patch files to test with, and the limits that every test runs under."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Of a worker, or of a process that it starts; a worker takes 0.5 GB. A test that generates too much
# fails by it, before the system ends another process for want of memory.
MAX_DATA_BYTES = 4 * 2**30

SLOWEST = {"test_pipeline", "test_reproducibility", "test_strategy", "test_training"}

PatchFileFactory = Callable[..., Path]


def pytest_configure() -> None:
    """Limit the memory of this process.

    Not its address space, most of which TensorFlow reserves and never uses. The drivers of a GPU
    map more than they use in any case.
    """
    if not Path("/dev/nvidiactl").exists():
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MAX_DATA_BYTES if most == resource.RLIM_INFINITY else min(MAX_DATA_BYTES, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.path.stem not in SLOWEST)  # a stable sort


@pytest.fixture(scope="session", autouse=True)
def no_probe_process() -> Iterator[None]:
    """Open HDF5 files without a probe in another process, which takes half a second for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nodules.patches.probe._probe_once", lambda *_: None)
        yield


@pytest.fixture
def patch_file(tmp_path: Path) -> PatchFileFactory:
    """Give a function that writes an HDF5 file from its arguments; None leaves a data set out."""

    def write(name: str = "patches.h5", **data_sets: NDArray | list | None) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, values in data_sets.items():
                if values is not None:
                    file[key] = values
        return path

    return write


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test as somebody who may not read and write everything, if it is root's."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def random_patches() -> Callable[[int], NDArray[np.uint8]]:
    """Give a function that makes n random uint8 patches."""
    rng = np.random.default_rng(0)
    return lambda count: rng.integers(0, 256, (count, 50, 50), dtype=np.uint8)
