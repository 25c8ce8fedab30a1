"""Sections that are one of several, told apart by their `name`."""

from typing import Any, get_args

from pydantic import BaseModel


def options_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes inside an annotation: one, or those of a union."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [option for inner in get_args(annotation) for option in options_of(inner)]


def name_of(section: type[BaseModel]) -> str:
    """Return the name that chooses a section."""
    return str(get_args(section.model_fields["name"].annotation)[0])


def names_of(annotation: Any) -> tuple[str, ...]:
    """Return the names that a union of sections allows."""
    return tuple(name_of(option) for option in options_of(annotation))
