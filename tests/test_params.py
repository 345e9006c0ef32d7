"""params.yaml: accepted values and error messages."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from nodules.errors import ParamsError
from nodules.params import read_params
from nodules.schema import Block
from tests.support import REPOSITORY


def changed(tmp_path: Path, key: str, value: Any) -> Path:
    """Write the repository's params.yaml with the value of one dotted key replaced."""
    yaml = YAML()
    content = yaml.load(REPOSITORY / "params.yaml")
    *parents, last = key.split(".")
    block = content
    for parent in parents:
        block = block[parent]
    block[last] = value
    path = tmp_path / "params.yaml"
    yaml.dump(content, path)
    return path


@pytest.mark.parametrize("model", ["squeezenet", "mobilenet"])
@pytest.mark.parametrize("recipe", ["tuned", "published"])
def test_the_repositorys_params_are_valid_for_each_choice(
    tmp_path: Path, model: str, recipe: str
) -> None:
    path = changed(tmp_path, "model", model)
    path.write_text(path.read_text().replace("recipe: tuned", f"recipe: {recipe}"))
    params = read_params(path)
    assert params.chosen_model.builder == model
    assert params.recipe == recipe


def test_the_published_recipe_is_as_published() -> None:
    params = read_params(REPOSITORY / "params.yaml")
    recipe = params.recipes["published"]
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("adam", 1e-4, "constant")
    assert (recipe.batch_size, recipe.epochs, recipe.select) == (32, 10, "last")
    assert (recipe.weight_decay, recipe.average, recipe.label_smoothing) == (0, 0, 0)
    assert params.class_weights["published"] == [0.4, 0.6]
    assert not any(recipe.augmentation.model_dump().values())


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("seed", "ten", "seed: found 'ten', expected a valid integer"),
        ("seed", 1.5, "seed: found 1.5, expected a valid integer"),
        ("training_seed", -1, "training_seed: found -1, expected greater than or equal to 0"),
        ("model", "resnet", "model: found 'resnet', expected one of squeezenet, mobilenet"),
        ("recipe", "mine", "recipe: found 'mine', expected one of tuned, no_aug"),
        (
            "phantom.nodule_fraction",
            1.2,
            "phantom.nodule_fraction: found 1.2, expected less than 1",
        ),
        ("evaluate.prevalence", 2.0, "evaluate.prevalence: found 2.0, expected less than 1"),
        ("phantom.colour", 3, "phantom.colour: unknown key"),
        ("split.test", 0.3, "split: train, val and test add up to 1.15, expected 1"),
        (
            "split.near_duplicates",
            "apart",
            "split.near_duplicates: found 'apart', expected 'report', 'together' or 'fail'",
        ),
        ("class_weights.tuned", "fair", "class_weights.tuned: found 'fair', expected balanced"),
        ("class_weights.tuned", [1.0], "class_weights.tuned: found [1.0], expected balanced"),
        (
            "recipes.tuned.epochs",
            0,
            "recipes.tuned.epochs: found 0, expected greater than or equal",
        ),
        ("recipes.tuned.learning_rate", float("nan"), "recipes.tuned.learning_rate: found nan"),
        (
            "evaluate.threshold.rule",
            "best",
            "evaluate.threshold.rule: found 'best', expected 'youden'",
        ),
        *(
            ("evaluate.threshold.value", value, f"evaluate.threshold.value: found {value!r}, exp")
            for value in (float("nan"), float("inf"), True, 2.0, -0.1)
        ),
        ("class_weights", {"published": "none"}, "class_weights: found 'tuned', expected one of"),
        ("models.squeezenet.recipes", {"tuned": {"epoch": 3}}, "recipes.tuned.epoch: unknown key"),
        (
            "models.mobilenet.recipes",
            {"tuned": {"epochs": 0}},
            "mobilenet.recipes.tuned.epochs: found",
        ),
        (
            "models.mobilenet.recipes",
            {"tund": {}},
            "models.mobilenet.recipes: found 'tund', expected",
        ),
        ("recipes.tuned.optimizer", "adam", "recipes.tuned: found weight_decay with adam"),
        (
            "recipes.tuned.warmup_epochs",
            900.0,
            "recipes.tuned: found more warmup_epochs than epochs",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(
    tmp_path: Path, key: str, value: Any, sentence: str
) -> None:
    path = changed(tmp_path, key, value)
    with pytest.raises(ParamsError) as error:
        read_params(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert sentence in message
    assert "\n" not in message


def keys_of(block: Block) -> Iterator[tuple[str, ...]]:
    """Return the required keys of a block and of its nested blocks."""
    for name, field in type(block).model_fields.items():
        if field.is_required():
            yield (name,)
        value = getattr(block, name)
        named = value.items() if isinstance(value, dict) else ()
        inner = {(name,): value} | {(name, key): entry for key, entry in named}
        for path, entry in inner.items():
            if isinstance(entry, Block):
                yield from ((*path, *keys) for keys in keys_of(entry))


@pytest.mark.parametrize(
    "keys", list(keys_of(read_params(REPOSITORY / "params.yaml"))), ids=".".join
)
def test_a_missing_key_is_named(tmp_path: Path, keys: tuple[str, ...]) -> None:
    content = read_params(REPOSITORY / "params.yaml").model_dump()
    block = content
    for key in keys[:-1]:
        block = block[key]
    del block[keys[-1]]
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(content))  # JSON is valid YAML
    with pytest.raises(ParamsError) as error:
        read_params(path)
    assert str(error.value) == f"{path}: {'.'.join(keys)}: missing"


def test_a_model_changes_single_values_of_a_recipe(tmp_path: Path) -> None:
    change = {"tuned": {"epochs": 3, "augmentation": {"shift": 1}}}
    params = read_params(changed(tmp_path, "models.squeezenet.recipes", change))
    assert params.chosen_recipe.epochs == 3
    assert params.chosen_recipe.augmentation.shift == 1
    expected = params.recipes["tuned"].model_dump() | {"epochs": 3}
    expected["augmentation"]["shift"] = 1
    assert params.chosen_recipe.model_dump() == expected


def test_numbers_mean_what_they_mean_to_dvc(tmp_path: Path) -> None:
    # YAML 1.1 would read 1e-4 as a string.
    path = changed(tmp_path, "model", "squeezenet")
    text = path.read_text()
    assert "learning_rate: 1.0e-4" in text
    path.write_text(text.replace("learning_rate: 1.0e-4", "learning_rate: 1e-4"))
    assert read_params(path).recipes["published"].learning_rate == 1e-4


def test_a_file_that_is_not_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("model: [squeezenet\nrecipe: }")
    with pytest.raises(ParamsError, match="not valid YAML") as error:
        read_params(path)
    assert "\n" not in str(error.value)


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        read_params(tmp_path / "params.yaml")


def test_an_experiment_changes_only_its_parameter(tmp_path: Path) -> None:
    # `dvc exp run --set-param` rewrites the file; were it written in another style, the first
    # experiment would change all of it.
    path = tmp_path / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    before = path.read_text().splitlines()
    assert read_params(path).evaluate.prevalence is None
    apply_overrides(path, ["model=mobilenet"])
    after = path.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [(old.split("#")[0], new.split("#")[0]) for old, new in changed] == [
        ("model: squeezenet          ", "model: mobilenet           ")
    ]


def test_an_experiment_can_set_the_prevalence_which_may_also_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    apply_overrides(path, ["evaluate.prevalence=0.02"])
    assert read_params(path).evaluate.prevalence == 0.02
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"(?m)^  prevalence:.*\n", "", text), encoding="utf-8")
    assert read_params(path).evaluate.prevalence is None


