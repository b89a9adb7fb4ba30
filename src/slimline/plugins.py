"""Plug-ins by entry point. Built-ins are found the same way as anybody's.

A name in params.yaml is either a registered entry point (``structured``) or ``package.module:Name``, which needs no
packaging. An entry point whose name ends in a colon (``timm:``) is a family: it is called with what stands behind the
colon (``timm:convnext_atto``) as its first argument. A name inside a *loaded artifact* is foreign: only registered
names run, unless ``trust:`` lists it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from functools import cache, partial
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any, NamedTuple, cast

from slimline.errors import PluginError, near_miss

KINDS = ("tasks", "models", "methods", "losses", "metrics", "preprocess", "exporters", "runtimes", "targets")


class Offer(NamedTuple):
    """One plug-in as its distribution declares it; nothing is imported to know it."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str


@cache
def _all_entry_points() -> EntryPoints:
    return cast(EntryPoints, entry_points())  # reads every installed distribution: once, whatever the number of kinds


@cache
def _entry_points(kind: str) -> tuple[EntryPoint, ...]:
    found: dict[tuple[str, str, str], EntryPoint] = {}
    for point in _all_entry_points().select(group=f"slimline.{kind}"):
        found.setdefault((point.name, point.value, _distribution(point)), point)
    return tuple(found.values())


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "?"


def offers(kind: str | None = None) -> list[Offer]:
    """Return every plug-in of ``kind`` (or of all kinds), sorted by kind and name. Imports nothing."""
    kinds = KINDS if kind is None else (kind,)
    rows = [
        Offer(each, point.name, point.value, _distribution(point), point.dist.version if point.dist else "?")
        for each in kinds
        for point in _entry_points(each)
    ]
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), row.name))


def locate(kind: str, name: str, *, where: str = "") -> str:
    """Return ``module:attribute`` of the one plug-in called ``name``, or of its family, without importing it.

    Raises PluginError, prefixed with ``where`` (a file and key), when none or several are registered.
    """
    if kind not in KINDS:
        raise PluginError(f"{kind!r} is no kind of plug-in; the kinds are {', '.join(KINDS)}")
    prefix = f"{where}: " if where else ""
    own = family(kind, name)
    if ":" in name and not own:
        return name
    name = own or name
    points = [point for point in _entry_points(kind) if point.name == name]
    if not points:
        known = sorted({point.name for point in _entry_points(kind)})
        raise PluginError(
            f"{prefix}no plug-in {name!r} among slimline.{kind}; there are: {', '.join(known) or 'none'}."
            f"{near_miss(name, known)} 'slimline plugins' lists them all"
        )
    if len(points) > 1:
        owners = ", ".join(sorted(_distribution(point) for point in points))
        raise PluginError(
            f"{prefix}{name!r} is registered as slimline.{kind} by several distributions ({owners}): uninstall one"
        )
    return points[0].value


def family(kind: str, name: str) -> str:
    """Return the family that ``name`` belongs to (``timm:`` of ``timm:vit_tiny``), or an empty text."""
    first, colon, _ = name.partition(":")
    return first + colon if colon and any(point.name == first + colon for point in _entry_points(kind)) else ""


def find(kind: str, name: str, *, where: str = "", trust: Collection[str] | None = None) -> Any:
    """Import and return the plug-in ``name`` of ``kind``.

    ``trust`` is None when the name comes from the user's own params.yaml. When it comes from an artifact, pass the
    ``module:Name`` references that params.yaml trusts: any other is refused before it is imported.
    """
    prefix = f"{where}: " if where else ""
    own = family(kind, name)
    foreign = ":" in name and not own
    if trust is not None and foreign and name not in trust:
        raise PluginError(
            f"{prefix}{name!r} would run code that is not registered; if you wrote it, add it to trust: in params.yaml"
        )
    module_name, _, attribute = locate(kind, name, where=where).partition(":")
    try:
        module = _import(module_name, search_here=foreign)
        found: Any = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, ValueError) as error:  # ValueError: an empty module name
        extra = " (pip install 'slimline[train]')" if getattr(error, "name", "") in {"torch", "onnx", "sklearn"} else ""
        raise PluginError(f"{prefix}plug-in {name!r} can't be imported: {error}{extra}") from error
    except AttributeError as error:
        raise PluginError(f"{prefix}plug-in {name!r}: module {module_name} has no {attribute}") from error
    return partial(found, name.removeprefix(own)) if own else found


def _import(module_name: str, *, search_here: bool) -> Any:
    """Import a module; the user's own ``module:Name`` is looked for in the project's folder too."""
    here = str(Path.cwd())
    if search_here and here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(module_name)
