"""The block `split` of params.yaml."""

from typing import Literal, Self

from pydantic import model_validator

from nodules.schema import Block, Fraction


class SplitParams(Block):
    """Fractions of the splits and treatment of near-duplicates.

    Attributes
    ----------
    train, val, test
        Fraction of the patches in each split; the three add up to 1.
    near_duplicates
        Action on patches that show the same part of a scan: `report` counts those in different
        splits, `together` joins them before splitting, `fail` stops if any are in different
        splits.
    """

    train: Fraction
    val: Fraction
    test: Fraction
    near_duplicates: Literal["report", "together", "fail"]

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:.6g}, expected 1")
        return self
