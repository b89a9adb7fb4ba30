"""Protocol buffers' text format, as far as config.pbtxt needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class Word(str):
    """The name of an enumeration's value: stands there without quotes."""

    __slots__ = ()


def as_text(message: Mapping[str, Any]) -> str:
    """Return ``message`` as text: a mapping is a message, a list a repeated field, in the order given."""
    return "\n".join(_fields(message, "")) + "\n"


def _fields(message: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _message(name, value, indent)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Mapping):
                for each in value:
                    yield from _message(name, each, indent)
            elif value:
                yield f"{indent}{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _message(name: str, message: Mapping[str, Any], indent: str) -> Iterator[str]:
    if not message:
        yield f"{indent}{name} {{ }}"
        return
    yield f"{indent}{name} {{"
    yield from _fields(message, indent + "  ")
    yield f"{indent}}}"


def _scalar(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)
