"""The registry of builders. To add a network, add a file with a builder to this folder.

A builder is a function that takes only keyword arguments, at least `seed`, and returns a
`keras.Model` from (batch, 50, 50, 1) intensities in 0..255 to (batch, 2) probabilities of
non-nodule and nodule. Its type hints are the schema of the `config` block in params.yaml. A saved
model is rebuilt when it is loaded, so the network must depend only on the arguments.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from pydantic import ConfigDict, ValidationError, validate_call

from nodules import models
from nodules.errors import ParamsError
from nodules.models.spec import ModelSpec
from nodules.patches.layout import CLASSES, PATCH_SIZE
from nodules.schema import PARAMS_FILE, first_problem

Builder = Callable[..., keras.Model]

_builders: dict[str, Builder] = {}
_specs: WeakKeyDictionary[keras.Model, ModelSpec] = WeakKeyDictionary()


class BuildError(Exception):
    """A specification from which no network can be built.

    Attributes
    ----------
    key
        Dotted path of the wrong part of the specification.
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
    """Register a builder under `name`; its arguments are checked when it is called."""

    def add(builder: Builder) -> Builder:
        checked = validate_call(config=ConfigDict(strict=True))(builder)
        _builders[name] = checked
        return checked

    return add


def builder_names() -> list[str]:
    """Import all files of this folder; return the names of the registered builders."""
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
        Name of the entry, and of the model.
    builder
        Name of a registered builder.
    config
        Keyword arguments of the builder.
    seed
        Seed of the initial weights and of dropout.
    precision
        Keras's dtype policy for the layers.

    Returns
    -------
    keras.Model
        Uncompiled model. The same arguments give the same weights and layer names.

    Raises
    ------
    ParamsError
        If the builder is unknown, an argument is missing, unknown or wrong, or the outputs are not
        two probabilities.
    """
    content = {
        "entry": entry,
        "builder": builder,
        # The order of keyword arguments is irrelevant, so it must not change the model file.
        "config": dict(sorted(config.items())),
        "seed": seed,
        "precision": precision,
    }
    try:
        model = build_from_spec(ModelSpec.model_validate(content))
        _check_outputs(model)
        return model
    except ValidationError as error:
        key, problem = first_problem(error)
    except BuildError as error:
        key, problem = error.key, error.problem
    raise ParamsError(PARAMS_FILE, f"models.{entry}.{key}", problem)


def build_from_spec(spec: ModelSpec) -> keras.Model:
    """Build the network of a specification and remember the specification for `spec_of`.

    Returns
    -------
    keras.Model
        Uncompiled model. Equal specifications give equal weights and layer names.

    Raises
    ------
    BuildError
        If the builder is unknown, an argument is missing, unknown or wrong, or the result is not a
        network from patches to two outputs.
    """
    known = builder_names()
    if spec.builder not in known:
        problem = f"found {spec.builder!r}, expected one of {', '.join(known)}"
        raise BuildError("builder", problem)
    if "seed" in spec.config:
        found = spec.config["seed"]
        problem = f"found {found!r}, expected none: builders get the seed of the pipeline"
        raise BuildError("config.seed", problem)
    builder = _builders[spec.builder]
    if "seed" not in inspect.signature(builder).parameters:
        problem = f"found {spec.builder} without the argument seed, expected `seed: int`"
        raise BuildError("builder", problem)
    # Initialisers use Keras's global generator, and a global counter numbers unnamed layers. Both
    # are reset, so a model does not depend on earlier ones.
    keras.utils.clear_session()
    keras.utils.set_random_seed(spec.seed)
    try:
        with _dtype_policy(spec.precision):
            model = builder(**spec.config, seed=spec.seed)
    except ValidationError as error:
        key, problem = first_problem(error)
        raise BuildError(f"config.{key}", problem) from None
    except ValueError as error:
        # Raised by Keras if layers do not fit each other, or by the builder if arguments do not.
        raise BuildError("config", " ".join(str(error).split())[:200]) from None
    _check_shapes(model, spec.builder)
    model.name = spec.entry
    _specs[model] = spec
    return model


def _check_shapes(model: Any, builder: str) -> None:
    if not isinstance(model, keras.Model):
        problem = f"found that {builder} returns {type(model).__name__}, expected a keras.Model"
        raise BuildError("builder", problem)
    shapes = model.input_shape, model.output_shape
    expected = (None, PATCH_SIZE, PATCH_SIZE, 1), (None, len(CLASSES))
    if shapes != expected:
        found = f"found a network from {shapes[0]} to {shapes[1]}"
        raise BuildError("builder", f"{found}, expected from {expected[0]} to {expected[1]}")


def _check_outputs(model: keras.Model) -> None:
    """Check that the outputs are probabilities, with one random patch."""
    patch = np.random.default_rng(0).uniform(0, 255, (1, PATCH_SIZE, PATCH_SIZE, 1))
    outputs = np.asarray(model(patch, training=False))[0]
    if not np.isclose(outputs.sum(), 1, atol=1e-3) or outputs.min() < 0:
        found = ", ".join(f"{output:.4g}" for output in outputs)
        expected = "the probabilities of both classes, which add up to 1 (softmax)"
        raise BuildError("builder", f"found the outputs {found} for a patch, expected {expected}")


def spec_of(model: keras.Model) -> ModelSpec:
    """Return the specification of a model.

    Raises
    ------
    ValueError
        If the model was not built by `build_model` or `build_from_spec`.
    """
    if model not in _specs:
        raise ValueError(f"{model.name}: found a model that no registered builder has built")
    return _specs[model]
