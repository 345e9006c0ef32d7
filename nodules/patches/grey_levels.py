"""Distribution of the grey levels of patches, which shows whether their range was right."""

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Patches

# 12-bit values that were taken for 16 bits end up in 16 levels.
FEW_LEVELS = 16
# Fraction of the pixels below, and above, the levels that count.
TAIL = 0.01


class GreyLevels:
    """Histogram of the grey levels of many patches."""

    def __init__(self) -> None:
        self._histogram: NDArray[np.int64] = np.zeros(256, np.int64)

    def add(self, patches: Patches) -> None:
        """Count the pixels of patches."""
        self._histogram += np.bincount(patches.ravel(), minlength=256)

    def percentile(self, fraction: float) -> int:
        """Return the grey level up to which a fraction of the pixels lie."""
        cumulative = self._histogram.cumsum() / self._histogram.sum()
        return int(np.searchsorted(cumulative, fraction))

    def warning(self) -> str:
        """Return a warning if nearly all pixels lie within a few grey levels, otherwise nothing."""
        low, high = self.percentile(TAIL), self.percentile(1 - TAIL)
        if high - low > FEW_LEVELS:
            return ""
        found = f"98% of all pixels lie in grey levels {low} to {high} of 0..255"
        return f"{found}: was X scaled to the wrong range?"
