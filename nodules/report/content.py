"""The sentences and tables of a comparison report, shared by all output formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nodules.comparison.revisions import Revision, check_same_test_set
from nodules.comparison.verdict import (
    ALPHA,
    CONFIDENCE,
    POWER,
    Classifier,
    ComparedClassifiers,
    Obstacle,
    PairedComparison,
    TestedDifference,
    Verdict,
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
# With fewer groups, percentile intervals of the group bootstrap are too narrow.
FEW_GROUPS = 20


class Table(NamedTuple):
    """A table of text cells."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """A comparison of revisions on the same test patches.

    Attributes
    ----------
    revisions
        Baseline, then the candidates.
    compared
        Their scores and the comparisons with the baseline.
    same_pixels
        Whether the test patches are known to be pixel-identical. False if the pixels were not
        available.
    """

    revisions: list[Revision]
    compared: ComparedClassifiers
    same_pixels: bool = True

    @property
    def baseline(self) -> Revision:
        """The baseline."""
        return self.revisions[0]

    @property
    def pairs(self) -> list[tuple[Revision, PairedComparison]]:
        """Each candidate with its comparison with the baseline."""
        return list(zip(self.revisions[1:], self.compared.comparisons, strict=True))


def make_report(revisions: Sequence[Revision], *, resamples: int) -> Report:
    """Compare the candidates with the baseline.

    Parameters
    ----------
    revisions
        Baseline, then at least one candidate.
    resamples
        Number of bootstrap resamples.

    Raises
    ------
    RevisionError
        If the test sets differ, or have fewer than two patches of a class.
    """
    baseline = revisions[0]
    same_pixels = [check_same_test_set(baseline, candidate) for candidate in revisions[1:]]
    predictions = baseline.predictions
    nodules = int(predictions.labels.sum())
    if min(nodules, len(predictions.labels) - nodules) < 2:
        problem = f"found {nodules} nodules among {len(predictions.labels)} test patches"
        raise RevisionError(baseline.name, f"{problem}, expected at least two of each class")
    classifiers = [
        Classifier(revision.predictions.probabilities, revision.threshold) for revision in revisions
    ]
    compared = compare_classifiers(
        predictions.labels, predictions.groups, classifiers, resamples=resamples
    )
    return Report(list(revisions), compared, all(same_pixels))


def check_none_worse(report: Report) -> None:
    """Check that no candidate is worse than the baseline.

    Raises
    ------
    RevisionError
        If the verdict on any of them is worse.
    """
    worse = [
        candidate.name
        for candidate, comparison in report.pairs
        if comparison.verdict is Verdict.WORSE
    ]
    if worse:
        problem = f"found a worse AUC than {report.baseline.name}, expected none"
        raise RevisionError(", ".join(worse), problem)


def versus(baseline: str, candidate: str) -> str:
    """Return the names of a candidate and the baseline."""
    return f"{candidate} vs. {baseline}"


def comparison_of(baseline: str, *candidates: str) -> str:
    """Return a title for the comparison of the candidates with the baseline."""
    *others, last = candidates
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"Comparison of {listed} with {baseline}"


def title(report: Report) -> str:
    """Return a title with the conclusion, if there is one candidate."""
    heading = comparison_of(*(revision.name for revision in report.revisions))
    if len(report.pairs) > 1:
        return heading
    return f"{heading}: {_conclusion(report.pairs[0][1])}"


def subject(report: Report) -> str:
    """Return a description of the revisions and their test set."""
    names = [
        f"{revision.name} ({revision.commit})" if revision.commit else revision.name
        for revision in report.revisions
    ]
    predictions = report.baseline.predictions
    counts = f"nodules: {int(predictions.labels.sum()):,}"
    if predictions.groups is not None:
        counts += f", groups: {len(set(predictions.groups)):,}"
    return (
        f"{comparison_of(*names)} on the same {len(predictions.labels):,} test patches ({counts})"
    )


def verdict(report: Report, candidate: Revision, comparison: PairedComparison) -> str:
    """Return the verdict on a candidate's AUC, with the difference, interval and p-value.

    If these alone suggest another verdict, the reason follows.
    """
    p_value = p_text(comparison.auc.p_holm, "adjusted p" if len(report.pairs) > 1 else "p")
    estimate = comparison.auc.estimate
    interval = f"{CONFIDENCE:.0%} CI {_interval_text(estimate)}"
    difference = f"{estimate.value:+.3f}, {interval}, {p_value}"
    names = versus(report.baseline.name, candidate.name)
    reason = _reason(report, comparison)
    return f"{names}: {_conclusion(comparison)} ({difference}){f': {reason}' if reason else ''}"


def _conclusion(comparison: PairedComparison) -> str:
    found = comparison.verdict
    return f"{found} in AUC" if found is Verdict.NO_EVIDENCE else f"{found} AUC"


def _reason(report: Report, comparison: PairedComparison) -> str:
    """Return why there is no evidence although the p-value or the interval suggests some."""
    test = auc_test(report)
    if comparison.obstacle is Obstacle.TOO_FEW_GROUPS:
        return "too few groups for Obuchowski's test, and DeLong's ignores groups"
    if comparison.obstacle is Obstacle.INTERVAL_INCLUDES_ZERO:
        bootstrap = _interval_text(comparison.differences["auc"])
        return f"{test}'s test is significant, but the bootstrap interval {bootstrap} includes 0"
    if comparison.obstacle is Obstacle.NOT_SIGNIFICANT and comparison.auc.p_value < ALPHA:
        unadjusted = p_text(comparison.auc.p_value, "p")
        return f"{unadjusted} before the adjustment for {len(report.pairs)} comparisons"
    return ""


def auc_test(report: Report) -> str:
    """Return the name of the test that determines the verdicts."""
    return "Obuchowski" if report.compared.clustered else "DeLong"


def revision_warning(revision: Revision) -> str | None:
    """Return a warning if the predicted probabilities are practically constant, or None."""
    return constant_predictions(revision.predictions.probabilities, "test patches")


def warnings(report: Report) -> list[str]:
    """Return a warning for each revision whose predictions are practically constant."""
    problems = ((revision.name, revision_warning(revision)) for revision in report.revisions)
    return [f"Warning: {name}: {problem}" for name, problem in problems if problem]


def required_sample_text(report: Report, comparison: PairedComparison) -> str:
    """Return a sentence on the number of test patches needed to detect the AUC difference."""
    if comparison.required_sample is None:
        return "The AUCs are equal."
    in_groups = " in groups of similar size" if report.compared.clustered else ""
    return (
        f"Detecting this difference with {POWER:.0%} power would take about "
        f"{comparison.required_sample:,} test patches{in_groups}; "
        f"this test set has {len(report.baseline.predictions.labels):,}."
    )


def p_text(p_value: float, prefix: str = "") -> str:
    """Return a p-value as text: two significant digits, at most four decimals.

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
    """Return a table of the scores of the baseline and a candidate, with their differences."""
    position = report.revisions.index(candidate)
    baseline_scores, candidate_scores = report.compared.scores[0], report.compared.scores[position]
    several = len(report.pairs) > 1
    rows = []
    for name, title in SCORE_NAMES.items():
        values = [
            title,
            f"{baseline_scores[name].value:.3f}",
            f"{candidate_scores[name].value:.3f}",
        ]
        bootstrap = _difference_cells(comparison.differences[name])
        if name == "auc":
            rows.append([*values, *_tested_cells(comparison.auc), auc_test(report)])
            if report.compared.clustered:
                rows.append(["", "", "", *_tested_cells(comparison.delong), "DeLong"])
            rows.append(["", "", "", *bootstrap, "", "bootstrap"])
        elif name == "accuracy":
            p_value = p_text(comparison.mcnemar_p_holm)
            rows.append([*values, *bootstrap, p_value, "bootstrap (p: McNemar)"])
        else:
            rows.append([*values, *bootstrap, "", "bootstrap"])
    head = ["", report.baseline.name, candidate.name, "difference", f"{CONFIDENCE:.0%} CI"]
    head += ["p (Holm)" if several else "p", "method"]
    names = versus(report.baseline.name, candidate.name)
    return Table(f"{names}: scores on the test patches", head, rows)


