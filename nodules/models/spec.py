"""What builds a network: all that `build_model` takes, as it is stored in model files."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from nodules.params import EntryName


class ModelSpec(BaseModel):
    """The arguments of `build_model`, from which the same network can be built again.

    Attributes
    ----------
    entry
        Entry of `models` in params.yaml; the name of the Keras model.
    builder
        Name of a registered builder.
    config
        Keyword arguments of the builder. They are JSON values, since they are stored as such:
        1 and 1.0 stay what they are.
    seed
        Seed of the initial weights and of dropout.
    precision
        Keras's dtype policy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    entry: EntryName
    builder: str
    config: dict[str, JsonValue]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    precision: Literal["float32", "mixed_bfloat16"]
