"""What drives the formats of an export: build each exporter with its keys, and measure again what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from slimline import benchmark, metrics, params, plugins, runtime_choice
from slimline.errors import ExportError, ParamsError
from slimline.params import Configured, Export, Target
from slimline.task import Split, Task


class Exporter(Protocol):
    """A format: a function, or a frozen dataclass whose fields are its keys in ``export.formats``.

    It writes into ``directory`` and may return facts for facts.json. Of these, ``file`` names an ONNX model whose
    answers are measured again, ``max_drop`` how much of the primary metric it may lose on validation by that, and
    ``engine`` a file that only its own hardware runs. Where it has ``check(signature, where)``, ``slimline check``
    calls that before anything trains.
    """

    def __call__(
        self, model: nn.Module, signature: Mapping[str, Any], directory: Path, metadata: Mapping[str, str]
    ) -> dict[str, Any] | None: ...


def exporters(export: Export, target: Target, path: Path = params.FILE) -> dict[str, Exporter]:
    """Return what writes each of ``export.formats``, by name, in order.

    Where an exporter has a field ``batch_sizes`` that params.yaml leaves out, it is the target's. One that reads
    another's file (``reads``, a class attribute) comes after it, wherever it stands in the list.
    Raises ParamsError naming file and key on an unknown key, a format that stands there twice, and where ``onnx`` is
    missing.
    """
    found: dict[str, Exporter] = {}
    for index, chosen in enumerate(export.formats):
        where = f"{path}: export.formats.{index}"
        if chosen.name in found:
            raise ParamsError(f"{where}: {chosen.name!r} stands there twice")
        found[chosen.name] = _build(chosen, target, where)
    if "onnx" not in found:
        raise ParamsError(f"{path}: export.formats: add onnx: stages are measured by it")
    return dict(sorted(found.items(), key=lambda pair: any(each in found for each in getattr(pair[1], "reads", ()))))


def _build(chosen: Configured, target: Target, where: str) -> Exporter:
    plugin: Any = plugins.find("exporters", chosen.name, where=where)
    if not is_dataclass(plugin):
        if chosen.settings:
            raise ParamsError(f"{where}.{next(iter(chosen.settings))}: unknown key; {chosen.name!r} has none")
        exporter: Exporter = plugin
        return exporter
    known = {field.name for field in fields(plugin)}
    given = {"batch_sizes": list(target.batch_sizes)} if "batch_sizes" in known else {}
    configured: Exporter = params.configure(
        "exporters", Configured(name=chosen.name, **(given | chosen.settings)), where
    )
    return configured


def complete(
    made: Mapping[str, Mapping[str, Any]],
    directory: Path,
    model: nn.Module,
    task: Task,
    rows: Split,
    signature: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Return each format's facts with ``bytes``, ``status`` (run or built), and what ``measure`` finds on ``rows``.

    ``model`` is the torch model that was exported, ``signature`` the export's, decision included. Raises ExportError
    when a format loses more than its ``max_drop``.
    """
    expected = metrics.outputs(model, rows)
    found = {}
    for name, facts in made.items():
        written = dict(facts)
        if "file" in facts:
            path, most = directory / facts["file"], facts.get("max_drop")
            written["validation"] = measure(path, task, rows, expected, signature, most)
        if file := facts.get("engine", facts.get("file")):
            written["bytes"] = (directory / file).stat().st_size
        found[name] = {"status": "built" if "engine" in facts else "run", **written}
    return found


def describe(facts: Mapping[str, Any], primary: str) -> str:
    """Return one line about a format's facts."""
    said = [f"{facts['bytes']:,} bytes"] if "bytes" in facts else []
    if requantized := facts.get("requantized"):
        said.append(f"{requantized} quantizers made symmetric")
    if checked := facts.get("validation"):
        change = f"{'gain' if checked['drop'] < 0 else 'drop'} {abs(checked['drop']):.4f}"
        said.append(f"{primary} {checked[primary]:.4f} on {checked['rows']} validation rows, {change}")
    if facts["status"] == "built":
        said.append(f"by {facts['library']} for SM {', '.join(map(str, facts['compute']))}: built, not run")
    return ", ".join(said)


def measure(
    path: Path,
    task: Task,
    rows: Split,
    expected: NDArray[Any],
    signature: Mapping[str, Any],
    max_drop: float | None = None,
) -> dict[str, float]:
    """Return how the ONNX model at ``path`` does on ``rows`` in ONNX Runtime, against torch's outputs ``expected``.

    Both are decided as ``signature`` says, as they are served. Keys: the primary metric, its ``drop`` (positive: worse
    than torch), ``agreement`` and ``rows``. Raises ExportError when the drop is above ``max_drop``.
    """
    runtime = plugins.find("runtimes", "onnxruntime")(path.parent, 1, file=path.name)
    try:
        found = benchmark.of_split(runtime.run, rows, runtime_choice.DEFAULT)
    finally:
        runtime.close()
    decided = [task.decided(out, signature) for out in (expected, found)]
    before, after = (task.metrics(out, rows.targets)[task.primary] for out in decided)
    drop = before - after if task.higher_is_better else after - before
    if max_drop is not None and not drop <= max_drop:
        raise ExportError(
            f"{path.name}: {task.primary} is {after:.4f} on {len(rows)} validation rows, torch's is {before:.4f}: "
            f"a drop of {drop:.4f}, params.yaml: export.formats: max_drop is {max_drop:g}"
        )
    agreement = float(np.mean(task.agree(*map(task.answer, decided))))
    return {task.primary: after, "drop": drop, "agreement": agreement, "rows": len(rows)}
