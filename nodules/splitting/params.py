"""The block `split` of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
    folds
        Number of folds of a cross-validation, which replaces the fractions; None for none.
    fold
        The fold that is test, from 0. The next one is val, cyclically, and the others are train.
    """

    by: Literal["group", "patch", "published"]
    train: Fraction
    val: Fraction
    test: Fraction
    near_duplicates: Literal["report", "together", "fail"]
    irrelevant: Literal["keep", "drop_from_train", "drop"]
    folds: Annotated[int, Field(ge=3, le=100)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:.6g}, expected 1")
        return self

    @model_validator(mode="after")
    def _have_this_fold(self) -> Self:
        if self.folds is not None:
            if self.fold >= self.folds:
                raise ValueError(f"found fold {self.fold}, expected 0 to {self.folds - 1}")
            if self.by == "published":
                raise ValueError("found folds of a published split, expected by: group or patch")
        return self

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Fractions of the patches, and of the nodules, for train, val and test."""
        if self.folds is None:
            return self.train, self.val, self.test
        return (self.folds - 2) / self.folds, 1 / self.folds, 1 / self.folds
