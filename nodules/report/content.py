"""The content of a comparison's report, in words and tables that every form of it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nodules.comparison.revisions import Revision, check_same_test_set
from nodules.comparison.verdict import (
    CONFIDENCE,
    POWER,
    Classifier,
    ComparedClassifiers,
    PairedComparison,
    TestedDifference,
    compare_classifiers,
)
from nodules.errors import RevisionError
from nodules.inference.constant_predictions import constant_predictions
from nodules.statistics.estimate import Estimate

SCORE_NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "brier": "Brier score",
}
# Below this the percentiles of a bootstrap over groups are known to be too narrow.
FEW_GROUPS = 20


class Table(NamedTuple):
    """A table of text."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """Revisions that were compared on the same test patches: the baseline, then the candidates.

    `same_pixels` is False where the pixels of the patches could not be compared.
    """

    revisions: list[Revision]
    compared: ComparedClassifiers
    same_pixels: bool = True

    @property
    def baseline(self) -> Revision:
        """The revision that the others are compared with."""
        return self.revisions[0]

    @property
    def pairs(self) -> list[tuple[Revision, PairedComparison]]:
        """Each candidate with its comparison."""
        return list(zip(self.revisions[1:], self.compared.comparisons, strict=True))


def make_report(revisions: Sequence[Revision], *, resamples: int) -> Report:
    """Compare revisions.

    Parameters
    ----------
    revisions
        The baseline, then at least one candidate.
    resamples
        Of the bootstrap.

    Raises
    ------
    RevisionError
        If their test sets differ, or are too small to be compared on.
    """
    baseline = revisions[0]
    same_pixels = [check_same_test_set(baseline, candidate) for candidate in revisions[1:]]
    tested = baseline.predictions
    nodules = int(tested.labels.sum())
    if min(nodules, len(tested.labels) - nodules) < 2:
        problem = f"found {nodules} nodules among {len(tested.labels)} test patches"
        raise RevisionError(baseline.name, f"{problem}, expected two of each class at least")
    classifiers = [Classifier(each.predictions.probabilities, each.threshold) for each in revisions]
    compared = compare_classifiers(tested.labels, tested.groups, classifiers, resamples=resamples)
    return Report(list(revisions), compared, all(same_pixels))


def subject(report: Report) -> str:
    """Say what was compared, and on what."""
    names = [
        f"{each.name} ({each.commit})" if each.commit else each.name for each in report.revisions
    ]
    tested = report.baseline.predictions
    of_groups = "" if tested.groups is None else f" of {len(set(tested.groups)):,} groups"
    patches = f"{len(tested.labels):,} test patches{of_groups}"
    nodules = int(tested.labels.sum())
    return f"{names[0]} compared with {', '.join(names[1:])} on {patches}, {nodules:,} nodules"


def verdict(report: Report, candidate: Revision, comparison: PairedComparison) -> str:
    """Say in one line whether the candidate is better or worse."""
    p_value = p_text(comparison.auc.p_holm, "adjusted p" if len(report.pairs) > 1 else "p")
    estimate = comparison.auc.estimate
    difference = f"{estimate.value:+.3f}, {interval_text(estimate)}, {p_value}"
    names = f"{candidate.name} against {report.baseline.name}"
    return f"{names}: {comparison.verdict} in AUC ({difference})"


def revision_warning(revision: Revision) -> str | None:
    """Return a sentence on a network that gives all test patches practically one probability."""
    return constant_predictions(revision.predictions.probabilities, "test patches")


def warnings(report: Report) -> list[str]:
    """Return one warning for each revision whose network has learned nothing."""
    found = ((each.name, revision_warning(each)) for each in report.revisions)
    return [f"warning: {name}: {problem}" for name, problem in found if problem]


def outlook(report: Report, comparison: PairedComparison) -> str:
    """Say how many test patches it would take to see a difference of this size."""
    if comparison.patches_to_see is None:
        return "the AUCs are equal"
    in_groups = " in groups like these" if report.compared.clustered else ""
    return (
        f"a difference of this size takes about {comparison.patches_to_see:,} test patches"
        f"{in_groups} to see ({POWER:.0%} power); "
        f"here are {len(report.baseline.predictions.labels):,}"
    )


def interval_text(estimate: Estimate) -> str:
    """Print the interval of a difference."""
    return f"{CONFIDENCE:.0%} interval {estimate.low:+.3f} to {estimate.high:+.3f}"


def p_text(p_value: float, prefix: str = "") -> str:
    """Print a p-value to two digits, as far as it says anything.

    Examples
    --------
    >>> p_text(0.02718, "p"), p_text(0.02718), p_text(1e-9)
    ('p = 0.027', '0.027', '< 0.0001')
    """
    if p_value < 1e-4:
        return f"{prefix} < 0.0001".strip()
    digits = 2 if p_value >= 0.1 else 3 if p_value >= 0.01 else 4
    return f"{prefix} = {p_value:.{digits}f}" if prefix else f"{p_value:.{digits}f}"


def comparison_table(report: Report, candidate: Revision, comparison: PairedComparison) -> Table:
    """Set the scores of the baseline and a candidate side by side, with their differences."""
    position = report.revisions.index(candidate)
    ours, theirs = report.compared.scores[0], report.compared.scores[position]
    several = len(report.pairs) > 1
    rows = []
    for name, title in SCORE_NAMES.items():
        values = [title, f"{ours[name].value:.3f}", f"{theirs[name].value:.3f}"]
        by_groups = _difference_cells(comparison.differences[name])
        if name == "auc":
            by = "Obuchowski" if report.compared.clustered else "DeLong"
            rows.append([*values, *_tested_cells(comparison.auc), by])
            if report.compared.clustered:
                rows.append(["", "", "", *_tested_cells(comparison.delong), "DeLong"])
            rows.append(["", "", "", *by_groups, "", "bootstrap"])
        elif name == "accuracy":
            p_value = p_text(comparison.mcnemar_p_holm)
            rows.append([*values, *by_groups, p_value, "bootstrap; p: McNemar"])
        else:
            rows.append([*values, *by_groups, "", "bootstrap"])
    head = ["", report.baseline.name, candidate.name, "difference", f"{CONFIDENCE:.0%} interval"]
    head += ["p (Holm)" if several else "p", "by"]
    return Table(f"{candidate.name} against {report.baseline.name}", head, rows)


def _tested_cells(tested: TestedDifference) -> list[str]:
    return [*_difference_cells(tested.estimate), p_text(tested.p_holm)]


def _difference_cells(estimate: Estimate) -> list[str]:
    return [f"{estimate.value:+.3f}", f"{estimate.low:+.3f} to {estimate.high:+.3f}"]


def scores_table(report: Report) -> Table:
    """Set the scores of all revisions side by side, each with its interval."""
    rows = [
        [title, *(_score_text(scores[name]) for scores in report.compared.scores)]
        for name, title in SCORE_NAMES.items()
    ]
    rows.append(["threshold", *(f"{each.threshold:.3f}" for each in report.revisions)])
    return Table("Scores", ["", *(each.name for each in report.revisions)], rows)


def _score_text(score: Estimate) -> str:
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def params_table(report: Report) -> Table:
    """List the parameters that are not the same in all revisions."""
    keys = sorted({key for each in report.revisions for key in each.params})
    rows = []
    for key in keys:
        values = [_value_text(each.params, key) for each in report.revisions]
        if len(set(values)) > 1:
            rows.append([key, *values])
    head = ["parameter", *(each.name for each in report.revisions)]
    return Table("Parameters changed", head, rows)


def _value_text(params: dict[str, Any], key: str) -> str:
    return str(params[key]) if key in params else "-"


def notes(report: Report) -> list[str]:
    """Say what the numbers rest on, and where they are weak."""
    groups = report.baseline.predictions.groups
    if report.compared.clustered:
        tested = (
            "Obuchowski's test and the bootstrap take groups as independent, for patches of one "
            "scan are not; DeLong's stands beside them and takes patches as independent. A verdict "
            "other than no evidence needs the first two to agree."
        )
    elif groups is None:
        tested = (
            "DeLong's test takes patches as independent, since the data set has no groups; the "
            "bootstrap draws single patches. A verdict other than no evidence needs both to agree."
        )
    else:
        tested = (
            "There are too few groups with nodules, or with other patches, for evidence of a "
            "difference: DeLong's test takes patches as independent, which those of one scan are "
            "not."
        )
    said = [
        tested,
        "Sensitivity, specificity and accuracy are at each revision's own threshold. "
        "Of the Brier score less is better.",
        "Two trained networks are compared. How much another seed would change either is not "
        "known.",
    ]
    if groups is not None and len(set(groups)) < FEW_GROUPS:
        said.append(f"{len(set(groups))} groups are few: the bootstrap's intervals are too narrow.")
    if not report.same_pixels:
        said.append(
            "The pixels of the test patches were not compared, since a dvc.lock does not name "
            "data/splits/test.h5: rows, labels and groups are the same."
        )
    if any(each.stale for each in report.revisions):
        said.append("The workspace has changed since its last `dvc repro`, which made its results.")
    if len(report.pairs) > 1:
        said.append(f"p-values are adjusted by Holm for {len(report.pairs)} comparisons.")
    return said
