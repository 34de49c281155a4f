"""The base class of all parts of the configuration, and types for their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

_BOOLEAN = "is a boolean; YAML reads on, off, yes and no as such, so quote it if it is meant as a word"


class StrictConfig(BaseModel):
    """A frozen part of the configuration, which refuses unknown keys, booleans for other types, NaN and infinity.

    The docstring under a field is its key's description in the JSON Schema of the configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_for_others(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take a boolean for the number 0 or 1.
        if isinstance(value, bool) and not _takes_booleans(cls.model_fields[info.field_name or ""].annotation):
            raise ValueError(_BOOLEAN)
        return value


def _takes_booleans(annotation: Any) -> bool:
    return annotation is bool or bool in get_args(annotation)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(_BOOLEAN)
    return value


NotBoolean = BeforeValidator(_no_boolean)
"""Refuses booleans for numbers inside of lists and mappings, which the validator of `StrictConfig` does not check."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Marks the type of a key whose value is never repeated in an error's text, because it may hold a secret."""


HiddenText = Annotated[str, Hidden()]
"""A text that may hold a secret, such as a URL with a password; error texts do not repeat it."""
