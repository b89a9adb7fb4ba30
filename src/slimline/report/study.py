"""What a report is made from, read once, and what follows from it: the line of stages and the steps between them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from slimline import gate, latency, manifest, pipeline, times
from slimline.gate import Check
from slimline.params import Params
from slimline.pipeline import EXPORTS, ROOT
from slimline.report import numbers
from slimline.report.numbers import Metric

LITTLE = 0.10
STUDIES = Path("sensitivity")


@dataclass(frozen=True)
class Step:
    """One stage against the exported stage before it. ``through`` are stages between them that weren't exported."""

    stage: str
    before: str
    through: list[str]
    quality: float
    size: tuple[float, float]
    latency: dict[str, tuple[float, float]]

    @property
    def gains_little(self) -> bool:
        """Whether it saves less than a tenth, in bytes and in latency at every batch size."""
        pairs = [self.size, *self.latency.values()]
        return all(1 - after / before < LITTLE for before, after in pairs)


@dataclass(frozen=True)
class Study:
    """Everything a report says, as data. Stage names index ``facts``, ``decisions``, ``curves`` and the last two.

    ``layers`` are those of layers.json; ``sensitivity`` {stage: {layer: trials}} is there of stages that were studied.
    """

    params: Params
    document: Mapping[str, Any]
    measured: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, Any]]
    decisions: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, list[float]]]
    times: Mapping[str, Mapping[str, Any] | None]
    layers: Mapping[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    sensitivity: Mapping[str, Mapping[str, list[Mapping[str, Any]]]] = field(default_factory=dict)

    @cached_property
    def line(self) -> list[str]:
        """The exported stages in the order in which each was made from the one before."""
        return [each for each in pipeline.chain(self.document, self.last) if each in self.params.export.stages]

    @cached_property
    def last(self) -> str:
        return pipeline.last(self.document)

    @cached_property
    def batches(self) -> list[str]:
        """The batch sizes, smallest first, as the benchmark spells them."""
        return [str(each) for each in sorted(self.measured["target"]["batch_sizes"])]

    @cached_property
    def outer_batches(self) -> list[str]:
        """The smallest and the largest batch size."""
        return list(dict.fromkeys([self.batches[0], self.batches[-1]]))

    @cached_property
    def primary(self) -> Metric:
        return self.metric(self.measured["primary"])

    @cached_property
    def checks(self) -> list[Check]:
        """The verdict on the last stage, one Check a line of the budget."""
        return gate.judge(self.params.budget, self.measured, self.last)

    @cached_property
    def steps(self) -> list[Step]:
        return [self._step(before, stage) for before, stage in pairwise(self.line)]

    @property
    def at_chance(self) -> Mapping[str, Any] | None:
        """What the benchmark says of a teacher that is no better than guessing: ``what`` and ``fact``."""
        found: Mapping[str, Any] | None = self.measured.get("teacher_at_chance")
        return found

    @property
    def spread(self) -> float:
        """How far apart the ends of the widest interval of a speed-up are, as a ratio, where that is too far; or 0."""
        spread = float(self.measured.get("spread", 0))
        return spread if spread > latency.STEADY else 0.0

    @property
    def confidence(self) -> str:
        return f"{100 * self.measured['confidence']:g}%"

    def row(self, stage: str) -> Mapping[str, Any]:
        """Return what the benchmark measured of ``stage``."""
        row: Mapping[str, Any] = self.measured["stages"][stage]
        return row

    def engine(self, stage: str) -> Mapping[str, Any] | None:
        """Return what this machine's GPU measured of a stage's TensorRT engine, None where it was only built."""
        ran = (
            each["stages"].get(stage) for each in self.measured.get("targets", {}).values() if each["status"] == "run"
        )
        return next((row for row in ran if row and "compute" in row), None)

    def metric(self, name: str) -> Metric:
        """Return how metric ``name`` is shown."""
        return numbers.metric(self.measured, name, [self.row(stage) for stage in self.line])

    def p50(self, stage: str, batch: str) -> float:
        """Return the median latency in ms."""
        return float(self.row(stage)["latency_ms"][batch]["p50"])

    def quality_bounds(self, stage: str) -> tuple[float, float]:
        """Return the primary metric's interval that follows from the paired drop against the teacher."""
        teacher, (low, high) = self.row(ROOT)[self.primary.name], self.row(stage)["drop_ci"]
        sign = 1 if self.primary.higher_is_better else -1
        first, second = sorted((teacher - sign * low, teacher - sign * high))
        return first, second

    def _step(self, before: str, stage: str) -> Step:
        chain = pipeline.chain(self.document, stage)
        own, base = self.row(stage), self.row(before)
        return Step(
            stage,
            before,
            chain[chain.index(before) + 1 : -1],
            own[self.primary.name] - base[self.primary.name],
            (base["bytes"], own["bytes"]),
            {batch: (self.p50(before, batch), self.p50(stage, batch)) for batch in self.batches},
        )


def load(params: Params, document: Mapping[str, Any], *, root: Path = Path()) -> Study:
    """Read what the stages left under ``root``; ``document`` is params.yaml as plain data."""
    measured = manifest.read_json(root / "metrics/benchmark.json")
    made = pipeline.ancestors(document, pipeline.last(document))
    exported = params.export.stages
    decided = {stage: root / "decisions" / f"{stage}.json" for stage in made}
    facts = {stage: manifest.read_json(root / EXPORTS / stage / "facts.json") for stage in exported}
    described = {stage: root / EXPORTS / stage / "layers.json" for stage in exported}
    timed = [*made, *(f"export@{stage}" for stage in exported), "latency", "benchmark"]
    return Study(
        params=params,
        document=document,
        measured=measured,
        facts=facts,
        decisions={stage: manifest.read_json(path)["choices"] for stage, path in decided.items() if path.is_file()},
        curves=_curves(root / "curves", made, measured["primary"]),
        times={name: times.read(name, root / times.FOLDER) for name in timed},
        layers={stage: manifest.read_json(path)["layers"] for stage, path in described.items() if path.is_file()},
        sensitivity=_sensitivity(root / STUDIES, {stage: each["artifact"] for stage, each in facts.items()}),
    )


def _sensitivity(folder: Path, artifacts: Mapping[str, str]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Return {stage: {layer: trials}} of the studies in ``folder`` that were made of these very artifacts."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for path in sorted(folder.glob("*.json")):
        document = manifest.read_json(path)
        for stage, digest in artifacts.items():
            if document.get("artifact") == digest:
                layers = found.setdefault(stage, {})
                for trial in document["trials"]:
                    layers.setdefault(trial["layer"], []).append(trial)
    return found


def _curves(folder: Path, stages: list[str], primary: str) -> dict[str, dict[str, list[float]]]:
    """Return {stage: {"loss" and "validation": one value an epoch}} of the stages that trained."""
    curves = {}
    for stage in stages:
        plots = folder / stage / "plots/metrics"
        files = {"loss": plots / "loss.tsv", "validation": plots / "validation" / f"{primary}.tsv"}
        found = {name: _column(path) for name, path in files.items() if path.is_file()}
        if found:
            curves[stage] = found
    return curves


def _column(path: Path) -> list[float]:
    with path.open(encoding="utf-8", newline="") as file:
        return [float(row[-1]) for row in list(csv.reader(file, delimiter="\t"))[1:]]
