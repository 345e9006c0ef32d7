"""PyTorch equivalents of the networks match Keras, if PyTorch is installed."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.throughput.__main__ import write_exchange
from nodules.models.registry import build_model
from nodules.params import read_params
from tests.support import REPOSITORY

PARAMS = read_params(REPOSITORY / "params.yaml")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="the extra `benchmark` (PyTorch, 2 GB) is in no lock file, so CI does not install it",
)


@pytest.mark.parametrize("name", PARAMS.models)
def test_a_pytorch_equivalent_matches_its_network_and_trains(name: str, tmp_path) -> None:
    entry = PARAMS.models[name]
    model = build_model(name, entry.builder, entry.config, seed=3)
    rng = np.random.default_rng(0)
    # The initial offsets and statistics are trivial; replace them with random values.
    model.set_weights(
        [w if w.ndim > 1 else rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()]
    )
    patches = rng.uniform(0, 255, (4, 50, 50, 1)).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    write_exchange(tmp_path / "exchange.npz", model, patches, labels)
    command = [
        sys.executable,
        "-m",
        "benchmarks.throughput.torch_worker",
        tmp_path / "exchange.npz",
    ]
    result = subprocess.run(
        [*command, name, "tuned"],
        cwd=REPOSITORY,
        input="check\nprepare 0\nrun 0 0.1\n",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    difference, prepared, rate = result.stdout.split()
    assert float(difference) < 1e-4
    assert prepared == "ready"
    assert float(rate) > 0
