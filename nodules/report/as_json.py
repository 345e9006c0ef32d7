"""The comparison report as JSON."""

import json
from typing import Any

from nodules.comparison.verdict import ALPHA, POWER, PairedComparison
from nodules.report.content import Report, auc_method, revision_warning
from nodules.statistics.estimate import Estimate


def as_json(report: Report) -> str:
    """Return all computed values as JSON, unrounded."""
    predictions = report.baseline.predictions
    content: dict[str, Any] = {
        "test_patches": len(predictions.labels),
        "nodules": int(predictions.labels.sum()),
        "groups": None if predictions.groups is None else len(set(predictions.groups)),
        "alpha": ALPHA,
        "power": POWER,
        "confidence_of_differences": report.compared.confidence,
        "margin": report.compared.margin,
        "revisions": [
            {
                "name": revision.name,
                "commit": revision.commit or None,
                "threshold": revision.threshold,
                "warning": revision_warning(revision),
                "scores": {name: _estimate(score) for name, score in scores.items()},
            }
            for revision, scores in zip(report.revisions, report.compared.scores, strict=True)
        ],
        "comparisons": [
            {
                "baseline": report.baseline.name,
                "candidate": candidate.name,
                "verdict": str(comparison.verdict),
                "within_margin": comparison.within_margin and str(comparison.within_margin),
                "auc_test": _auc_test(report, comparison),
                "detectable_difference": comparison.detectable,
                "required_patches": comparison.required_sample,
                "mcnemar": {
                    "only_baseline_right": comparison.only_baseline_right,
                    "only_candidate_right": comparison.only_candidate_right,
                    "p": comparison.mcnemar_p,
                    "p_adjusted": comparison.mcnemar_p_adjusted,
                },
                "differences": {
                    name: _estimate(difference)
                    for name, difference in comparison.differences.items()
                },
                "params": _changed_values(report.baseline.params, candidate.params),
                "environment": _changed_packages(report.baseline.packages, candidate.packages),
            }
            for candidate, comparison in report.pairs
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _auc_test(report: Report, comparison: PairedComparison) -> dict[str, Any] | None:
    test = comparison.auc_test
    if test is None:
        return None
    return {
        "method": auc_method(report, test),
        "standard_error": test.standard_error,
        "degrees_of_freedom": None if test.is_permutation else test.degrees_of_freedom,
        "p": test.p_value,
        "p_adjusted": comparison.p_adjusted,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    """Return a value and its limits, null if they are unknown."""
    limits = estimate[1:] if estimate.has_limits else (None, None)
    return dict(zip(Estimate._fields, (estimate.value, *limits), strict=True))


def _changed_packages(
    baseline: dict[str, str], candidate: dict[str, str]
) -> dict[str, dict[str, str]]:
    """Return the versions of the packages that both record, where they differ."""
    both = baseline.keys() & candidate.keys()
    return _changed_values(
        {package: baseline[package] for package in both},
        {package: candidate[package] for package in both},
    )


def _changed_values(
    baseline: dict[str, Any], candidate: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    return {
        key: {
            "baseline": _json_value(baseline.get(key)),
            "candidate": _json_value(candidate.get(key)),
        }
        for key in sorted({*baseline, *candidate})
        if baseline.get(key) != candidate.get(key)
    }


def _json_value(value: Any) -> Any:
    """Return a parameter value, or its text if JSON cannot represent it (dates, infinity)."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
