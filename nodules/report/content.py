"""The sentences and tables of a comparison report, shared by all output formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nodules.comparison.revisions import Revision, check_same_test_set
from nodules.comparison.verdict import (
    CONFIDENCE,
    MIN_UNITS,
    POWER,
    Classifier,
    ComparedClassifiers,
    PairedComparison,
    Verdict,
    WithinMargin,
    compare_classifiers,
)
from nodules.errors import RevisionError
from nodules.inference.constant_predictions import constant_predictions
from nodules.statistics.auc_tests import AucTest
from nodules.statistics.estimate import Estimate

SCORE_NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "brier": "Brier score",
}
# With fewer groups, or patches without groups, that hold a class, percentile intervals of the
# bootstrap are too narrow.
FEW_UNITS = 20


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


def make_report(
    revisions: Sequence[Revision], *, resamples: int, margin: float | None = None
) -> Report:
    """Compare the candidates with the baseline.

    Parameters
    ----------
    revisions
        Baseline, then at least one candidate.
    resamples
        Number of bootstrap resamples.
    margin
        Largest decrease in AUC that counts as as good, in 0..1, or None.

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
        predictions.labels,
        predictions.groups,
        classifiers,
        resamples=resamples,
        margin=margin,
    )
    return Report(list(revisions), compared, all(same_pixels))


def check_none_worse(report: Report) -> None:
    """Check that no candidate is worse than the baseline, or that all are non-inferior.

    Raises
    ------
    RevisionError
        Without a margin, if the verdict on any of them is worse. With a margin, if any of them is
        not shown to be non-inferior.
    """
    baseline, margin = report.baseline.name, report.compared.margin
    if margin is None:
        failed = [each for each, comparison in report.pairs if comparison.verdict is Verdict.WORSE]
        problem = f"found a worse AUC than {baseline}, expected none"
    else:
        failed = [
            each
            for each, comparison in report.pairs
            if comparison.within_margin is WithinMargin.NOT_SHOWN
        ]
        problem = (
            f"found no evidence that the AUC is non-inferior to that of {baseline}, expected it "
            f"within a margin of {margin:g}"
        )
    if failed:
        raise RevisionError(", ".join(revision.name for revision in failed), problem)


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
    """Return the verdict on a candidate's AUC, with the difference, interval and p-value."""
    estimate = comparison.differences["auc"]
    details = [f"{estimate.value:+.3f}"]
    if comparison.p_adjusted is not None:
        confidence = f"{_confidence_text(report)} CI " if estimate.has_limits else ""
        details.append(confidence + _interval_text(estimate))
        details.append(p_text(comparison.p_adjusted, _p_name(report)))
    names = versus(report.baseline.name, candidate.name)
    line = f"{names}: {_conclusion(comparison)} ({', '.join(details)})"
    if comparison.within_margin is None:
        return line
    return f"{line}, {comparison.within_margin} within a margin of {report.compared.margin:g}"


def _conclusion(comparison: PairedComparison) -> str:
    found = comparison.verdict
    if found is Verdict.NONE:
        return f"{found} on the AUC"
    return f"{found} in AUC" if found is Verdict.NO_EVIDENCE else f"{found} AUC"


def _confidence_text(report: Report) -> str:
    return f"{100 * report.compared.confidence:.3g}%"


def _p_name(report: Report) -> str:
    return "adjusted p" if len(report.pairs) > 1 else "p"


def auc_method(report: Report, test: AucTest) -> str:
    """Return the name of the method that an interval or a p-value of the AUC is from."""
    if test.is_permutation:
        return "permutation"
    return "DeLong" if report.baseline.predictions.groups is None else "Obuchowski"


def revision_warning(revision: Revision) -> str | None:
    """Return a warning if the predicted probabilities are practically constant, or None."""
    return constant_predictions(revision.predictions.probabilities, "test patches")


def warnings(report: Report) -> list[str]:
    """Return a warning for each revision whose predictions are practically constant."""
    problems = ((revision.name, revision_warning(revision)) for revision in report.revisions)
    return [f"Warning: {name}: {problem}" for name, problem in problems if problem]


