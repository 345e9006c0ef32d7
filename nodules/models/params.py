"""The entries of `models` in params.yaml."""

from typing import Any

from pydantic import Field, JsonValue

from nodules.schema import Block


class ModelParams(Block):
    """A named network: its builder, the arguments, and its changes to recipes.

    Attributes
    ----------
    builder
        Name of a registered builder in `nodules.models`.
    config
        Keyword arguments of the builder, which checks them; JSON values, as model files store them.
    recipes
        Values that replace those of a recipe for this model, by recipe; may be omitted.
    """

    builder: str
    config: dict[str, JsonValue]
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