def _tested_cells(tested: TestedDifference) -> list[str]:
    return [*_difference_cells(tested.estimate), p_text(tested.p_holm)]


def _difference_cells(estimate: Estimate) -> list[str]:
    return [f"{estimate.value:+.3f}", _interval_text(estimate)]


def _interval_text(estimate: Estimate) -> str:
    return f"{estimate.low:+.3f} to {estimate.high:+.3f}"


def scores_table(report: Report) -> Table:
    """Return a table of the scores of all revisions, with confidence intervals."""
    rows = [
        [title, *(_score_text(scores[name]) for scores in report.compared.scores)]
        for name, title in SCORE_NAMES.items()
    ]
    rows.append(["threshold", *(f"{revision.threshold:.3f}" for revision in report.revisions)])
    title = f"Scores with {CONFIDENCE:.0%} confidence intervals"
    return Table(title, ["", *(revision.name for revision in report.revisions)], rows)


def _score_text(score: Estimate) -> str:
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def params_table(report: Report) -> Table:
    """Return a table of the parameters and package versions that differ between revisions.

    A package is compared between the revisions that record its version.
    """
    rows = []
    for key in sorted({key for revision in report.revisions for key in revision.params}):
        values = [_value_text(revision.params, key) for revision in report.revisions]
        if len(set(values)) > 1:
            rows.append([key, *values])
    for package in sorted({key for revision in report.revisions for key in revision.packages}):
        recorded = [revision.packages.get(package) for revision in report.revisions]
        if len({*recorded} - {None}) > 1:
            rows.append([f"environment: {package}", *(version or "-" for version in recorded)])
    head = ["parameter", *(revision.name for revision in report.revisions)]
    return Table("Changed parameters", head, rows)


