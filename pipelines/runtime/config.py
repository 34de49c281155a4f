"""The base class of all parts of the configuration, and types for their keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

_BOOLEAN = "is a boolean; YAML reads on, off, yes and no as such, so quote it if it is meant as a word"


class StrictConfig(BaseModel):
    """A frozen part of the configuration, strict about its keys and their types.

    It refuses unknown keys, booleans for other types, URLs for paths, NaN and infinity.
    The docstring under a field is its key's description in the JSON Schema of the configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take a boolean for the number 0 or 1.
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and not _takes(bool, annotation):
            raise ValueError(_BOOLEAN)
        if isinstance(value, str) and "://" in value and _takes(Path, annotation):
            raise ValueError("is a URL, and a path of this machine belongs here")
        return value


def _takes(kind: type, annotation: Any) -> bool:
    return annotation is kind or kind in get_args(annotation)


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
