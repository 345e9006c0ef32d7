"""Metrics and thresholds, checked against scikit-learn and by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn import metrics

from nodules.evaluation.metrics import (
    calibration_curve,
    calibration_line,
    choose_threshold,
    expected_calibration_error,
    predictive_values,
    score,
    sensitivity_at_specificity,
)
from nodules.evaluation.params import ThresholdParams
from nodules.statistics.bootstrap import PairedScores
from nodules.statistics.decision import called
from tests.support.predictions import predictions

# Twelve patches, whose confusion matrix at 0.5 is tn 5, fp 2, fn 1, tp 4.
LABELS = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=np.uint8)
PROBABILITIES = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.6, 0.7, 0.35, 0.55, 0.6, 0.8, 0.95])


@given(case=predictions(), threshold=st.floats(0, 1))
def test_scores_are_those_of_scikit_learn(case, threshold: float) -> None:
    labels, probabilities = case
    found = score(labels, probabilities, threshold=threshold, calibration_bins=10)
    calls = probabilities >= threshold
    zero = {"zero_division": 0.0}
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, probabilities))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, calls))
    assert found.sensitivity == pytest.approx(metrics.recall_score(labels, calls, **zero))
    assert found.specificity == pytest.approx(
        metrics.recall_score(labels, calls, pos_label=0, **zero)
    )
    assert found.precision == pytest.approx(metrics.precision_score(labels, calls, **zero))
    assert found.npv == pytest.approx(metrics.precision_score(labels, calls, pos_label=0, **zero))
    assert found.f1 == pytest.approx(metrics.f1_score(labels, calls, **zero))
    assert found.brier == pytest.approx(np.mean((probabilities - labels) ** 2))
    assert found.average_precision == pytest.approx(
        metrics.average_precision_score(labels, probabilities)
    )


def test_sensitivity_is_read_off_the_roc_at_a_specificity() -> None:
    # Above 0.7 are no non-nodules and 2 of 5 nodules; above 0.6 is one of 7 non-nodules.
    assert sensitivity_at_specificity(LABELS, PROBABILITIES, 0.9) == 2 / 5
    assert sensitivity_at_specificity(LABELS, PROBABILITIES, 6 / 7) == 2 / 5
    assert sensitivity_at_specificity(LABELS, PROBABILITIES, 5 / 7) == 4 / 5


@pytest.mark.parametrize("negatives", range(20, 120, 7))
def test_a_specificity_that_is_reached_exactly_counts(negatives: int) -> None:
    for above in range(1, negatives):
        # One nodule lies below that many non-nodules and above the others.
        probabilities = np.array([0.5] + [0.9] * above + [0.1] * (negatives - above))
        labels = np.array([1] + [0] * negatives)
        specificity = (negatives - above) / negatives
        assert sensitivity_at_specificity(labels, probabilities, specificity) == 1
        rule = ThresholdParams(rule="specificity", value=specificity)
        assert choose_threshold(labels, probabilities, rule) == 0.5


@given(case=predictions(), specificity=st.floats(0.01, 0.99))
def test_no_threshold_does_better_at_a_specificity(case, specificity: float) -> None:
    labels, probabilities = case
    reached = [0.0]
    for threshold in np.unique(probabilities):
        calls = probabilities >= threshold
        if (~calls)[labels == 0].mean() >= specificity:
            reached.append(calls[labels == 1].mean())
    found = sensitivity_at_specificity(labels, probabilities, specificity)
    assert found == pytest.approx(max(reached))


def test_scores_worked_by_hand() -> None:
    found = score(LABELS, PROBABILITIES, threshold=0.5, calibration_bins=2)
    assert found.sensitivity == 4 / 5
    assert found.specificity == 5 / 7
    assert found.precision == 4 / 6
    assert found.npv == 5 / 6
    # The nodule ranks higher in all of 35 pairs but 0.35 < 0.4, 0.6, 0.7; 0.55 < 0.6, 0.7; 0.6 <
    # 0.7 and the tie at 0.6.
    assert found.auc == pytest.approx((35 - 6 - 0.5) / 35)
    # Below 0.5: mean probability 1.55 / 6, 1 nodule in 6. From 0.5: mean 4.2 / 6, 4 in 6.
    assert found.ece == pytest.approx((abs(1.55 - 1) + abs(4.2 - 4)) / 12)


@given(case=predictions(), bins=st.integers(2, 20))
def test_calibration_bins_hold_every_patch_once(case, bins: int) -> None:
    labels, probabilities = case
    curve = calibration_curve(labels, probabilities, bins)
    assert sum(bin_.patches for bin_ in curve) == len(labels)
    assert sum(b.patches * b.nodule_fraction for b in curve) == pytest.approx(labels.sum())
    assert sum(b.patches * b.probability for b in curve) == pytest.approx(probabilities.sum())
    assert 0 <= expected_calibration_error(curve) <= 1


def test_probabilities_that_are_frequencies_are_calibrated() -> None:
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1], dtype=np.uint8)
    probabilities = np.array([0.25] * 4 + [0.75] * 4)
    assert score(labels, probabilities, threshold=0.5, calibration_bins=10).ece == 0


def test_the_partial_auc_is_the_standardised_area_at_high_specificities() -> None:
    found = score(LABELS, PROBABILITIES, threshold=0.5, calibration_bins=2).partial_auc
    # Up to a false positive rate of 0.1, the ROC is flat at 2/5 of the nodules. McClish: half of 1
    # plus the area's position between that of the diagonal, 0.1^2 / 2, and the largest, 0.1.
    assert found == pytest.approx((1 + (0.1 * 2 / 5 - 0.005) / (0.1 - 0.005)) / 2)


@given(slope=st.floats(0.31, 3), intercept=st.floats(-2, 2))
def test_the_calibration_line_undoes_a_distortion_of_the_log_odds(
    slope: float, intercept: float
) -> None:
    # Of 100 patches at each true probability, exactly that many are nodules. At these slopes, no
    # probability is so close to 0 or 1 that it is clipped.
    nodules = np.array([5, 20, 50, 80, 95])
    labels = np.concatenate([np.repeat([1, 0], [count, 100 - count]) for count in nodules])
    odds = np.repeat((np.log(nodules / (100 - nodules)) - intercept) / slope, 100)
    line = calibration_line(labels.astype(np.uint8), 1 / (1 + np.exp(-odds)))
    assert line == pytest.approx((slope, intercept), abs=1e-5)


def test_without_overlap_of_the_classes_there_is_no_calibration_line() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    for probabilities in ([0.1, 0.4, 0.4, 0.9], [0.9, 0.8, 0.2, 0.1], [0.3] * 4, [0.0, 0, 1, 1]):
        assert calibration_line(labels, np.array(probabilities)) is None


def test_certain_mistakes_have_a_finite_calibration_line() -> None:
    probabilities = np.array([0, 0, 1, 0, 1, 1], np.float32)
    line = calibration_line(np.array([0, 0, 0, 1, 1, 1], np.uint8), probabilities)
    # Two of three are right on each side: odds of 2, at log odds of 1e7.
    assert line == pytest.approx((np.log(2) / np.log(1e7), 0), abs=1e-6)


def test_predictive_values_at_the_splits_own_prevalence_are_its_precision_and_npv() -> None:
    found = score(LABELS, PROBABILITIES, threshold=0.5, calibration_bins=2)
    values = predictive_values(found.sensitivity, found.specificity, 5 / 12)
    assert values == pytest.approx((found.precision, found.npv))


def test_predictive_values_at_a_low_prevalence_worked_by_hand() -> None:
    # Of 1,000 candidates, 8 of 10 nodules and 99 of 990 others are called.
    assert predictive_values(0.8, 0.9, 0.01) == pytest.approx((8 / 107, 891 / 893))
    assert predictive_values(0, 1, 0.01) == (0, 0.99)


def operating_point(threshold: float) -> tuple[float, float]:
    found = score(LABELS, PROBABILITIES, threshold=threshold, calibration_bins=2)
    return found.sensitivity, found.specificity


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("youden", 0.0, (1, 4 / 7)),
        ("f1", 0.0, (1, 4 / 7)),
        ("sensitivity", 0.8, (4 / 5, 5 / 7)),
        ("sensitivity", 0.81, (1, 4 / 7)),
        ("specificity", 0.98, (2 / 5, 1)),
        ("specificity", 0.8, (2 / 5, 1)),
        ("specificity", 0.7, (4 / 5, 5 / 7)),
        ("fixed", 0.5, (4 / 5, 5 / 7)),
    ],
)
def test_each_rule_finds_its_operating_point(rule, value: float, expected) -> None:
    threshold = choose_threshold(LABELS, PROBABILITIES, ThresholdParams(rule=rule, value=value))
    assert operating_point(threshold) == pytest.approx(expected)


@given(
    case=predictions(), value=st.floats(0, 1), rule=st.sampled_from(["sensitivity", "specificity"])
)
def test_the_rules_reach_their_value_at_the_least_cost(case, value: float, rule) -> None:
    labels, probabilities = case
    chosen = choose_threshold(labels, probabilities, ThresholdParams(rule=rule, value=value))
    other = "specificity" if rule == "sensitivity" else "sensitivity"
    points = [
        score(labels, probabilities, threshold=t, calibration_bins=2)._asdict()
        for t in np.unique(probabilities)
    ]
    found = score(labels, probabilities, threshold=chosen, calibration_bins=2)._asdict()
    reaching = [point for point in points if point[rule] >= value]
    if reaching:
        assert found[rule] >= value
        assert found[other] == max(point[other] for point in reaching)
    else:
        assert found[rule] == max(point[rule] for point in points)


def exact_merit(labels: np.ndarray, calls: np.ndarray, rule: str) -> Fraction:
    """Return Youden's index or F1 without rounding."""
    nodules, true = int(labels.sum()), int(labels[calls].sum())
    others, false = len(labels) - nodules, int(calls.sum()) - true
    if rule == "youden":
        return Fraction(true, nodules) - Fraction(false, others)
    return Fraction(2 * true, true + false + nodules)


