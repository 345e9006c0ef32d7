"""The contents of params.yaml as typed, checked, immutable objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

# DVC reads params.yaml as YAML 1.2 with ruamel. In YAML 1.1, `1e-4` would be a string.
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nodules.errors import ParamsError
from nodules.evaluation.params import EvaluateParams
from nodules.models.params import ModelParams
from nodules.phantom.params import PhantomParams
from nodules.schema import PARAMS_FILE, Block, EntryName, Seed, first_problem
from nodules.splitting.params import SplitParams
from nodules.training.params import TrainingParams
from nodules.training.recipe import ClassWeights, Recipe


class Params(Block):
    """All of params.yaml."""

    model: str
    recipe: str
    dataset: str
    seed: Seed
    training_seed: Seed
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
        """Return a recipe with a model's changes applied."""
        changes = self.models[model].recipes.get(recipe, {})
        return self.recipes[recipe].changed(changes)

    def unusual_choice(self) -> str | None:
        """Return a note if the model and the recipe belong to different publications, or None.

        An entry `NAME_RECIPE` of `models` is the network that `RECIPE` was published for.
        """
        for recipe in self.recipes:
            named_after = self.model.endswith(f"_{recipe}")
            if named_after and recipe != self.recipe:
                return f"{self.model} was published with recipe={recipe}, found {self.recipe}"
            counterpart = f"{self.model}_{recipe}"
            if recipe == self.recipe and counterpart in self.models:
                return f"recipe={recipe} was published for {counterpart}, found {self.model}"
        return None

    @property
    def chosen_class_weights(self) -> ClassWeights:
        """The entry of `class_weights` that belongs to the recipe."""
        return self.class_weights[self.recipe]

    @property
    def chosen_training(self) -> TrainingParams:
        """The chosen model and recipe, the training seed and the strategy."""
        return TrainingParams(
            model_name=self.model,
            model=self.chosen_model,
            recipe_name=self.recipe,
            recipe=self.chosen_recipe,
            seed=self.training_seed,
            strategy=self.strategy,
        )


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params.yaml.

    Parameters
    ----------
    path
        File to read; by default the one in the current folder.

    Returns
    -------
    Params
        Checked values; `chosen_model` and `chosen_recipe` exist.

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


def _check_choice(path: Path, key: str, found: str, known: Mapping[str, object]) -> None:
    if found not in known:
        raise ParamsError(path, key, f"found {found!r}, expected one of {', '.join(known)}")


def _params_error(path: Path, error: ValidationError, prefix: str = "") -> ParamsError:
    key, problem = first_problem(error)
    return ParamsError(path, ".".join(part for part in (prefix, key) if part), problem)