def power_text(report: Report, comparison: PairedComparison) -> str:
    """Return which AUC differences the test set can show, or why the test cannot say."""
    test, groups = comparison.auc_test, report.baseline.predictions.groups
    if test is None:
        unit = "patches" if groups is None else "groups"
        return (
            f"{_counts_of_units(report)}. A test needs at least {MIN_UNITS} {unit} of each class."
        )
    if test.standard_error == 0:
        if test.difference.value == 0:
            return "The AUCs are equal."
        unit = "patch" if groups is None else "group"
        return (
            f"The standard error is 0, which gives no interval. The p-value is from exchanging the "
            f"two revisions' ranks within each {unit}."
        )
    if comparison.detectable is None:
        return f"This test set shows no AUC difference with {POWER:.0%} power."
    sentence = (
        f"This test set shows an AUC difference of {comparison.detectable:.3f} or more with "
        f"{POWER:.0%} power."
    )
    if comparison.verdict is not Verdict.NO_EVIDENCE or comparison.required_sample is None:
        return sentence
    low, high = (_two_digits(limit) for limit in comparison.required_sample)
    in_groups = "" if groups is None else " in groups of similar size"
    return (
        f"{sentence} To show the observed one would take about {low:,} to {high:,} test patches"
        f"{in_groups}; it has {len(report.baseline.predictions.labels):,}."
    )


def _two_digits(count: int) -> int:
    return int(float(f"{count:.2g}"))


def _counts_of_units(report: Report) -> str:
    """Return the number of independent units that hold each class."""
    predictions = report.baseline.predictions
    nodule = predictions.labels == 1
    if predictions.groups is None:
        return f"There are {nodule.sum():,} nodules and {(~nodule).sum():,} other patches"
    nodules, others = (
        _plural(len(set(predictions.groups[members])), "group") for members in (nodule, ~nodule)
    )
    return f"Nodules come from {nodules} and other patches from {others}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


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
    rows = []
    for name, title in SCORE_NAMES.items():
        estimate = comparison.differences[name]
        p_value, method = None, "bootstrap" if estimate.has_limits else ""
        if name == "auc" and comparison.auc_test is not None:
            p_value, method = comparison.p_adjusted, auc_method(report, comparison.auc_test)
        elif name == "accuracy" and comparison.mcnemar_p_adjusted is not None:
            p_value, method = comparison.mcnemar_p_adjusted, "bootstrap (p: McNemar)"
        rows.append(
            [
                title,
                f"{baseline_scores[name].value:.3f}",
                f"{candidate_scores[name].value:.3f}",
                f"{estimate.value:+.3f}",
                _interval_text(estimate),
                "" if p_value is None else p_text(p_value),
                method,
            ]
        )
    head = ["", report.baseline.name, candidate.name, "difference"]
    head += [f"{_confidence_text(report)} CI", _p_name(report), "method"]
    names = versus(report.baseline.name, candidate.name)
    return Table(f"{names}: scores on the test patches", head, rows)


def _interval_text(estimate: Estimate) -> str:
    if not estimate.has_limits:
        return "no interval"
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
    test = report.compared.comparisons[0].auc_test
    if test is None:
        unit = "patches" if groups is None else "groups"
        method = f"The bootstrap treats {unit} as independent. With few of them, its intervals are "
        method += "too narrow."
    elif groups is None:
        method = (
            "The data set has no groups, so DeLong's test, McNemar's test and the bootstrap treat "
            "patches as independent."
        )
    else:
        method = (
            "Obuchowski's test, McNemar's test as extended by Durkalski et al. and the bootstrap "
            "treat groups as independent and allow for correlation within a group."
        )
    sentences = [method]
    if test is not None and not all(
        comparison.auc_test and comparison.auc_test.is_permutation for _, comparison in report.pairs
    ):
        sentences.append(
            "The verdict is from the interval and the p-value of the AUC difference, which come "
            f"from a t distribution with {_plural(int(test.degrees_of_freedom), 'degree')} of "
            "freedom."
        )
    sentences += [
        "Sensitivity, specificity and accuracy are at each revision's own threshold. "
        "A lower Brier score is better.",
        "Average precision, accuracy and Brier score depend on the test set's fraction of nodules "
        f"({report.baseline.predictions.labels.mean():.1%}).",
        "The comparison is between these trained networks and does not include the variation "
        "between training seeds.",
    ]
    if report.compared.margin is not None:
        margin = f"{report.compared.margin:g}"
        sentences.append(
            f"A candidate is non-inferior if the interval of the AUC difference lies above "
            f"-{margin}, and equivalent if it also lies below +{margin}."
        )
    if test is not None and test.degrees_of_freedom + 1 < FEW_UNITS:
        sentences.append(
            f"{_counts_of_units(report)}. The verdict allows for so few, but the bootstrap "
            "intervals of the other differences are too narrow."
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
        sentences.append(
            f"For {len(report.pairs)} candidates, p-values are multiplied by {len(report.pairs)} "
            f"and intervals of differences are {_confidence_text(report)} intervals (Bonferroni)."
        )
    return sentences
