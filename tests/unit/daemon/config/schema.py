"""Walks the settings: every key that has a value, by its path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def leaves(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Every key below a model that no other key is below."""
    for path, _ in fields(model):
        yield path


def fields(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and annotations of all such keys; the parts of lists are left out."""
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        if inner is None:
            yield (*above, name), field.annotation
        else:
            yield from fields(inner, (*above, name))


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is list:
        return None
    return next((found for one in get_args(annotation) if (found := _model(one)) is not None), None)
