"""The block `split` of params.yaml."""

from typing import Literal, Self

from pydantic import model_validator

from nodules.schema import Block, Fraction


class SplitParams(Block):
    """Fractions of the splits and treatment of near-duplicates.

    Attributes
    ----------
    by
        What stays in one split: `group`, or only the single `patch`, whose scores are optimistic if
        patches of a group resemble each other. `published` takes the data set's `published_split`,
        for a comparison with results that others report on it; its groups may span splits.
    train, val, test
        Fractions of the patches, and of the nodules, that go to each split; they add up to 1.
    near_duplicates
        What happens to patches of the same piece of a scan: `report` counts the pairs that span
        two splits, `together` assigns such patches to the same split, `fail` stops if a pair
        spans two splits.
    irrelevant
        What happens to patches that the data set calls `irrelevant`: `keep` them,
        `drop_from_train`, or `drop` them from all splits.
    """

    by: Literal["group", "patch", "published"]
    train: Fraction
    val: Fraction
    test: Fraction
    near_duplicates: Literal["report", "together", "fail"]
    irrelevant: Literal["keep", "drop_from_train", "drop"]

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:.6g}, expected 1")
        return self
