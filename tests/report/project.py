"""A project's folder as the stages before the report leave it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from slimline import params
from slimline.report import page, study

LABELS = ["Shirt", "Coat", "Bag & <b>belt</b>", "$5 | $10"]
HARMED = "Coat"
MEASURED: dict[str, tuple[float, int, dict[str, float]]] = {  # accuracy, bytes, p50 by batch
    "teacher": (0.9052, 11_180_000, {"1": 0.902, "8": 5.61, "32": 22.4}),
    "distill": (0.9011, 1_231_000, {"1": 0.0802, "8": 0.524, "32": 2.05}),
    "prune": (0.8993, 250_400, {"1": 0.0411, "8": 0.252, "32": 0.986}),
    "quantize": (0.8990, 92_340, {"1": 0.0402, "8": 0.176, "32": 0.655}),
    "factorize": (0.8990, 92_341, {"1": 0.0401, "8": 0.177, "32": 0.657}),
}
WHY = "stays: its fastest rank runs at 0.69× the layer's speed, 1.00× is asked"
SUMMARY = "no layer pays on this target: the model stays as it is"


def benchmark_row(stage: str) -> dict[str, Any]:
    teacher, (accuracy, size, p50) = MEASURED["teacher"], MEASURED[stage]
    drop = teacher[0] - accuracy
    speedup = {batch: teacher[2][batch] / p50[batch] for batch in p50}
    interval = [drop - 0.0023, drop + 0.0023]
    return {
        "accuracy": accuracy,
        "accuracy_ci": [accuracy - 0.0058, accuracy + 0.0057],
        "macro_f1": accuracy - 0.0003,
        "accuracy_drop": drop,
        "drop_ci": interval,
        "drops": {"accuracy": {"drop": drop, "ci": interval}, "macro_f1": {"drop": drop, "ci": interval}},
        "agreement": 0.947,
        "agreement_ci": [0.942, 0.951],
        "params": size // 4,
        "macs": size * 13,
        "bytes": size,
        "latency_ms": {batch: {"p50": ms, "p95": ms * 1.2, "p99": ms * 1.6} for batch, ms in p50.items()},
        "speedup": speedup,
        "speedup_ci": {batch: [ratio * 0.985, ratio * 1.013] for batch, ratio in speedup.items()},
        "peak_rss_mb": 112.4,
        "variant": "int8" if stage in {"quantize", "factorize"} else "fp32",
        "threads": 1,
        "per_class": {
            label: {
                "recall": 0.9 - loss,
                "recall_ci": [0.87 - loss, 0.92 - loss],
                "drop": loss,
                "drop_ci": [loss - 0.01, loss + 0.01],
                "harmed": label == HARMED,
            }
            for label, loss in zip(LABELS, (0.002, 0.031, -0.004, 0.0), strict=True)
        },
    }


class Project:
    """A folder with these params and a benchmark of ``stages`` that answer like those of ``MEASURED``."""

    def __init__(self, root: Path, document: dict[str, Any], stages: Sequence[str]) -> None:
        self.root, self.params = root, document
        self.benchmark: dict[str, Any] = {
            "format": 1,
            "task": document["task"]["name"],
            "primary": "accuracy",
            "higher_is_better": True,
            "confidence": 0.95,
            "machine": {
                "processor": "AMD EPYC",
                "cores": 2,
                "instructions": ["avx2"],
                "system": "Linux",
                "python": "3.11.7",
                "onnxruntime": "1.32.0",
            },
            "target": {"runtime": "onnxruntime", "threads": 1, "batch_sizes": [1, 8, 32]},
            "rows": {"test": 10000, "validation": 5000},
            "stages": {stage: benchmark_row(stage) for stage in sorted(stages)},
        }

    def file(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def study(self) -> study.Study:
        """Return what a report of this folder is made from."""
        self.file("params.yaml", yaml.safe_dump(self.params, sort_keys=False))
        self.file("metrics/benchmark.json", json.dumps(self.benchmark))
        path = self.root / "params.yaml"
        return study.load(params.load(path), params.read(path), root=self.root)

    def report(self) -> tuple[str, str]:
        """Write the report and return (HTML, Markdown)."""
        page.write(self.study(), self.root / "report")
        assert (self.root / "report/tradeoff.png").read_bytes().startswith(b"\x89PNG")
        html, markdown = (self.root / "report" / name for name in ("index.html", "report.md"))
        return html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


def made_up(root: Path) -> Project:
    """Return a folder of the whole default chain, of which nothing was run."""
    document: dict[str, Any] = {
        "task": {"name": "fashion-mnist"},
        "target": {"batch_sizes": [1, 8, 32]},
        "teacher": {"model": {"name": "resnet", "args": {"depth": 18}}, "training": {"epochs": 3, "lr": 0.1}},
        "distill": {"from": "teacher", "model": {"name": "resnet"}, "training": {"epochs": 3, "lr": 0.1}},
        "prune": {"from": "distill", "methods": [{"name": "structured"}]},
        "quantize": {"from": "prune", "methods": [{"name": "linear"}]},
        "factorize": {"from": "quantize", "methods": [{"name": "tucker2"}]},
        "export": {"stages": list(MEASURED)},
        "budget": {"max_drop": {"accuracy": 0.015}, "min_speedup": {1: 15, 32: 20}, "max_bytes": 112000},
    }
    project = Project(root, document, list(MEASURED))
    for stage in MEASURED:
        parity = {"agreement": 1.0, "max_error": 0.01, "rows": 512}
        facts = {"artifact": f"sha256:{stage}-digest", "edits": [], "parity": parity}
        project.file(f"exports/{stage}/facts.json", json.dumps(facts))
    layers = {"3": {"ranks": None, "why": WHY}}
    choices = {"tucker2": {"layers": layers, "summary": SUMMARY}}
    project.file("decisions/factorize.json", json.dumps({"format": 1, "key": "", "choices": choices}))
    project.file("decisions/prune.json", json.dumps({"format": 1, "key": "", "choices": {}}))
    for stage in ("teacher", "distill"):
        plots = f"curves/{stage}/plots/metrics"
        project.file(f"{plots}/loss.tsv", "step\tloss\n0\t1.5\n1\t0.7\n2\t0.4\n")
        project.file(f"{plots}/validation/accuracy.tsv", "step\taccuracy\n0\t0.71\n1\t0.86\n2\t0.904\n")
    return project
