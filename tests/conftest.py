"""Shared fixtures, and the limits under which all tests run."""

import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from tests.support.tiny_project import Project

# No deadline: the duration of an example depends on the load of the machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Limit for a worker or a process that it starts; a worker takes 0.5 GB. A test that allocates too
# much fails before the system kills another process.
MAX_DATA_BYTES = 4 * 2**30

MIN_COVERAGE = 80  # percent of the lines of a module

SLOWEST = {"test_pipeline", "test_reproducibility", "test_devices", "test_train"}

PatchFileFactory = Callable[..., Path]


def pytest_configure() -> None:
    """Limit the data segment of this process.

    The address space cannot be limited, because TensorFlow reserves much more than it uses. With a
    GPU there is no limit, because its drivers map too much memory.
    """
    if not Path("/dev/nvidiactl").exists():
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MAX_DATA_BYTES if most == resource.RLIM_INFINITY else min(MAX_DATA_BYTES, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, to balance the load between workers."""
    items.sort(key=lambda item: item.path.stem not in SLOWEST)  # a stable sort


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """With `--cov`, print the coverage and the modules below `MIN_COVERAGE`."""
    plugin = config.pluginmanager.getplugin("_cov")
    if plugin is None or plugin.cov_controller is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        plugin.cov_controller.cov.json_report(outfile=str(report), ignore_errors=True)
        coverage = json.loads(report.read_text(encoding="utf-8"))
    total = coverage["totals"]["percent_covered"]
    low = {
        name: file
        for name, file in coverage["files"].items()
        if file["summary"]["percent_covered"] < MIN_COVERAGE
    }
    terminalreporter.section("coverage")
    terminalreporter.line(
        f"{total:.1f}% of the lines; modules below {MIN_COVERAGE}%: {len(low) or 'none'}"
    )
    for name, file in low.items():
        lines = ", ".join(map(str, file["missing_lines"]))
        terminalreporter.line(f"{name}: {file['summary']['percent_covered']:.0f}%, without {lines}")


@pytest.fixture(scope="session", autouse=True)
def no_probe_process() -> Iterator[None]:
    """Open HDF5 files without the probe process, which takes half a second per file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nodules.patches.probe._probe_once", lambda *_: None)
        yield


@pytest.fixture
def patch_file(tmp_path: Path) -> PatchFileFactory:
    """Return a function that writes an HDF5 file; data sets that are None are omitted."""

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
    """Run the test as an unprivileged user if the current user is root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def random_patches() -> Callable[[int], NDArray[np.uint8]]:
    """Return a function that draws n random uint8 patches."""
    rng = np.random.default_rng(0)
    return lambda count: rng.integers(0, 256, (count, 50, 50), dtype=np.uint8)


@pytest.fixture
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make the repository of a test file's `project` the current folder."""
    monkeypatch.chdir(project.path)
    return project
