"""A Triton model repository from releases, written whole or not at all.

DIR/MODEL/VERSION/…             the model of each release: model.onnx, model.plan, or model.py with its export
DIR/MODEL-preprocess/VERSION/…  raw values to the model's inputs, in Triton's Python
DIR/MODEL-raw/VERSION/          the ensemble of both for the newest version, MODEL-raw-vN for an older one
DIR/.gitignore                  keeps all of it out of the project's commits: a release makes it anew

The same releases and options give the same bytes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import __version__, goldens, manifest, preprocess
from slimline.errors import ReleaseError
from slimline.model_repository import batching, config, names, vendoring
from slimline.model_repository.config import Plan
from slimline.model_repository.pbtxt import as_text
from slimline.model_repository.source import Backend, Device, Source, model_file, read

MODEL_FILE = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
BACKEND = "slimline.model_repository.backend"
CODE = """# Slimline {version} wrote this. What it runs stands beside it in python/: Slimline needn't be installed.
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the repository stays as it was written
sys.path.insert(0, str(Path(__file__).parent / "python"))

from slimline.model_repository.backend import {name} as TritonPythonModel  # noqa: E402, F401
"""


@dataclass(frozen=True)
class Options:
    """``served``: versions, or how many of the newest (0: all). None: what the releases say or measured."""

    name: str | None = None
    backend: Backend = "onnxruntime"
    device: Device = "cpu"
    served: tuple[int, ...] | int = 0
    instances: int = 1
    threads: int | None = None
    largest: int | None = None
    delay: int | None = None


def write(releases: Sequence[Path], out: Path, options: Options) -> list[str]:
    """Write the repository and return what to say about it; version N is the N-th release.

    Raises ReleaseError where a release doesn't fit the options or its predecessors, ArtifactError on a damaged one.
    """
    sources = {version: read(path) for version, path in enumerate(releases, 1)}
    _check_alike(sources)
    _check_target(out)
    plan, files = _plan(sources, options)
    with manifest.sealed(out) as scratch:
        return list(_write(scratch, plan, files))


def _plan(sources: Mapping[int, Source], options: Options) -> tuple[Plan, dict[int, str]]:
    newest = sources[max(sources)]
    found = {version: model_file(source, options.backend, options.device) for version, source in sources.items()}
    formats = sorted({each for each, _ in found.values()})
    if len(formats) > 1:
        raise ReleaseError(f"the releases would run {' and '.join(formats)}: all versions of a model run one format")
    name = options.name or re.sub(r"[^\w.-]", "-", str(newest.card["task"]["name"]))
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ReleaseError(f"--name {name}: letters, digits, '.', '_' and '-' only, and a letter or digit first")
    served = options.served
    if isinstance(served, tuple) and (unknown := sorted(set(served) - set(sources))):
        raise ReleaseError(
            f"--versions {unknown[0]}: there are {len(sources)} releases, so versions 1 to {len(sources)}"
        )
    measured = batching.choose(newest.measured["latency_ms"])
    largest = options.largest or measured.largest
    if options.backend == "tensorrt":
        largest = min(largest, *(_profile(source) for source in sources.values()))
    chosen = batching.Batching(
        largest,
        tuple(size for size in measured.preferred if size <= largest),
        measured.delay if options.delay is None else options.delay,
    )
    threads = options.threads or int(newest.measured.get("threads", 1))
    plan = Plan(name, sources, served, options.backend, options.device, formats[0], chosen, options.instances, threads)
    return plan, {version: file for version, (_, file) in found.items()}


def _profile(source: Source) -> int:
    facts = source.format("tensorrt") or {}
    return min(int(most[0]) for _, _, most in facts["profile"].values())


def _write(root: Path, plan: Plan, files: Mapping[int, str]) -> Iterator[str]:
    rows = {name: array[0] for name, array in goldens.read(plan.newest.release, plan.newest.stage)[0].items()}
    _write_model(root / plan.name, plan, files, rows)
    _put(root / ".gitignore", "*\n")
    yield f"{plan.name}: {plan.backend} on {plan.device.upper()}, format {plan.format}, {_batches(plan)}"
    for version, source in plan.sources.items():
        yield f"  version {version}: {source.revision}"
    if lacking := [str(source.release) for source in plan.sources.values() if not _operations(source)]:
        yield f"no ensemble for raw values: {lacking[0]} has no steps in its preprocess.json"
        return
    _write_preprocessing(root / names.preprocessing(plan.name), plan)
    for version in _served(plan):
        folder = root / names.ensemble(plan.name, version, max(plan.sources))
        _write_config(folder, config.ensemble(plan, version), plan)
        # a version needs a folder, and archives and object stores keep none that is empty
        _put(folder / str(version) / "revision", plan.sources[version].revision + "\n")
        yield f"{folder.name}: raw values → {names.preprocessing(plan.name)} → {plan.name}, version {version}"


def _write_model(folder: Path, plan: Plan, files: Mapping[int, str], rows: Mapping[str, NDArray[Any]]) -> None:
    _write_config(folder, config.model(plan, {name: row.shape for name, row in rows.items()}), plan)
    for name, row in rows.items():
        _put(folder / "warmup" / config.GOLDEN.format(name), np.ascontiguousarray(row).tobytes())
    for version, source in plan.sources.items():
        target = folder / str(version)
        if plan.backend == "python":
            shutil.copytree(source.folder, target / "export")
            _put(target / "model.py", CODE.format(name="Model", version=__version__))
            vendoring.copy([BACKEND, "slimline.runtimes.onnxruntime"], _operations(source), target / vendoring.FOLDER)
        else:
            target.mkdir()
            shutil.copyfile(source.folder / files[version], target / MODEL_FILE[plan.backend])


def _write_preprocessing(folder: Path, plan: Plan) -> None:
    _write_config(folder, config.preprocessing(plan), plan)
    for version, source in plan.sources.items():
        target = folder / str(version)
        target.mkdir(parents=True)
        preprocess.write(preprocess.read(source.folder), target)
        _put(target / "model.py", CODE.format(name="Preprocess", version=__version__))
        vendoring.copy([BACKEND], _operations(source), target / vendoring.FOLDER)


def _write_config(folder: Path, message: Mapping[str, Any], plan: Plan) -> None:
    _put(folder / "config.pbtxt", as_text(message))
    if any("label_filename" in each for each in message["output"]):
        _put(folder / config.LABELS, "".join(f"{label}\n" for label in plan.newest.signature["labels"]))


def _put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _operations(source: Source) -> list[str]:
    return [str(step["op"]) for step in source.preprocess.get("steps", [])]


def _served(plan: Plan) -> list[int]:
    """Return the versions that Triton will load."""
    if isinstance(plan.served, tuple):
        return sorted(plan.served)
    return sorted(plan.sources)[-plan.served :]


def _batches(plan: Plan) -> str:
    if plan.batching.largest == 1:
        return "one row a request"
    waited = f"waits {plan.batching.delay} µs for {' or '.join(map(str, plan.batching.preferred))} rows"
    return f"up to {plan.batching.largest} rows, {waited if plan.batching.preferred else 'waits for none'}"


def _check_alike(sources: Mapping[int, Source]) -> None:
    first = sources[1]
    for version, source in sources.items():
        for part in ("inputs", "outputs", "labels"):
            if _face(source, part) != _face(first, part):
                raise ReleaseError(
                    f"{source.release}: its {part} differ from those of {first.release}: versions of one model share "
                    "them; write it under another --name"
                )
        same = next((other for other, each in sources.items() if each.revision == source.revision), version)
        if same != version:
            raise ReleaseError(f"{source.release}: it is version {same} already: {source.revision}")


def _face(source: Source, part: str) -> Any:
    """Return a part of the signature without the ranges of numbers, which each version checks by itself."""
    found = source.signature.get(part)
    return found if part == "labels" else [{**spec, "range": None} for spec in found or []]


def _check_target(out: Path) -> None:
    """Refuse to replace anything but a sealed folder: a mistyped --out must cost nobody their files."""
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / manifest.MANIFEST).is_file())):
        raise ReleaseError(f"{out}: it holds something else than a model repository: name a new folder in --out")
