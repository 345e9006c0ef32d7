"""The comparison report as JSON."""

import json
from typing import Any

from nodules.comparison.verdict import ALPHA, POWER, TestedDifference
from nodules.report.content import Report, revision_warning


def as_json(report: Report) -> str:
    """Return all computed values as JSON, unrounded."""
    predictions = report.baseline.predictions
    content: dict[str, Any] = {
        "test_patches": len(predictions.labels),
        "nodules": int(predictions.labels.sum()),
        "groups": None if predictions.groups is None else len(set(predictions.groups)),
        "alpha": ALPHA,
        "power": POWER,
        "revisions": [
            {
                "name": revision.name,
                "commit": revision.commit or None,
                "threshold": revision.threshold,
                "warning": revision_warning(revision),
                "scores": {name: score._asdict() for name, score in scores.items()},
            }
            for revision, scores in zip(report.revisions, report.compared.scores, strict=True)
        ],
        "comparisons": [
            {
                "baseline": report.baseline.name,
                "candidate": candidate.name,
                "verdict": str(comparison.verdict),
                "reason": None if comparison.obstacle is None else str(comparison.obstacle),
                "patches_to_see": comparison.required_sample,
                "obuchowski": _test_values(comparison.auc) if report.compared.clustered else None,
                "delong": _test_values(comparison.delong),
                "mcnemar": {
                    "only_baseline_right": comparison.only_baseline_right,
                    "only_candidate_right": comparison.only_candidate_right,
                    "p": comparison.mcnemar_p,
                    "p_holm": comparison.mcnemar_p_holm,
                },
                "bootstrap": {
                    name: difference._asdict()
                    for name, difference in comparison.differences.items()
                },
                "params": _changed_values(report.baseline.params, candidate.params),
                "environment": _changed_packages(report.baseline.packages, candidate.packages),
            }
            for candidate, comparison in report.pairs
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _test_values(difference: TestedDifference) -> dict[str, float]:
    return {
        **difference.estimate._asdict(),
        "p": difference.p_value,
        "p_holm": difference.p_holm,
    }


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
