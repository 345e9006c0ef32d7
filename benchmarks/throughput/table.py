"""The table that `benchmarks.throughput` prints for each network."""

import statistics
from collections.abc import Mapping, Sequence

import keras

from nodules.models.multiply_adds import multiply_adds

# Patches/s in each round, by measurement; FLOP/s for the matrix product.
Rates = dict[str, list[float]]

EPOCH = "(a) whole epoch of this pipeline"
UNSCORED_EPOCH = "(a) without validation"
BARE_FIT = "(b) epoch of a bare Keras `fit`"
STEP = "(c) training step of this pipeline, one resident batch"
TORCH = "(d) PyTorch, "
MATRIX_PRODUCT = "matrix product"

# A step counts as three forward passes: the backward pass costs one for the gradient of each
# layer's input and one for that of its kernel.
PASSES = 3
FLOPS_OF_A_MULTIPLY_ADD = 2


def markdown(
    title: str, model: keras.Model, rates: Mapping[str, Sequence[float]], failed: Sequence[str]
) -> str:
    """Return the training rates of a network as Markdown tables.

    Parameters
    ----------
    title
        Title of the table.
    model
        Network that was trained.
    rates
        Rates by measurement. Names of PyTorch measurements, if any, start with `TORCH`.
    failed
        Names of the measurements that could not run.
    """
    cost = multiply_adds(model)
    flops = PASSES * FLOPS_OF_A_MULTIPLY_ADD * cost
    peak = rates[MATRIX_PRODUCT]
    lines = [
        f"### {title}",
        "",
        f"{model.count_params():,} parameters, {cost / 1e6:.1f} million multiply-adds per patch. "
        f"Float32 matrix products reach {statistics.median(peak) / 1e9:,.0f} GFLOP/s.",
        "",
        "| | patches/s | fraction of the matrix products' rate |",
        "| --- | --- | --- |",
    ]
    for name, values in rates.items():
        if name != MATRIX_PRODUCT:
            fraction = flops * _median_ratio(values, peak)
            lines.append(f"| {name} | {statistics.median(values):,.0f} | {fraction:.0%} |")
    lines += [f"| {name} | failed | |" for name in failed]
    lines += ["", "| ratio | median (range) |", "| --- | --- |"]
    pairs = [(EPOCH, STEP), (BARE_FIT, STEP)]
    torch_names = [name for name in rates if name.startswith(TORCH)]
    if torch_names:
        best = max(torch_names, key=lambda name: statistics.median(rates[name]))
        pairs += [(STEP, best), (EPOCH, best)]
    for one, other in pairs:
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {_letter(one)} / {_letter(other)} | {spread} |")
    if torch_names:
        lines += ["", f"(d) at its best: {best.removeprefix(TORCH)}."]
    lines += [
        "",
        "Medians of the rounds, ratios and fractions within a round. A training step is counted as "
        f"{PASSES} forward passes of {FLOPS_OF_A_MULTIPLY_ADD} flops per multiply-add.",
        "",
    ]
    return "\n".join(lines)


def _median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def _letter(name: str) -> str:
    """Return the `(a)` at the start of a measurement's name."""
    return name.partition(" ")[0]
