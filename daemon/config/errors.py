"""Turns pydantic errors into problems of a configuration: the path of the key and a text, without secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from visaged.daemon.config.document import ConfigProblem
from visaged.pipelines.runtime.config import Hidden
from visaged.pipelines.runtime.redact import shown

_NO_TEXT = (
    "has a key that is no text, but a number or a boolean; YAML reads on, off, yes and no as booleans, so put the key "
    "in quotes if it is meant as a word"
)


_MOST_PROBLEMS = 100
"""Most problems of a document that are reported."""
_MOST_REPEATED = 200
"""Most characters of a value that an error repeats."""


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[ConfigProblem]:
    """Return the problems that pydantic found in a document.

    Args:
        error: The error that pydantic raised.
        model: The model that the document was validated against. A text repeats a value only where the model has no
            secret.
    """
    problems = [_problem(details, model) for details in error.errors()[:_MOST_PROBLEMS]]
    left_out = error.error_count() - len(problems)
    return [*problems, ConfigProblem("", f"there are {left_out} more problems")] if left_out else problems


def _problem(details: Any, model: type[BaseModel]) -> ConfigProblem:
    loc = details["loc"]
    if details["type"] == "invalid_key" or loc[-1:] == ("[key]",):
        parent = loc[:-2] if loc[-1:] == ("[key]",) else loc[:-1]
        return ConfigProblem(_path(parent), _NO_TEXT)
    text = details["msg"].removeprefix("Value error, ")
    if details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        text = "is not a known key; look for a spelling mistake (`visaged schema` lists all keys)"
    elif details["type"] == "missing":
        text = "is missing"
    elif not isinstance(details.get("input"), dict | list) and not may_be_secret(model, loc):
        text += f" (got {_got(details.get('input'))})"
    return ConfigProblem(_path(loc), text)


def _got(value: Any) -> str:
    """Return a value as an error may repeat it: not all of a long one, and no login of a URL."""
    if isinstance(value, str):
        value = shown(value)
    try:
        text = repr(value)
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        return "a number with too many digits"
    return text if len(text) <= _MOST_REPEATED else f"{text[:_MOST_REPEATED]}..."


def _path(loc: Sequence[str | int]) -> str:
    path = ""
    for part in loc:
        name = shown(str(part))
        path += f"[{name}]" if isinstance(part, int) else f".{name}" if path else name
    return path


def may_be_secret(model: type[BaseModel], loc: Sequence[str | int]) -> bool:
    """Return whether the value at a place of a document is, or may hold, a secret, by the types of the model.

    Args:
        model: The model that describes the document.
        loc: Keys and indices that lead to the value. A value that the model does not describe may be secret.
    """
    places: list[Any] = [model]
    for part in loc:
        places = [inner for place in places for inner in _below(place, part)]
    return not places or any(_holds_secret(place) for place in places)


def _below(annotation: Any, part: str | int) -> list[Any]:
    """Return the types of the values that a key or index of a value leads to."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return [] if field is None else [Annotated[field.annotation, *field.metadata, None]]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        hidden = any(isinstance(one, Hidden) for one in arguments[1:])
        return [annotation] if hidden else _below(arguments[0], part)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [arguments[1]]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [arguments[0]]
    return [inner for argument in arguments for inner in _below(argument, part)]


def _holds_secret(annotation: Any) -> bool:
    if annotation in (SecretStr, SecretBytes) or isinstance(annotation, Hidden):
        return True
    if _is_model(annotation):
        return any(
            _holds_secret(field.annotation) or any(isinstance(one, Hidden) for one in field.metadata)
            for field in annotation.model_fields.values()
        )
    return any(_holds_secret(argument) for argument in get_args(annotation))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