def _value_text(params: dict[str, Any], key: str) -> str:
    return str(params[key]) if key in params else "-"


def notes(report: Report) -> list[str]:
    """Return sentences on the statistical methods and the limitations of the comparison."""
    groups = report.baseline.predictions.groups
    if report.compared.clustered:
        method = (
            "Obuchowski's test and the bootstrap treat groups as independent and allow for "
            "correlation within a group. DeLong's test treats all patches as independent and is "
            "shown for reference. The verdict is better or worse only if Obuchowski's test and the "
            "bootstrap agree."
        )
    elif groups is None:
        method = (
            "The data set has no groups, so DeLong's test and the bootstrap treat patches as "
            "independent. The verdict is better or worse only if both agree."
        )
    else:
        method = (
            "Nodules or non-nodules come from fewer than two groups, too few for Obuchowski's "
            "test, so the verdict is always no evidence of a difference. DeLong's test ignores "
            "correlation within a group."
        )
    sentences = [
        method,
        "Sensitivity, specificity and accuracy are at each revision's own threshold. "
        "A lower Brier score is better.",
        "Average precision, accuracy and Brier score depend on the test set's fraction of nodules "
        f"({report.baseline.predictions.labels.mean():.1%}).",
        "The comparison is between these trained networks and does not include the variation "
        "between training seeds.",
    ]
    if groups is not None and len(set(groups)) < FEW_GROUPS:
        sentences.append(
            f"There are few groups ({len(set(groups))}), so the bootstrap intervals are too narrow."
        )
    if not report.same_pixels:
        sentences.append(
            "The pixels of the test patches were not compared, because a dvc.lock does not record "
            "data/splits/test.h5. Rows, labels and groups are identical."
        )
    if any(revision.stale for revision in report.revisions):
        sentences.append(
            "The workspace has changed since its last `dvc repro`, so its results may be outdated."
        )
    if len(report.pairs) > 1:
        sentences.append(f"p-values are Holm-adjusted for {len(report.pairs)} comparisons.")
    return sentences
