"""The registry of builders: a new network is one new file in this folder.

A builder is a function that takes keyword arguments alone, at least `seed`, and returns a
`keras.Model` from (batch, 50, 50, 1) intensities in 0..255 to (batch, 2) probabilities of
non-nodule and nodule. Its type hints are the schema of the `config` block in params.yaml. A saved
model is loaded by building it again, so the network must depend on the arguments alone.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import keras
from pydantic import ConfigDict, ValidationError, validate_call

from nodules import models
from nodules.errors import ParamsError
from nodules.models.spec import ModelSpec
from nodules.schema import PARAMS_FILE, first_problem

Builder = Callable[..., keras.Model]

_builders: dict[str, Builder] = {}
_specs: WeakKeyDictionary[keras.Model, ModelSpec] = WeakKeyDictionary()


class BuildError(Exception):
    """A specification that no network can be built from.

    Attributes
    ----------
    key
        Dotted path of the part of the specification that is wrong.
    problem
        What was found and what was expected.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def register(name: str) -> Callable[[Builder], Builder]:
    """Make a builder known under `name`; its arguments are checked when it is called."""

    def add(builder: Builder) -> Builder:
        checked = validate_call(config=ConfigDict(strict=True))(builder)
        _builders[name] = checked
        return checked

    return add


def builder_names() -> list[str]:
    """Name every registered builder, having imported all files of this folder."""
    for module in pkgutil.iter_modules(models.__path__, prefix=f"{models.__name__}."):
        importlib.import_module(module.name)
    return sorted(_builders)


def build_model(
    entry: str,
    builder: str,
    config: Mapping[str, Any],
    *,
    seed: int,
    precision: str = "float32",
) -> keras.Model:
    """Build the network of an entry of `models` in params.yaml.

    Parameters
    ----------
    entry
        The entry's name, which the model bears.
    builder
        A registered builder.
    config
        Its keyword arguments.
    seed
        Seed of the initial weights and of dropout.
    precision
        Keras's dtype policy for the layers.

    Returns
    -------
    keras.Model
        Not compiled. The same arguments give the same weights and layer names.

    Raises
    ------
    ParamsError
        If the builder is unknown or an argument is missing, unknown or wrong.
    """
    content = {
        "entry": entry,
        "builder": builder,
        # The order of keyword arguments means nothing, so it should not change the model file.
        "config": dict(sorted(config.items())),
        "seed": seed,
        "precision": precision,
    }
    try:
        return build_from_spec(ModelSpec.model_validate(content))
    except ValidationError as error:
        key, problem = first_problem(error)
    except BuildError as error:
        key, problem = error.key, error.problem
    raise ParamsError(PARAMS_FILE, f"models.{entry}.{key}", problem)


def build_from_spec(spec: ModelSpec) -> keras.Model:
    """Build the network that a specification describes; `spec_of` returns it from then on.

    Returns
    -------
    keras.Model
        Not compiled. Equal specifications give equal weights and layer names.

    Raises
    ------
    BuildError
        If the builder is unknown or an argument is missing, unknown or wrong.
    """
    known = builder_names()
    if spec.builder not in known:
        problem = f"found {spec.builder!r}, expected one of {', '.join(known)}"
        raise BuildError("builder", problem)
    if "seed" in spec.config:
        found = spec.config["seed"]
        problem = f"found {found!r}, expected none: builders get the seed of the pipeline"
        raise BuildError("config.seed", problem)
    # Initialisers draw from Keras's global generator, and layers without a name are numbered by a
    # global counter: both start afresh, so that a model does not depend on what was built before.
    keras.utils.clear_session()
    keras.utils.set_random_seed(spec.seed)
    try:
        with _dtype_policy(spec.precision):
            model = _builders[spec.builder](**spec.config, seed=spec.seed)
    except ValidationError as error:
        key, problem = first_problem(error)
        raise BuildError(f"config.{key}", problem) from None
    except ValueError as error:
        # Keras on layers that do not fit each other, or the builder on arguments that do not.
        raise BuildError("config", " ".join(str(error).split())[:200]) from None
    model.name = spec.entry
    _specs[model] = spec
    return model


def spec_of(model: keras.Model) -> ModelSpec:
    """Return what a model was built from.

    Raises
    ------
    ValueError
        If the model does not come from `build_model` or `build_from_spec`.
    """
    if model not in _specs:
        raise ValueError(f"{model.name}: found a model that no registered builder has built")
    return _specs[model]
