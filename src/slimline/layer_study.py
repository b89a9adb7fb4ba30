"""Layer × method × strength, as ``slimline sensitivity`` shows it: what each costs and what it gains.

For each trial the loss of the primary metric on validation rows (with its paired interval), the rise of the loss, the
divergence, and the layer's speed-up on the target are kept. Nothing is trained: this is what recovery starts from.
Costs and times are remembered under ``.slimline/sensitivity/``; a stopped run goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from slimline import artifact, manifest, measure, params, progress
from slimline.decisions import Decisions
from slimline.errors import ArtifactError, MethodError, ParamsError, near_miss
from slimline.method import Alone, Batches, Context, Method, check_rows
from slimline.params import Configured, Target
from slimline.pruning.shares import RATIOS
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear, has_integer_kernel
from slimline.sensitivity import CACHE, FORMAT, Sensitivity, code_version, remembered
from slimline.stage import Stage

WIDTHS = (2, 3, 4, 6, 8)
RANKS = (0.5, 0.25, 0.125)
_ZEROS = {f"{share:.0%} zero": {"ratio": share, "max_ratio": 1.0} for share in RATIOS}
_NARROWER = {f"{share:.0%} gone": {"ratio": share} for share in RATIOS}
_BITS = {f"{bits} bits": {"weight_bits": bits, "activation_bits": 8} for bits in WIDTHS}
_RANKS = {f"{share:g} of rank": {"rank": {"ratio": share}, "multiple": 1} for share in RANKS}
GRID: dict[str, dict[str, dict[str, Any]]] = {
    "linear": _BITS,
    "symmetric": {"8 bits": {"bits": 8}},
    "magnitude": _ZEROS,
    "structured": _NARROWER,
    "n-m": {"2:4": {"n": 2, "m": 4}, "1:4": {"n": 1, "m": 4}},
    "svd": _RANKS,
    "tucker2": _RANKS,
    "spatial": _RANKS,
    "cp": _RANKS,
}


@dataclass(frozen=True)
class Trial:
    """One layer (of coupled ones, the first), one method, one strength."""

    layer: str
    method: str
    strength: str


@dataclass(frozen=True)
class Result:
    """``drop`` of the primary metric with its paired interval; ``rise`` of the loss; ``divergence`` of the answers.

    The interval is None where that metric isn't the share of right answers.
    ``gain`` = the time before / after of the layers it changes, alone; None where the width is for storage only.
    """

    drop: float
    drop_ci: list[float] | None
    rise: float
    divergence: float
    gain: float | None


def run(
    name: str, settings: params.Params, rows: int | None = None, methods: Collection[str] = ()
) -> dict[Trial, Result]:
    """Measure every trial on an artifact, with at most ``rows`` validation rows, showing the time left.

    ``name`` is a stage or an artifact's folder, ``methods`` are those of the grid to try (when empty, all that take the
    model).
    """
    chosen = _methods(methods)
    stage = Stage(name, settings, settings.limit)
    model, _, _ = stage.load_from(_folder(name))
    validation = stage.splits["validation"].head(rows)
    context = Context(
        stage.task, stage.splits["calibration"], validation, settings.target, Decisions(None, {}), settings.seed,
        "sensitivity", CACHE,
    )  # fmt: skip
    batches = stage.batches(stage.splits["calibration"])
    check_rows(batches, context.where)
    study, times = (
        Sensitivity(model, context),
        Times(model, settings.target, measure.typical_inputs(context.calibration)),
    )
    trials = dict(_trials(chosen, model, batches, context, named=bool(methods)))
    found: dict[Trial, Result] = {}
    shown = progress.each(trials.items(), f"sensitivity of {name}", len(trials), "trial")
    for trial, (method, layer, alone) in shown:
        once = replace(alone, make=cache(alone.make))
        cost, gain = study.cost(method, layer, once), times.gain(method, layer, once)
        found[trial] = Result(cost.drop, cost.interval(settings.budget.confidence), cost.rise, cost.divergence, gain)
    return found


def _methods(wanted: Collection[str]) -> list[str]:
    for name in wanted:
        if name not in GRID:
            raise ParamsError(
                f"--methods: {name!r} is not studied.{near_miss(name, list(GRID))} Known: {', '.join(GRID)}"
            )
    return [name for name in GRID if name in wanted or not wanted]


def _folder(name: str) -> Path:
    """Return the folder of an artifact given as a stage or as a path."""
    for folder in (artifact.FOLDER / name, Path(name)):
        if (folder / "model.json").is_file():
            return folder
    made = [path.parent.name for path in sorted(artifact.FOLDER.glob("*/model.json"))]
    raise ArtifactError(
        f"{name}: neither a stage with an artifact nor an artifact's folder.{near_miss(name, made)} "
        f"There are: {', '.join(made) or 'none; run dvc repro'}"
    )


def _trials(
    methods: Sequence[str], model: nn.Module, batches: Batches, context: Context, *, named: bool
) -> Iterator[tuple[Trial, tuple[Method, str, Alone]]]:
    """Yield every trial that its method takes, a layer's trials together.

    A method that can't take the model at all is an error where it was ``named``; else it is told and left out.
    """
    found = []
    for name in methods:
        try:
            found += _of_method(name, model, batches, context)
        except MethodError as error:
            if named:
                raise
            print(f"left out: {error}")
    order = [name for name, _ in model.named_modules()]
    yield from sorted(found, key=lambda each: order.index(each[0].layer))


def _of_method(
    name: str, model: nn.Module, batches: Batches, context: Context
) -> list[tuple[Trial, tuple[Method, str, Alone]]]:
    found = []
    for strength, settings in GRID[name].items():
        chosen = Configured.model_validate({"name": name, **settings})
        method = params.configure("methods", chosen, f"sensitivity: {name} {strength}")
        for layer, alone in method.alone(model, batches, context).items():
            found.append((Trial(layer, name, strength), (method, layer, alone)))
    return found


class Times:
    """How much faster layers run once they are changed, alone on the target; layers alike share one measurement."""

    def __init__(self, model: nn.Module, target: Target, inputs: dict[str, Tensor]) -> None:
        self._model, self._target, self._inputs = model, target, inputs
        hangs_on = [target.model_dump(), repr(model), code_version(frozenset({Times}))]
        self._path = CACHE / f"times-{hashlib.sha256(manifest.canonical(hangs_on)).hexdigest()[:32]}.json"
        document = remembered(self._path)
        self._gains, self._seconds = document.get("gains", {}), document.get("seconds", {})

    def gain(self, method: Method, layer: str, alone: Alone) -> float | None:
        """Return the time of the layers that change before / after, None where the runtime has no kernel for it."""
        label = _label(method, layer, alone)
        if label not in self._gains:
            self._gains[label] = self._measured(alone)
            manifest.write_json(self._path, {"format": FORMAT, "gains": self._gains, "seconds": self._seconds})
        found = self._gains[label]
        return None if found is None else float(found)

    def _measured(self, alone: Alone) -> float | None:
        changed = alone.make().eval()
        before, after = (self._layers(model, alone.layers) for model in (self._model, changed))
        if any(_only_stored(layer) for layer, _ in after.values()):
            return None
        totals = [dict.fromkeys(self._target.batch_sizes, 0.0) for _ in range(2)]
        for name in alone.layers:
            pair = {"before": before[name], "after": after[name]}
            for total, each in zip(totals, self._pair(pair), strict=True):
                for batch in total:
                    total[batch] += each[batch]
        return round(measure.gain(*totals), 3)

    def _layers(self, model: nn.Module, names: Sequence[str]) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
        shapes = measure.input_shapes(model, names, self._inputs)
        return {name: (model.get_submodule(name), shapes[name]) for name in names}

    def _pair(self, pair: dict[str, tuple[nn.Module, tuple[int, ...]]]) -> list[dict[int, float]]:
        """Return {batch size: seconds} before and after; what has one structure has one time."""
        keys = [f"{layer} {shape}" for layer, shape in pair.values()]
        key = " -> ".join(keys)
        if key not in self._seconds:
            used = dict(list(pair.items())[: len(set(keys))])
            variants = copy.deepcopy({name: layer for name, (layer, _) in used.items()})
            seconds = measure.layers(variants, {name: shape for name, (_, shape) in used.items()}, self._target)
            self._seconds[key] = [list(seconds[name if name in seconds else "before"].values()) for name in pair]
        return [dict(zip(self._target.batch_sizes, each, strict=True)) for each in self._seconds[key]]


def _label(method: Method, layer: str, alone: Alone) -> str:
    return f"{layer} {type(method).__qualname__} {manifest.canonical(alone.strength).decode()}"


def _only_stored(layer: nn.Module) -> bool:
    """Return whether a layer is quantized at widths that the runtime unpacks to floating point."""
    kinds = (QuantizedConv2d, QuantizedLinear)
    return any(isinstance(each, kinds) and not has_integer_kernel(each) for each in layer.modules())


def table(results: dict[Trial, Result], metric: str) -> list[str]:
    """Return the results as a markdown table, the most harmful trial first."""
    lines = [
        f"| layer | method | strength | drop of {metric} | interval | rise of loss | divergence | layer's speed |",
        "|---|---|---|---:|---|---:|---:|---:|",
    ]
    for trial, result in sorted(results.items(), key=lambda pair: (-pair[1].drop, -pair[1].divergence)):
        interval = "–" if result.drop_ci is None else "[{:+.4f}, {:+.4f}]".format(*result.drop_ci)
        what = f"| {trial.layer} | {trial.method} | {trial.strength}"
        gain = "storage only" if result.gain is None else f"{result.gain:.2f}×"
        costs = f"{result.drop:+.4f} | {interval} | {result.rise:+.4f} | {result.divergence:.2g}"
        lines.append(f"{what} | {costs} | {gain} |")
    return lines


def matrix(results: dict[Trial, Result]) -> tuple[list[str], list[str], Any, Any]:
    """Return (layers, columns, drops, gains); the arrays are layers × columns, NaN where a method doesn't apply."""
    layers = list(dict.fromkeys(trial.layer for trial in results))
    tried = {(trial.method, trial.strength) for trial in results}
    every = [(method, strength) for method, strengths in GRID.items() for strength in strengths]
    columns = [f"{method} {strength}" for method, strength in every if (method, strength) in tried]
    drops, gains = (np.full((len(layers), len(columns)), np.nan) for _ in range(2))
    for trial, result in results.items():
        at = layers.index(trial.layer), columns.index(f"{trial.method} {trial.strength}")
        drops[at], gains[at] = result.drop, np.nan if result.gain is None else result.gain
    return layers, columns, drops, gains


def write(folder: Path, name: str, results: dict[Trial, Result], settings: params.Params) -> list[str]:
    """Write the study's .md, .json and .png into ``folder`` and return the table's lines.

    The .json names the artifact by its digest, so that a report takes it for no other.
    """
    from slimline.report import heatmap

    title = Path(name).name
    lines = table(results, Stage(name, settings, None).task.primary)
    manifest.write_text(folder / f"{title}.md", "\n".join(lines) + "\n")
    rows = [asdict(trial) | asdict(result) for trial, result in results.items()]
    document = {"format": 1, "artifact": manifest.digest(_folder(name)), "target": settings.target.model_dump()}
    manifest.write_json(folder / f"{title}.json", {**document, "trials": rows})
    if results:
        heatmap.draw(folder / f"{title}.png", *matrix(results), title=f"{title}: points lost, and the layer's speed")
    return lines
