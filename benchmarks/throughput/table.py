"""The table that `benchmarks.throughput` prints of a network."""

import statistics
from collections.abc import Mapping, Sequence

import keras

from nodules.models.multiply_adds import multiply_adds

# By contestant, patches a second of each round; of the matrix product, flops a second.
Rates = dict[str, list[float]]

EPOCH = "(a) epoch of this pipeline, everything in"
UNSCORED_EPOCH = "(a) without its scoring of the validation split"
BARE_FIT = "(b) epoch of a bare Keras `fit`"
STEP = "(c) training step of this pipeline, one resident batch"
TORCH = "(d) PyTorch, "
MATRIX_PRODUCT = "matrix product"

# A step counts as three forward passes: on the way back each layer makes one more for the gradient
# of its input and one for that of its kernel.
PASSES = 3
FLOPS_OF_A_MULTIPLY_ADD = 2


def markdown(
    title: str, model: keras.Model, rates: Mapping[str, Sequence[float]], failed: Sequence[str]
) -> str:
    """Describe how fast a network trained.

    Parameters
    ----------
    title
        Of the table.
    model
        The network.
    rates
        Of every contestant; `TORCH` begins the names of several, or of none.
    failed
        Names of those that could not run.
    """
    cost = multiply_adds(model)
    flops = PASSES * FLOPS_OF_A_MULTIPLY_ADD * cost
    peak = rates[MATRIX_PRODUCT]
    lines = [
        f"### {title}",
        "",
        f"{model.count_params():,} parameters, {cost / 1e6:.1f} million multiply-adds a patch. "
        f"Float32 matrix products reach {statistics.median(peak) / 1e9:,.0f} GFLOP/s.",
        "",
        "| | patches/s | share of the matrix products' rate |",
        "| --- | --- | --- |",
    ]
    for name, values in rates.items():
        if name != MATRIX_PRODUCT:
            share = flops * _median_ratio(values, peak)
            lines.append(f"| {name} | {statistics.median(values):,.0f} | {share:.0%} |")
    lines += [f"| {name} | failed | |" for name in failed]
    lines += ["", "| ratio | median (range) |", "| --- | --- |"]
    pairs = [(EPOCH, STEP), (BARE_FIT, STEP)]
    twins = [name for name in rates if name.startswith(TORCH)]
    if twins:
        best = max(twins, key=lambda name: statistics.median(rates[name]))
        pairs += [(STEP, best), (EPOCH, best)]
    for one, other in pairs:
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {_letter(one)} / {_letter(other)} | {spread} |")
    if twins:
        lines += ["", f"(d) at its best: {best.removeprefix(TORCH)}."]
    lines += [
        "",
        "Medians of the rounds, ratios and shares within a round. A training step is counted as "
        f"{PASSES} forward passes of {FLOPS_OF_A_MULTIPLY_ADD} flops a multiply-add.",
        "",
    ]
    return "\n".join(lines)


def _median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def _letter(contestant: str) -> str:
    """Give the `(a)` that a contestant's name begins with."""
    return contestant.partition(" ")[0]
