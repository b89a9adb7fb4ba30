"""params.yaml from its text to its sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slimline.errors import ParamsError, near_miss
from slimline.params.sections import Compression, Distill, Params
from slimline.params.validation import validate

FILE = Path("params.yaml")
FIXED = tuple(name for name in Params.model_fields if name != "compressions")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)


def read(path: Path = FILE) -> dict[str, Any]:
    """Read a params file as plain data. Raises ParamsError when it is missing or not a YAML mapping."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe loader)
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: not found; run this in the project's folder, or 'slimline init' to make one"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ParamsError(f"{path}: expected keys and values, found {type(document).__name__}")
    return document


def load(path: Path = FILE) -> Params:
    """Read and validate ``path``; ``configure`` validates plug-in settings, ``pipeline.check_order`` the order."""
    return parse(read(path), path)


def parse(document: Mapping[str, Any], path: Path = FILE) -> Params:
    """Validate a params document. Raises ParamsError with file, key and what to do."""
    fixed = {key: value for key, value in document.items() if key in FIXED}
    compressions: dict[str, Distill | Compression] = {}
    for key, value in document.items():
        if key in FIXED:
            continue
        if not isinstance(value, Mapping) or "from" not in value:
            known = [*FIXED, "distill", "prune", "quantize", "factorize"]
            missing = "a stage needs 'from'" if isinstance(value, Mapping) else "unknown key"
            raise ParamsError(f"{path}: {key}: {missing}.{near_miss(str(key), known)} Known: {', '.join(known)}")
        section: type[Distill | Compression] = Distill if "methods" not in value else Compression
        compressions[key] = validate(section, value, f"{path}: {key}")
        if value.get("model") and value.get("keep"):
            raise ParamsError(f"{path}: {key}.keep: it takes blocks of the input model, and 'model' builds another")
    checked: Params = validate(Params, {**fixed, "compressions": compressions}, f"{path}:")
    return checked
