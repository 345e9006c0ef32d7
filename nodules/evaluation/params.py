"""The block `evaluate` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from nodules.patches.symmetry import Views
from nodules.schema import Block, Count, Fraction, Probability

CalibrationBins = Annotated[int, Field(ge=2, le=1000)]


class ThresholdParams(Block):
    """The rule that selects the operating point on the validation split.

    Attributes
    ----------
    rule
        `youden`: largest sensitivity + specificity - 1; `f1`: largest F1; `sensitivity` or
        `specificity`: the point that reaches `value` with the highest value of the other; `fixed`:
        `value` itself.
    value
        Value for the last three rules; the first two ignore it.
    """

    rule: Literal["youden", "f1", "sensitivity", "specificity", "fixed"]
    value: Probability


class EvaluateParams(Block):
    """Settings of the metrics and figures.

    Attributes
    ----------
    threshold
        Rule for the operating point.
    confidence
        Level of the confidence intervals.
    calibration_bins
        Number of equal-width bins of the calibration curve and the expected calibration error.
    hardest
        Maximum number of false positives, and of false negatives, in the figure.
    views
        1 scores the patch itself; 8 averages over its eight symmetric views.
    at_specificity
        Specificity at which the sensitivity is read off the ROC of each split, independent of the
        threshold.
    prevalence
        Fraction of nodules among the candidates of the application, for the predictive values
        there. Without it, they are not computed.
    batch_size
        Number of patches scored at once on one core.
    """

    threshold: ThresholdParams
    confidence: Fraction
    calibration_bins: CalibrationBins
    hardest: Count
    views: Views
    at_specificity: Fraction
    prevalence: Fraction | None = None
    batch_size: Count