def test_the_comments_list_the_choices() -> None:
    lines = (REPOSITORY / "params.yaml").read_text().splitlines()
    content = YAML(typ="safe", pure=True).load(REPOSITORY / "params.yaml")
    for key in ("model", "recipe"):
        (line,) = (line for line in lines if line.startswith(f"{key}: "))
        assert line.split("# ")[1].split(" | ") == list(content[f"{key}s"])


@pytest.mark.parametrize("model", ["squeezenet", "mobilenet"])
def test_a_recipe_differs_from_the_tuned_one_in_its_augmentation_alone(model: str) -> None:
    params = read_params(REPOSITORY / "params.yaml")
    tuned, plain = (params.recipe_of(model, name) for name in ("tuned", "no_augmentation"))
    assert not any(plain.augmentation.model_dump().values())
    assert plain.changed({"augmentation": tuned.augmentation.model_dump()}) == tuned
    assert params.class_weights["no_augmentation"] == params.class_weights["tuned"]


@pytest.mark.parametrize(
    ("model", "recipe", "note"),
    [
        ("squeezenet", "tuned", None),
        ("squeezenet_published", "published", None),
        ("squeezenet_published", "tuned", "squeezenet_published was published with recipe=publish"),
        ("mobilenet", "published", "recipe=published was published for mobilenet_published"),
    ],
)
def test_a_network_and_a_recipe_of_different_origin_are_noted(
    model: str, recipe: str, note: str | None
) -> None:
    params = read_params(REPOSITORY / "params.yaml")
    found = params.model_copy(update={"model": model, "recipe": recipe}).unusual_choice()
    assert found is None if note is None else found is not None and found.startswith(note)
