"""The block `split` of params.yaml."""

from typing import Literal, Self

from pydantic import model_validator

from nodules.schema import Block, Fraction


class SplitParams(Block):
    """How the data set is divided.

    Attributes
    ----------
    train, val, test
        Share of the patches that each split gets; the three add up to 1.
    near_duplicates
        What happens to patches that show the same piece of a scan: `report` counts those that
        stand in different splits, `together` joins them before splitting, `fail` refuses a split
        with any.
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
