"""A value with its confidence interval."""

import math
from typing import NamedTuple


class Estimate(NamedTuple):
    """A value and the limits of its confidence interval, NaN if they are unknown."""

    value: float
    low: float
    high: float

    @classmethod
    def without_limits(cls, value: float) -> "Estimate":
        """Return a value of unknown precision."""
        return cls(value, math.nan, math.nan)

    @property
    def has_limits(self) -> bool:
        """Whether the limits are known."""
        return not math.isnan(self.low)