# Labels in ascending order of probability. Sums of rounded rates prefer lower thresholds in both:
# Youden's index is 1/3 at three of them, F1 2/3 at two.
@example(labels=[0, 1, 0, 1, 0, 1], rule="youden")
@example(labels=[1, 0, 0, 1, 0, 1, 0, 1], rule="f1")
@given(
    labels=st.lists(st.integers(0, 1), min_size=2, max_size=40).filter(
        lambda x: 0 < sum(x) < len(x)
    ),
    rule=st.sampled_from(["youden", "f1"]),
)
def test_of_thresholds_that_are_as_good_the_highest_is_chosen(labels, rule) -> None:
    truth = np.array(labels, np.uint8)
    probabilities = np.linspace(0.1, 0.9, len(truth))
    merits = [exact_merit(truth, probabilities >= t, rule) for t in probabilities]
    highest = max(i for i, merit in enumerate(merits) if merit == max(merits))
    chosen = choose_threshold(truth, probabilities, ThresholdParams(rule=rule, value=0))
    assert chosen == probabilities[highest]


def test_a_threshold_between_float32_and_float64_decides_alike_everywhere() -> None:
    # The network's probability nearest to 0.7 is just below it, the one nearest to 0.3 above.
    labels = np.array([0, 0, 1, 1], np.uint8)
    single = np.array([0.1, 0.7, 0.7, 0.9], np.float32)
    for probabilities in (single, single.astype(np.float64)):
        assert called(probabilities, 0.7).tolist() == [False, False, False, True]
        assert called(probabilities, np.array([[0.7], [0.3]])).sum(axis=1).tolist() == [1, 3]
        found = score(labels, probabilities, threshold=0.7, calibration_bins=2)
        assert (found.sensitivity, found.specificity) == (1 / 2, 1)
        paired = PairedScores(labels, None, probabilities[None], np.array([0.7])).observed()
        assert (paired["sensitivity"], paired["specificity"]) == (1 / 2, 1)


def test_a_probability_is_in_one_calibration_bin_before_and_after_it_is_written() -> None:
    # The float32 nearest to 0.7 is below it. Times 10, it is 7 in single precision.
    probabilities = np.array([0.7, 0.75], np.float32)
    labels = np.array([0, 1], np.uint8)
    for each in (probabilities, probabilities.astype(np.float64)):
        assert [bin_.patches for bin_ in calibration_curve(labels, each, 10)] == [1, 1]
