"""Everything about params.yaml that can be known before anything trains: keys, order, plug-ins, data, models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from slimline import params, pipeline, plugins
from slimline.errors import DataError, ParamsError
from slimline.params import Configured, Distill, Params, Plugin

DVC_FILE = Path("dvc.yaml")


def check(path: Path = params.FILE) -> list[str]:
    """Check this folder's project and return lines that say what will run. Raises SlimlineError at a mistake."""
    document = params.read(path)
    settings = params.parse(document, path)
    order = pipeline.check_order(document, path=str(path))
    _check_dvc(settings, document)
    for kind, chosen, where in _configured(settings, path):
        params.configure(kind, chosen, where)
    for kind, name, where in _named(settings, path):
        plugins.find(kind, name, where=where)
    from slimline.export import formats

    formats.exporters(settings.export, settings.target, path)
    shown = _check_task(settings, path)
    return [f"runs: {' -> '.join(order)}", f"exports: {', '.join(settings.export.stages)}", *shown]


def _check_dvc(settings: Params, document: dict[str, Any]) -> None:
    """Every stage of params.yaml must stand in dvc.yaml, and every key that dvc.yaml reads in params.yaml."""
    if not DVC_FILE.is_file():
        raise ParamsError(f"{DVC_FILE}: not found; 'slimline init' lays it out")
    known = yaml.safe_load(DVC_FILE.read_text(encoding="utf-8")).get("stages", {})
    for stage in settings.compressions:
        if stage not in known:
            raise ParamsError(f"{DVC_FILE}: stages.{stage}: missing, though params.yaml has a section {stage!r}")
    tracked = [key for stage in known.values() for key in stage.get("params", []) if isinstance(key, str)]
    templated = [
        key
        for key in re.findall(r"\$\{([\w.]+)\}", DVC_FILE.read_text(encoding="utf-8"))
        if not key.startswith("item.")
    ]
    for key in [*tracked, *templated]:
        at: Any = document
        for part in key.split("."):
            if isinstance(at, dict) and at.get(part, at) is None and part == "recovery":
                raise ParamsError(f"{params.FILE}: {key.rpartition('.')[0]}: null; write epochs: 0 for no recovery")
            if not isinstance(at, dict) or part not in at:
                raise ParamsError(f"{params.FILE}: {key}: missing; dvc.yaml reads it, so write it out, defaults too")
            at = at[part]
        if at is None and key in templated:
            hint = "; to recover on labels alone give the loss alpha: 0" if key.endswith("recovery.teacher") else ""
            raise ParamsError(f"{params.FILE}: {key}: null, but dvc.yaml names a folder by it: name a stage{hint}")


def _configured(settings: Params, path: Path) -> Iterator[tuple[str, Configured, str]]:
    for name, section in settings.compressions.items():
        if isinstance(section, Distill):
            yield "losses", section.loss, f"{path}: {name}.loss"
            continue
        for index, method in enumerate(section.methods):
            yield "methods", method, f"{path}: {name}.methods.{index}"
        if section.recovery is not None:
            yield "losses", section.recovery.loss, f"{path}: {name}.recovery.loss"


def _named(settings: Params, path: Path) -> Iterator[tuple[str, str, str]]:
    yield "runtimes", settings.target.runtime, f"{path}: target.runtime"
    yield from (("metrics", each, f"{path}: benchmark.metrics") for each in settings.benchmark.metrics)


def _check_task(settings: Params, path: Path) -> list[str]:
    """Load the data, build each model, and run it on one row."""
    import torch

    from slimline import artifact
    from slimline.task import SPLITS, call, tensors

    task = artifact.build_task(artifact.Named(settings.task.name, settings.task.args), f"{path}: task")
    splits = task.splits()
    if missing := [name for name in SPLITS if name not in splits or not len(splits[name])]:
        raise DataError(f"{path}: task: {settings.task.name} has no rows in split {missing[0]!r}")
    if settings.teacher.training is None and settings.teacher.weights is None:
        raise ParamsError(f"{path}: teacher.training: missing; give it, or teacher.weights")
    if settings.teacher.weights is not None and not Path(settings.teacher.weights).is_file():
        raise ParamsError(f"{path}: teacher.weights: no file {settings.teacher.weights}")
    row = tensors(splits["validation"][slice(0, 2)][0])
    want = task.signature()["outputs"][0]["shape"][1:]
    for where, plugin in _models(settings, path):
        model = artifact.build_model(task, artifact.Named(plugin.name, plugin.args), where)
        try:
            with torch.inference_mode():
                out = call(model.eval(), row)
        except (RuntimeError, TypeError) as error:
            raise ParamsError(
                f"{where}.model: it can't take this task's input: {' '.join(str(error).split())}"
            ) from error
        if list(out.shape[1:]) != want:
            raise ParamsError(f"{where}.model.args: outputs {list(out.shape[1:])} a row, the task wants {want}")
    limit = f", at most {settings.limit} used" if settings.limit else ""
    return [f"data: {', '.join(f'{len(split):,} {name}' for name, split in splits.items())} rows{limit}"]


def _models(settings: Params, path: Path) -> Iterator[tuple[str, Plugin]]:
    yield f"{path}: teacher", settings.teacher.model
    for name, section in settings.compressions.items():
        if isinstance(section, Distill) and section.model is not None:
            yield f"{path}: {name}", section.model
