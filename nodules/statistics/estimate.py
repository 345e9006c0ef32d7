"""A value with its confidence interval."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """A value and the limits of its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0
