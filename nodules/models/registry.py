"""The registry of builders: a new network is one new file in this folder.

A builder is a function that takes keyword arguments alone, at least `seed`, and gives a
`keras.Model` from (batch, 50, 50, 1) intensities in 0..255 to (batch, 2) probabilities of
non-nodule and nodule. Its type hints are the schema of the `config` block in params.yaml.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from pydantic import ConfigDict, ValidationError, validate_call

from nodules import models
from nodules.errors import ParamsError
from nodules.params import PARAMS_FILE, first_problem

Builder = Callable[..., keras.Model]

_builders: dict[str, Builder] = {}


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
        Of the initial weights and of dropout.
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
    known = builder_names()
    if builder not in known:
        problem = f"found {builder!r}, expected one of {', '.join(known)}"
        raise ParamsError(PARAMS_FILE, f"models.{entry}.builder", problem)
    if "seed" in config:
        problem = f"found {config['seed']!r}, expected none: builders get the seed of the pipeline"
        raise ParamsError(PARAMS_FILE, f"models.{entry}.config.seed", problem)
    # Initialisers draw from Keras's global generator, and layers without a name are numbered by a
    # global counter: both start afresh, so that a model does not depend on what was built before.
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    try:
        with _dtype_policy(precision):
            model = _builders[builder](**config, seed=seed)
    except ValidationError as error:
        key, problem = first_problem(error)
        raise ParamsError(PARAMS_FILE, f"models.{entry}.config.{key}", problem) from None
    except ValueError as error:
        # Keras on layers that do not fit each other, or the builder on arguments that do not.
        reason = " ".join(str(error).split())[:200]
        raise ParamsError(PARAMS_FILE, f"models.{entry}.config", reason) from None
    model.name = entry
    return model
