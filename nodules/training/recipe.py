"""The entries of `recipes` and `class_weights` in params.yaml."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from nodules.schema import Block, Count, NonNegative, Positive, Probability


def _rule_or_two_numbers(found: Any) -> Any:
    is_pair = isinstance(found, list) and len(found) == 2
    if found in ("balanced", "none") or (is_pair and all(_is_positive(item) for item in found)):
        return found
    raise ValueError(f"found {found!r}, expected balanced, none or [non-nodule, nodule] above 0")


def _is_positive(found: Any) -> bool:
    return isinstance(found, int | float) and 0 < found < math.inf


# Weights of the classes in the loss: a rule, or [non-nodule, nodule]. The plain validator gives a
# single error; for a union, pydantic would report one per member.
ClassWeights = Annotated[
    Literal["balanced", "none"] | list[float], PlainValidator(_rule_or_two_numbers)
]


class AugmentationParams(Block):
    """Random changes to training patches.

    Attributes
    ----------
    symmetries
        Whether to apply one of the eight symmetries of the square, with equal probability.
    shift
        Largest translation along each axis, in whole pixels; edges are repeated.
    rotation
        Largest angle of a rotation about the centre, in degrees; corners repeat the edge.
    zoom
        Half-width of the uniform enlargement factor around 1.
    contrast
        Half-width of the uniform factor around 1 applied to intensities.
    brightness
        Half-width of the uniform offset added to intensities, as a fraction of the range.
    noise
        Largest standard deviation of added Gaussian noise, as a fraction of the range.
    """

    symmetries: bool
    shift: Annotated[int, Field(ge=0, le=12)]
    rotation: Annotated[float, Field(ge=0, le=180)]
    zoom: Annotated[float, Field(ge=0, le=0.5)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    brightness: Probability
    noise: Probability


class Recipe(Block):
    """Hyperparameters of a training.

    Attributes
    ----------
    optimizer, learning_rate, weight_decay
        Keras optimizer; peak learning rate; decoupled weight decay (AdamW and SGD).
    schedule, warmup_epochs
        `constant`, or `cosine` to zero; either after a linear rise over `warmup_epochs`.
    batch_size, epochs
        Patches per step; passes over the train split.
    ghost_batches
        Number of parts of each batch, computed in parallel on one core each. Batch norm uses the
        statistics of each part separately. With `strategy: mirrored`, 1 or a multiple of the
        devices.
    average
        Fraction of the training so far that dominates the `WeightAverage` that is scored and saved;
        0 scores and saves the weights themselves.
    label_smoothing
        Fraction of each one-hot label that is spread evenly over the classes.
    precision
        Keras's dtype policy: `float32`, or `mixed_bfloat16`, which computes in bfloat16 and keeps
        weights, batch norm and probabilities in float32. The saved model uses it too.
    select
        `best`: the weights of the epoch with the highest validation AUC, and among ties the lowest
        validation loss; `last`: the final weights.
    patience
        Number of epochs without a better one, in the sense of `select: best`, after which training
        stops; 0 never stops early.
    augmentation
        Random changes to training patches.
    """

    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NonNegative
    schedule: Literal["constant", "cosine"]
    warmup_epochs: NonNegative
    batch_size: Count
    ghost_batches: Count
    epochs: Count
    average: Probability
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    precision: Literal["float32", "mixed_bfloat16"]
    select: Literal["best", "last"]
    patience: Annotated[int, Field(ge=0)]
    augmentation: AugmentationParams

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return a recipe with other values, given as nested mappings.

        Raises
        ------
        pydantic.ValidationError
            If a value is invalid.
        """
        return self.model_validate(_merged(self.model_dump(), changes))

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError("found weight_decay with adam, expected 0.0, or optimizer: adamw")
        if self.warmup_epochs > self.epochs:
            raise ValueError("found more warmup_epochs than epochs, expected at most as many")
        return self


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `changes`, merging nested mappings."""
    merged = dict(base)
    for key, value in changes.items():
        both_mappings = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both_mappings else value
    return merged
