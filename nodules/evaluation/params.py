"""The block `evaluate` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from nodules.inference.views import Views
from nodules.schema import Block, Count, Fraction, Probability


class ThresholdParams(Block):
    """The rule that picks the operating point on the validation split.

    Attributes
    ----------
    rule
        `youden`: largest sensitivity + specificity - 1; `f1`: largest F1; `sensitivity` or
        `specificity`: the point that reaches `value` at the least cost to the other; `fixed`:
        `value` itself.
    value
        What the last three rules need; the first two leave it aside.
    """

    rule: Literal["youden", "f1", "sensitivity", "specificity", "fixed"]
    value: Probability


class EvaluateParams(Block):
    """How predictions are scored and shown.

    Attributes
    ----------
    threshold
        The rule for the operating point.
    bootstrap_resamples
        Resamples behind the confidence interval of the AUC.
    confidence
        Its level.
    calibration_bins
        Equal-width probability bins of the calibration curve and the expected calibration error.
    hardest
        How many false positives and false negatives the picture shows, of each.
    views
        1 scores a patch as it is; 8 averages over its eight symmetric views.
    at_specificity
        The specificity at which the sensitivity is read off the ROC of each split, whatever the
        threshold.
    batch_size
        Patches scored at once on a core.
    """

    threshold: ThresholdParams
    bootstrap_resamples: Annotated[int, Field(ge=100)]
    confidence: Fraction
    calibration_bins: Annotated[int, Field(ge=2)]
    hardest: Count
    views: Views
    at_specificity: Fraction
    batch_size: Count
