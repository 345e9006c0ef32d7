"""Grey-level windows: the values that become black and white."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodules.errors import NodulesError


@dataclass(frozen=True)
class Window:
    """The values that become grey 0 and grey 255.

    Raises
    ------
    NodulesError
        If `low` is not below `high`, or either is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            problem = f"found {self.low:g} to {self.high:g}, expected LOW below HIGH"
            raise NodulesError(f"window: {problem}")

    def grey(self, values: NDArray[np.number]) -> NDArray[np.uint8]:
        """Clip to the window, map it linearly to 0..255, and round to nearest."""
        # Clip first to avoid overflow.
        clipped = np.clip(values.astype(np.float64), self.low, self.high)
        scaled = (clipped - self.low) * 255 / (self.high - self.low)
        grey: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
        return grey


HOUNSFIELD = Window(-1000, 400)
EIGHT_BITS = Window(0, 255)
SIXTEEN_BITS = Window(0, 65535)
UNIT = Window(0, 1)
