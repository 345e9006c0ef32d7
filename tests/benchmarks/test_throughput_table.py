"""The table of the throughput benchmark, for example rates."""

from benchmarks.throughput.table import (
    BARE_FIT,
    EPOCH,
    MATRIX_PRODUCT,
    STEP,
    TORCH,
    UNSCORED_EPOCH,
    markdown,
)
from nodules.models.registry import build_model

CONFIG = {
    "margin": 0,
    "stem_filters": 4,
    "stem_stride": 2,
    "blocks": [[8, 2]],
    "bypass": False,
    "batch_norm_momentum": 0.9,
    "pooling": "average",
    "dropout": 0.5,
}


def test_ratios_are_taken_within_rounds_and_against_the_fastest_pytorch_mode() -> None:
    model = build_model("small", "mobilenet", CONFIG, seed=0)
    # The second round ran at half speed, which does not affect ratios within a round.
    rates = {
        EPOCH: [90.0, 45.0, 80.0],
        UNSCORED_EPOCH: [95.0, 47.0, 85.0],
        BARE_FIT: [50.0, 25.0, 50.0],
        STEP: [100.0, 50.0, 100.0],
        f"{TORCH}slow": [10.0, 5.0, 10.0],
        f"{TORCH}fast": [200.0, 100.0, 200.0],
        MATRIX_PRODUCT: [1e9, 5e8, 1e9],
    }
    table = markdown("small", model, rates, [f"{TORCH}broken"])
    assert "| (a) / (c) | 0.90 (0.80 to 0.90) |" in table
    assert "| (c) / (d) | 0.50 (0.50 to 0.50) |" in table
    assert "(d) at its best: fast." in table
    assert "| (d) PyTorch, broken | failed | |" in table
    # 25 x 25 x 9 x 4 for the stem, then 12 x 12 x (9 x 4 + 4 x 8), and 8 x 2.
    cost = 22500 + 144 * 68 + 16
    fraction = 6 * cost * 100 / 1e9
    assert f"| {STEP} | 100 | {fraction:.0%} |" in table


def test_without_pytorch_the_table_has_the_pipeline_alone() -> None:
    model = build_model("small", "mobilenet", CONFIG, seed=0)
    rates = {name: [1.0] for name in (EPOCH, UNSCORED_EPOCH, BARE_FIT, STEP, MATRIX_PRODUCT)}
    assert "(d)" not in markdown("small", model, rates, [])
