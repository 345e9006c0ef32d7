"""The report as JSON, for programs."""

import json
from typing import Any

from nodules.comparison.verdict import ALPHA, POWER, TestedDifference
from nodules.report.content import Report, revision_warning


def as_json(report: Report) -> str:
    """Print everything that was computed, unrounded."""
    tested = report.baseline.predictions
    content: dict[str, Any] = {
        "test_patches": len(tested.labels),
        "nodules": int(tested.labels.sum()),
        "groups": None if tested.groups is None else len(set(tested.groups)),
        "alpha": ALPHA,
        "power": POWER,
        "revisions": [
            {
                "name": each.name,
                "commit": each.commit or None,
                "threshold": each.threshold,
                "warning": revision_warning(each),
                "scores": {name: score._asdict() for name, score in scores.items()},
            }
            for each, scores in zip(report.revisions, report.compared.scores, strict=True)
        ],
        "comparisons": [
            {
                "baseline": report.baseline.name,
                "candidate": candidate.name,
                "verdict": str(comparison.verdict),
                "patches_to_see": comparison.patches_to_see,
                "obuchowski": _tested(comparison.auc) if report.compared.clustered else None,
                "delong": _tested(comparison.delong),
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
                "params": _changes(report.baseline.params, candidate.params),
            }
            for candidate, comparison in report.pairs
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _tested(tested: TestedDifference) -> dict[str, float]:
    return {**tested.estimate._asdict(), "p": tested.p_value, "p_holm": tested.p_holm}


def _changes(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        key: {"baseline": _value(ours.get(key)), "candidate": _value(theirs.get(key))}
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    }


def _value(value: Any) -> Any:
    """Return a parameter as JSON can hold it: dates, infinity and others as text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
