"""The keys of a plug-in in params.yaml, read off its types: what ``slimline plugins GROUP NAME`` shows.

Most plug-ins are dataclasses whose fields are their keys. Tasks and models are called with ``args``; what a factory
passes on is taken by the class that it says it returns, or by the kinds of it beside the factory. The others are named
alone.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from slimline import plugins
from slimline.params import Weighted

CALLED = ("tasks", "models")
GIVEN = {"assets"}  # by the artifact that is being loaded
REQUIRED = "required"
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
WORDS = {"string": "text", "boolean": "true | false"}
Schema = Mapping[str, Any]


class Key(NamedTuple):
    """One key. ``of`` names the classes that alone have it, where a factory returns one of several."""

    name: str
    type: str
    default: str
    of: str = ""


def described(kind: str, name: str) -> list[str]:
    """Return what a plug-in is, in one line, and the table of its keys.

    Raises PluginError when there is none of that name.
    """
    factory = plugins.find(kind, name)
    says = (inspect.getdoc(_of_family(factory)) or "").partition("\n")[0].replace("``", "")
    rows = keys(kind, factory)
    if not rows:
        return [f"{name}: {says}", "It has no keys."]
    table = [Key("key", "type", "default"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row.of]).rstrip() for row in table]
    return [f"{name}: {says}", *lines]


def keys(kind: str, factory: Any) -> list[Key]:
    """Return the keys of a plug-in; those of records in it follow with dots, ``*`` stands for a name of one's own."""
    if kind in CALLED:
        return list(_arguments(factory))
    if not is_dataclass(factory):
        return []
    hints = _hints(factory)
    found = []
    for field in fields(factory):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        found += _rows(field.name, hints.get(field.name, Any), default)
    if kind == "losses":
        weight = Weighted.model_fields["weight"]
        found += _rows("weight", get_type_hints(Weighted, include_extras=True)["weight"], weight.default)
    return found


def words(annotation: Any) -> str:
    """Return a type in words, as the table of keys has it."""
    schema = TypeAdapter(annotation).json_schema()
    return _type(schema, schema.get("$defs", {}))


def _arguments(factory: Any) -> Iterator[Key]:
    """Yield the arguments of a factory, then what it passes on to those that it may return."""
    yield from _named(factory)
    made = _hints(factory).get("return")
    if inspect.isclass(factory) or not inspect.isclass(made) or not _passes_on(factory):
        return
    classes = [each for each in made.__subclasses__() if each.__module__ == factory.__module__] or [made]
    owners: dict[Key, list[str]] = {}
    for each in classes:
        for key in _named(each):
            owners.setdefault(key, []).append(each.__name__)
    for key, names in owners.items():
        yield key._replace(of="" if len(names) == len(classes) else f"of {', '.join(names)}")


def _named(factory: Any) -> Iterator[Key]:
    """Yield the arguments that a callable names; of a class, its bases' too as long as it passes others on."""
    constructors = [factory]
    if inspect.isclass(factory):
        constructors = [vars(each)["__init__"] for each in factory.__mro__ if "__init__" in vars(each)]
    for constructor in constructors:
        hints = _hints(constructor)
        for each in inspect.signature(constructor).parameters.values():
            if each.name not in {"self", *GIVEN} and each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}:
                default = MISSING if each.default is each.empty else each.default
                yield from _rows(f"args.{each.name}", hints.get(each.name, Any), default)
        if not _passes_on(constructor):
            return


def _passes_on(factory: Any) -> bool:
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(factory).parameters.values())


def _of_family(factory: Any) -> Any:
    """Return what a family calls with a name, and any other factory as it is."""
    return factory.func if isinstance(factory, partial) else factory


def _hints(annotated: Any) -> dict[str, Any]:
    try:
        return get_type_hints(_of_family(annotated), include_extras=True)
    except NameError:  # imported for type checkers alone
        return {}


def _rows(name: str, annotation: Any, default: Any) -> list[Key]:
    """Return the rows of one key, by the JSON schema that pydantic makes of its annotation."""
    shown = REQUIRED if default is MISSING else _text(default)
    try:
        schema = TypeAdapter(annotation).json_schema()
    except PydanticUserError:
        return [Key(name, getattr(annotation, "__name__", str(annotation)), shown)]
    return list(_flat(name, schema, schema.get("$defs", {}), shown))


def _flat(name: str, schema: Schema, records: Mapping[str, Schema], default: str) -> Iterator[Key]:
    yield Key(name, _type(schema, records), default)
    for each in _either(schema) or [schema]:
        at, inner = name, _resolved(each, records)
        if isinstance(inner.get("additionalProperties"), dict):
            at, inner = f"{name}.*", _resolved(inner["additionalProperties"], records)
        for key, value in inner.get("properties", {}).items():
            yield from _flat(f"{at}.{key}", value, records, _text(value["default"]) if "default" in value else REQUIRED)


def _either(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    return found


def _resolved(schema: Schema, records: Mapping[str, Schema]) -> Schema:
    return records[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _type(schema: Schema, records: Mapping[str, Schema]) -> str:
    """Return a type in words: ``integer ≥ 2, ≤ 16``, ``l1 | l2``, ``list of text``."""
    schema = _resolved(schema, records)
    if either := _either(schema):
        return " | ".join(dict.fromkeys(_type(each, records) for each in either))
    if "enum" in schema or "const" in schema:
        return " | ".join(map(_text, schema.get("enum", [schema.get("const")])))
    kind = schema.get("type", "any")
    if kind == "array":
        items = _type(schema.get("items", {}), records)
        return f"list of ({items})" if " | " in items else f"list of {items}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"map to {_type(values, records)}" if isinstance(values, dict) else "map" if values else "record"
    bounds = ", ".join(f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if key in schema)
    return f"{WORDS.get(kind, kind)} {bounds}".rstrip()


def _text(value: Any) -> str:
    """Return a value as YAML has it."""
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
