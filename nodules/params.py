"""The contents of params.yaml as typed, checked, immutable objects."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    ValidationError,
    model_validator,
)

# DVC reads params.yaml with ruamel's YAML 1.2 rules; so do we, or `1e-4` would be a number to DVC
# and a string to us.
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nodules.errors import ParamsError

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# Of a patch, over which its probability is averaged: itself, or its eight symmetric views.
Views = Literal[1, 8]
# Also the name of the Keras model, and part of paths and of DVC's interpolation.
EntryName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class _Block(BaseModel):
    """A mapping in params.yaml: every key is known, typed as written, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PhantomParams(_Block):
    """Size and composition of the synthetic data set."""

    scans: Count
    patches_per_scan: Count
    nodule_fraction: Fraction


class SplitParams(_Block):
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
    near_duplicates: Literal["report", "together", "fail"] = "report"

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:.6g}, expected 1")
        return self


def _rule_or_two_numbers(found: Any) -> Any:
    is_pair = isinstance(found, list) and len(found) == 2
    if found in ("balanced", "none") or (is_pair and all(_is_positive(item) for item in found)):
        return found
    raise ValueError(f"found {found!r}, expected balanced, none or [non-nodule, nodule] above 0")


def _is_positive(found: Any) -> bool:
    return isinstance(found, int | float) and 0 < found < math.inf


# Weights of the classes in the loss: a rule, or [non-nodule, nodule]. A plain validator, since
# pydantic reports a union that nothing fits as one failure a member.
ClassWeights = Annotated[
    Literal["balanced", "none"] | list[float], PlainValidator(_rule_or_two_numbers)
]


class AugmentationParams(_Block):
    """Random changes to training patches.

    Attributes
    ----------
    symmetries
        Apply one of the eight symmetries of the square, each as likely.
    shift
        Largest translation along each axis, in whole pixels; edges are repeated.
    rotation
        Largest angle of a rotation about the centre, in degrees; corners repeat the edge.
    zoom
        Half-width of the uniform factor around 1 that patches are enlarged by.
    contrast
        Half-width of the uniform factor around 1 that intensities are multiplied by.
    brightness
        Half-width of the uniform offset that is added to intensities, as a share of the range.
    noise
        Largest standard deviation of added Gaussian noise, as a share of the range.
    """

    symmetries: bool
    shift: Annotated[int, Field(ge=0, le=12)]
    rotation: Annotated[float, Field(ge=0, le=180)]
    zoom: Annotated[float, Field(ge=0, le=0.5)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    brightness: Probability
    noise: Probability


class Recipe(_Block):
    """How a model is trained.

    Attributes
    ----------
    optimizer, learning_rate, weight_decay
        Keras optimizer; peak learning rate; decoupled weight decay (AdamW and SGD).
    schedule, warmup_epochs
        `constant`, or `cosine` to zero; either after a linear rise over `warmup_epochs`.
    batch_size, epochs
        Patches a step; passes over the train split.
    ghost_batches
        Parts of each batch, at most its patches, that are computed side by side, a core each;
        batch normalisation takes the statistics of each by itself. Under `strategy: mirrored`, 1 or
        a multiple of the devices.
    average
        Share of the training so far that makes up most of the `WeightAverage` that is scored and
        saved; 0 scores and saves the weights themselves.
    label_smoothing
        Share of each one-hot label that is spread evenly over the classes.
    precision
        Keras's dtype policy: `float32`, or `mixed_bfloat16`, which computes in bfloat16 and keeps
        weights, normalisation and probabilities in float32. The saved model keeps to it.
    select
        `best`: the weights of the epoch with the highest validation AUC, of several with the same
        the one with the lowest validation loss; `last`: the final ones.
    patience
        Stop when no epoch was better, in the sense of `select: best`, for this many epochs; 0 never
        stops early.
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

    @model_validator(mode="after")
    def _do_what_they_say(self) -> Self:
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError("found weight_decay with adam, expected 0.0, or optimizer: adamw")
        if self.warmup_epochs > self.epochs:
            raise ValueError("found more warmup_epochs than epochs, expected at most as many")
        return self


class ModelParams(_Block):
    """A named network: the builder, its arguments, and what it changes in recipes.

    Attributes
    ----------
    builder
        Name of a registered builder in `nodules.models`.
    config
        Keyword arguments of the builder, which checks them: JSON values, as model files store them.
    recipes
        For a recipe's name, the values that this model replaces in it.
    """

    builder: str
    config: dict[str, JsonValue]
    recipes: dict[str, dict[str, Any]] = {}


class ThresholdParams(_Block):
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


class EvaluateParams(_Block):
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


class Params(_Block):
    """All of params.yaml."""

    model: str
    recipe: str
    dataset: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    strategy: Literal["one_device", "mirrored"]
    phantom: PhantomParams
    split: SplitParams
    class_weights: dict[EntryName, ClassWeights]
    evaluate: EvaluateParams
    models: dict[EntryName, ModelParams]
    recipes: dict[EntryName, Recipe]

    @property
    def chosen_model(self) -> ModelParams:
        """The entry of `models` that `model` names."""
        return self.models[self.model]

    @property
    def chosen_recipe(self) -> Recipe:
        """The entry of `recipes` that `recipe` names, with the model's changes applied."""
        return self.recipe_of(self.model, self.recipe)

    def recipe_of(self, model: str, recipe: str) -> Recipe:
        """Give a recipe with a model's changes applied."""
        changes = self.models[model].recipes.get(recipe, {})
        return Recipe.model_validate(_merged(self.recipes[recipe].model_dump(), changes))

    @property
    def chosen_class_weights(self) -> ClassWeights:
        """The entry of `class_weights` that belongs to the recipe."""
        return self.class_weights[self.recipe]


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params.yaml.

    Parameters
    ----------
    path
        The file; by default the one in the current folder.

    Returns
    -------
    Params
        Every value, checked; `chosen_model` and `chosen_recipe` exist.

    Raises
    ------
    ParamsError
        For the first thing wrong, naming its key.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParamsError(path, "", "no such file, expected the pipeline's parameters") from None
    except YAMLError as error:
        raise ParamsError(path, "", f"not valid YAML: {' '.join(str(error).split())}") from None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise _params_error(path, error) from None
    _check_choice(path, "model", params.model, params.models)
    _check_choice(path, "recipe", params.recipe, params.recipes)
    _check_choice(path, "class_weights", params.recipe, params.class_weights)
    for model, entry in params.models.items():
        for recipe in entry.recipes:
            key = f"models.{model}.recipes"
            _check_choice(path, key, recipe, params.recipes)
            try:
                params.recipe_of(model, recipe)
            except ValidationError as error:
                raise _params_error(path, error, prefix=f"{key}.{recipe}") from None
    return params


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give `base` with `changes` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        both_mappings = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both_mappings else value
    return merged


def _check_choice(path: Path, key: str, found: str, known: Mapping[str, object]) -> None:
    if found not in known:
        raise ParamsError(path, key, f"found {found!r}, expected one of {', '.join(known)}")


def _params_error(path: Path, error: ValidationError, prefix: str = "") -> ParamsError:
    key, problem = first_problem(error)
    return ParamsError(path, ".".join(part for part in (prefix, key) if part), problem)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Put the first failure of a pydantic validation into a dotted key and one sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "missing" | "missing_keyword_only_argument":
            return key, "missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return key, "unknown key"
        case "value_error":
            return key, first["msg"].removeprefix("Value error, ")
    expected = first["msg"].removeprefix("Input should be ")
    return key, f"found {first['input']!r}, expected {expected}"
