"""Types of single values in the config, and the strict row that all mappings are made of.

Types are strict: YAML reads `1e-5` as a text, and a text is no number.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from es2.registry import suggest

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
SHA256 = "^[0-9a-f]{64}$"
COMMIT = "^[0-9a-f]{40}$"
PINNED = r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+$"
PINNED_PART = r"^[A-Za-z0-9][A-Za-z0-9._-]*\{part(:02)?\}[A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+$"
REPO = "^[^/]+/[^/]+$"
Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Interval = Annotated[list[Share], Field(min_length=2, max_length=2)]
Sha256 = Annotated[str, Field(pattern=SHA256)]
Commit = Annotated[str, Field(pattern=COMMIT)]
Split = Literal["defence", "attack", "validation", "test"]
Names = Annotated[list[Name], Field(min_length=1)]
Strengths = Annotated[list[Positive], Field(min_length=1)]
Sizes = dict[Name, Size]


class Row(BaseModel):
    """A mapping of the config whose keys are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    hint = suggest(key, cls.model_fields)
                    raise PydanticCustomError("unknown_key", "{hint}", {"key": str(key), "hint": hint})
        return value
