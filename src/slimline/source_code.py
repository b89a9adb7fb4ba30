"""Source files read as text: what importing a module runs, and a hash of its code alone. Nothing is imported."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import tokenize
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any


def sources(modules: Iterable[str], packages: Collection[str]) -> dict[str, Path]:
    """Return {module: file} of ``modules`` and all that importing them runs of ``packages``. Imports nothing."""
    return {name: path for name, path, _ in reached(modules, packages, read_code)}


def reached(
    modules: Iterable[str],
    packages: Collection[str],
    read: Callable[[Path], list[Any]],
    unseen: Callable[[str], list[str]] = lambda _: [],
) -> Iterator[tuple[str, Path, str]]:
    """Yield (module, file, hash of code) of ``modules``, what they import at any depth and the packages around them.

    ``read`` is ``read_code`` or remembers it; ``unseen`` are modules that one uses beside what it imports.
    """
    seen: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in seen or name.partition(".")[0] not in packages:
            continue
        path = _source(name)
        if path is None:
            continue
        seen.add(name)
        digest, imports = read(path)
        pending += [*imports_of(imports, name, is_package=path.name == "__init__.py"), *unseen(name)]
        pending.append(name.rpartition(".")[0])
        yield name, path, digest


@cache
def _source(module: str) -> Path | None:
    """Return the file of ``module`` without importing it, or None for an attribute or a built-in."""
    top, _, rest = module.partition(".")
    spec = importlib.util.find_spec(top) if top != "__main__" else None
    if spec is None:
        beside = Path.cwd() / Path(*module.split("."))
        return next((each for each in (beside.with_suffix(".py"), beside / "__init__.py") if each.is_file()), None)
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or []:
        path = Path(folder, *rest.split("."))
        for each in (path.with_suffix(".py"), path / "__init__.py"):
            if each.is_file():
                return each
    return None


def read_code(path: Path) -> list[Any]:
    """Return [hash of a source file's code, [[level, module, names] of each import in it, at any depth]]."""
    text = path.read_bytes()
    found: list[list[Any]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [[0, alias.name, []] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append([node.level, node.module or "", [alias.name for alias in node.names]])
    return [_code_hash(text), found]


def imports_of(found: list[list[Any]], module: str, *, is_package: bool) -> Iterable[str]:
    """Yield the absolute names of everything that ``module`` imports."""
    for level, base, names in found:
        package = module.split(".") if is_package else module.split(".")[:-1]
        start = ".".join([*package[: len(package) - level + 1], *([base] if base else [])]) if level else base
        yield start
        yield from (f"{start}.{name}" for name in names)


@cache
def _code_hash(text: bytes) -> str:
    """Return the sha256 of a source text less its comments, docstrings and blank lines."""
    lines = text.decode().split("\n")
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            first, last, start, end = _place(node.body[0])
            tail = lines[last].encode()[end:].decode()  # code may go on in the docstring's line
            lines[first : last + 1] = [lines[first].encode()[:start].decode(), *[""] * (last - first)]
            lines[last] += tail
    kept = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(kept.encode()).hexdigest()


def _place(node: ast.stmt) -> tuple[int, int, int, int]:
    """Return first and last line (from 0), and where in them the statement starts and ends (UTF-8 bytes)."""
    assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101, PT018  (ast.parse sets them)
    return node.lineno - 1, node.end_lineno - 1, node.col_offset, node.end_col_offset
