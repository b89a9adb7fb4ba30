"""Values held to their types; the first mistake is told in one line that names file and key."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from slimline import plugins
from slimline.errors import ParamsError, near_miss
from slimline.params.sections import Configured


def configure(kind: str, chosen: Configured, where: str) -> Any:
    """Build the plug-in ``chosen`` names; its dataclass fields are its keys, checked as their annotations say.

    ``where`` is the file and key to name in an error, such as ``params.yaml: prune.methods.0``.
    """
    factory = plugins.find(kind, chosen.name, where=where)
    if not is_dataclass(factory):
        raise ParamsError(f"{where}: plug-in {chosen.name!r} must be a dataclass, its fields are its params.yaml keys")
    own = [field.name for field in fields(factory)]
    known = [*own, *(key for key in type(chosen).model_fields if key != "name")]
    for key in chosen.settings:
        if key not in own:
            raise ParamsError(
                f"{where}.{key}: unknown key of {chosen.name!r}.{near_miss(key, known)} Known: {', '.join(known)}"
            )
    return validate(factory, chosen.settings, where)


def validate(kind: Any, value: Any, where: str) -> Any:
    """Return ``value`` as its type. Raises ParamsError with the first mistake; ``where`` is the file and key."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParamsError(_first_line(error, kind, where)) from error


def _first_line(error: ValidationError, kind: Any, where: str) -> str:
    errors = error.errors(include_url=False)
    unknown = [each for each in errors if each["type"] in {"extra_forbidden", "unexpected_keyword_argument"}]
    first = (unknown or errors)[0] if errors[0]["type"] == "missing" else errors[0]  # a slip says why a key is missing
    location = [str(part) for part in first["loc"] if not _is_union_member(part)]
    at = where if where.endswith(":") else where + "."
    key = (at + " " if at.endswith(":") else at) + ".".join(location) if location else where.rstrip(":.")
    if first in unknown:
        known = _known_keys(kind, location)
        return f"{key}: unknown key.{near_miss(location[-1], known)}" + (f" Known: {', '.join(known)}" if known else "")
    if first["type"] == "missing":
        return f"{key}: missing; it has no default"
    text = first["msg"][0].lower() + first["msg"][1:]
    return f"{key}: {text}, found {first['input']!r}"


def _is_union_member(part: int | str) -> bool:
    """Pydantic puts the tried member of a union into an error's location; no such key stands in the file."""
    return isinstance(part, str) and (part in {"float", "int", "constrained-int", "constrained-float"} or "[" in part)


def _known_keys(kind: Any, location: list[str]) -> list[str]:
    """Return the keys allowed beside the last one of ``location``, walking the types from ``kind``."""
    kinds = _members(kind)
    for part in location[:-1]:
        kinds = [member for each in kinds for member in _members(_inner(each, part))]
    return [key for each in kinds for key in _keys(each) if key != "compressions"]


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, annotations taken off."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [member for each in get_args(kind) for member in _members(each)]
    return [kind]


def _inner(kind: Any, part: str) -> Any:
    """Return the type behind the key (or position) ``part`` of a section, a dataclass, a mapping or a list."""
    if get_origin(kind) in {dict, list}:
        return get_args(kind)[-1]
    return _keys(kind).get(part)


def _keys(kind: Any) -> dict[str, Any]:
    """Return {key: type} of a section or a dataclass; none of anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if not is_dataclass(kind):
        return {}
    types = get_type_hints(kind)
    return {field.name: types[field.name] for field in fields(kind)}
