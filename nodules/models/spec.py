"""The specification of a network, as stored in model files."""

from typing import Literal

from pydantic import JsonValue

from nodules.schema import Block, EntryName, Seed


class ModelSpec(Block):
    """The arguments of `build_model`, from which the same network can be rebuilt.

    Attributes
    ----------
    entry
        Entry of `models` in params.yaml; the name of the Keras model.
    builder
        Name of a registered builder.
    config
        Keyword arguments of the builder as JSON values, which keep the difference between 1 and
        1.0.
    seed
        Seed of the initial weights and of dropout.
    precision
        Keras's dtype policy.
    """

    entry: EntryName
    builder: str
    config: dict[str, JsonValue]
    seed: Seed
    precision: Literal["float32", "mixed_bfloat16"]
