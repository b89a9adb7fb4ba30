"""How much each layer minds: one layer at a time is compressed by one method at one strength, and measured.

For each trial the loss of the primary metric on validation rows (with its paired interval) and the layer's speed-up on
the target are kept. Nothing is trained, so the loss is what recovery would start from. Trials are remembered under
``.slimline/sensitivity/``, keyed by the artifact, the data and the target; a stopped run goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from slimline import intervals, manifest, measure, metrics, params
from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.factorization import LowRank
from slimline.method import Context, compress
from slimline.params import Configured
from slimline.quantizers import is_quantizable, plain_layer
from slimline.stage import Stage

CACHE = Path(".slimline/sensitivity")
GRID: dict[str, dict[str, dict[str, Any]]] = {
    "symmetric": {"8 bits": {"bits": 8}},
    "magnitude": {f"{share:.0%} zero": {"ratio": share, "max_ratio": 1.0} for share in (0.5, 0.75, 0.9)},
    "svd": {f"{r:g} of rank": {"rank": {"ratio": r}, "multiple": 1} for r in (0.5, 0.25, 0.125)},
    "tucker2": {f"{r:g} of rank": {"rank": {"ratio": r}, "multiple": 1} for r in (0.5, 0.25, 0.125)},
}


@dataclass(frozen=True)
class Trial:
    """One layer, one method, one strength."""

    layer: str
    method: str
    strength: str


@dataclass(frozen=True)
class Result:
    """``drop`` of the primary metric with its paired interval; ``gain`` = the layer's time before / after, alone."""

    drop: float
    drop_ci: list[float]
    gain: float


def run(name: str, settings: params.Params, rows: int | None = None) -> dict[Trial, Result]:
    """Measure every trial on ``artifacts/name`` with at most ``rows`` validation rows, showing the time left."""
    stage = Stage(name, settings, settings.limit)
    model, _, digest = stage.load(name)
    validation = stage.splits["validation"].head(rows)
    data = [validation.digest, stage.splits["calibration"].digest]
    key = manifest.canonical([digest, data, settings.target.model_dump(), settings.budget.confidence])
    path = CACHE / f"{hashlib.sha256(key).hexdigest()[:32]}.json"
    known = manifest.read_json(path)["trials"] if path.is_file() else {}
    task = stage.task
    sign = 1 if task.higher_is_better else -1
    before = metrics.outputs(model, validation)
    hits = task.correct(task.answer(before), validation.targets)
    start = task.metrics(before, validation.targets)[task.primary]
    layers = _layers(model)
    inputs, _ = next(iter(stage.batches(stage.splits["calibration"])()))
    shapes = measure.input_shapes(model, layers, inputs)
    found: dict[Trial, Result] = {}
    for trial in tqdm(list(_trials(layers)), desc=f"sensitivity of {name}", unit="trial", disable=None):
        label = f"{trial.layer} {trial.method} {trial.strength}"
        if label not in known:
            context = Context(
                task, stage.splits["calibration"], validation, settings.target, Decisions(None, {}), settings.seed,
                f"sensitivity: {trial.method}",
            )  # fmt: skip
            compressed = _compress(trial, model, stage, context)
            if compressed is None:
                known[label] = None
            else:
                after = metrics.outputs(compressed, validation)
                drop = sign * (start - task.metrics(after, validation.targets)[task.primary])
                interval = intervals.paired_drop(
                    hits, task.correct(task.answer(after), validation.targets), settings.budget.confidence
                )
                variants = {"before": model.get_submodule(trial.layer), "after": compressed.get_submodule(trial.layer)}
                seconds = measure.layers(copy.deepcopy(variants), shapes[trial.layer], settings.target)
                gain = measure.gain(seconds["before"], seconds["after"])
                known[label] = asdict(Result(drop, interval, round(gain, 3)))
            manifest.write_json(path, {"format": 1, "artifact": digest, "trials": known})
        if known[label] is not None:
            found[trial] = Result(**known[label])
    return found


def _layers(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _trials(layers: list[str]) -> Iterator[Trial]:
    for layer in layers:
        for method, strengths in GRID.items():
            yield from (Trial(layer, method, strength) for strength in strengths)


def _compress(trial: Trial, model: nn.Module, stage: Stage, context: Context) -> nn.Module | None:
    """Return the model with one layer compressed, or None where the method doesn't take that layer."""
    others = [name for name, layer in model.named_modules() if name and name != trial.layer and _is_leaf(layer)]
    method = _configure(trial, {}, context.where)
    if not _takes(trial.method, method, model.get_submodule(trial.layer)):
        return None
    skip = [name for name in others if _takes(trial.method, method, model.get_submodule(name))]
    alone = _configure(trial, {"skip": skip}, context.where)
    try:
        compressed, _ = compress(alone, model, stage.batches(stage.splits["calibration"]), context)
    except MethodError:
        return None
    before, after = (each.get_submodule(trial.layer).state_dict() for each in (model, compressed))
    return compressed.eval() if before.keys() != after.keys() else None


def _configure(trial: Trial, extra: dict[str, Any], where: str) -> Any:
    settings = {"name": trial.method, **GRID[trial.method][trial.strength], **extra}
    return params.configure("methods", Configured.model_validate(settings), where)


def _is_leaf(layer: nn.Module) -> bool:
    return not any(True for _ in plain_layer(layer).children())


def _takes(name: str, method: Any, layer: nn.Module) -> bool:
    """Return whether a method would change this layer."""
    if isinstance(method, LowRank):
        return method.takes(layer)
    return is_quantizable(plain_layer(layer)) if name == "symmetric" else isinstance(layer, nn.Conv2d | nn.Linear)


def table(results: dict[Trial, Result], metric: str) -> list[str]:
    """Return the results as a markdown table, the most harmful trial of each layer first."""
    lines = [
        f"| layer | method | strength | drop of {metric} | interval | layer's speed |",
        "|---|---|---|---:|---|---:|",
    ]
    for trial, result in sorted(results.items(), key=lambda pair: -pair[1].drop):
        low, high = result.drop_ci
        what = f"| {trial.layer} | {trial.method} | {trial.strength}"
        lines.append(f"{what} | {result.drop:+.4f} | [{low:+.4f}, {high:+.4f}] | {result.gain:.2f}× |")
    return lines


def matrix(results: dict[Trial, Result]) -> tuple[list[str], list[str], Any, Any]:
    """Return (layers, columns, drops, gains); the arrays are layers × columns, NaN where a method doesn't apply."""
    layers = list(dict.fromkeys(trial.layer for trial in results))
    columns = [f"{method} {strength}" for method, strengths in GRID.items() for strength in strengths]
    drops, gains = (np.full((len(layers), len(columns)), np.nan) for _ in range(2))
    for trial, result in results.items():
        at = layers.index(trial.layer), columns.index(f"{trial.method} {trial.strength}")
        drops[at], gains[at] = result.drop, result.gain
    return layers, columns, drops, gains


def write(folder: Path, name: str, results: dict[Trial, Result], settings: params.Params) -> list[str]:
    """Write ``name``'s .md, .json and .png into ``folder`` and return the table's lines."""
    from slimline.report import heatmap

    lines = table(results, Stage(name, settings, None).task.primary)
    manifest.write_text(folder / f"{name}.md", "\n".join(lines) + "\n")
    rows = [asdict(trial) | asdict(result) for trial, result in results.items()]
    manifest.write_json(folder / f"{name}.json", {"format": 1, "target": settings.target.model_dump(), "trials": rows})
    if results:
        heatmap.draw(folder / f"{name}.png", *matrix(results), title=f"{name}: points lost, and the layer's speed")
    return lines
