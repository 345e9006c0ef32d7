"""What a training takes from params.yaml."""

from dataclasses import dataclass

from nodules.models.params import ModelParams
from nodules.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingParams:
    """The selected model and recipe, with their names, the seed and the strategy.

    Attributes
    ----------
    model_name, model
        Entry of `models` in params.yaml.
    recipe_name, recipe
        Entry of `recipes` in params.yaml, with the model's changes applied.
    seed
        `training_seed` of params.yaml: decides initial weights, dropout, order and augmentation.
    strategy
        `one_device` or `mirrored`.
    """

    model_name: str
    model: ModelParams
    recipe_name: str
    recipe: Recipe
    seed: int
    strategy: str
