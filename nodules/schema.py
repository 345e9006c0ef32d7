"""Types that all blocks of params.yaml share."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# Also the name of the Keras model, and part of paths and of DVC's interpolation.
EntryName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Block(BaseModel):
    """A mapping whose keys are all known, typed as written, and immutable.

    Keys without a default are required.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the first failure of a pydantic validation as a dotted key and one sentence."""
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
