"""Each method alone on the teacher that ``make repro`` left, at several strengths, beside what other tools make of it.

``make bench-methods`` runs every row of benchmarks/methods.yaml through the code of the stages (a peer's through its
tool: benchmarks/method_peers.py) and measures all exports on the test split and, interleaved in one run, on the clock.
What a row made lies in .slimline/methods/KEY, so a stopped run goes on and a new row costs only itself; KEY hangs on
the row, the teacher and the code. metrics/methods.json holds the numbers, docs/check.py --write puts the tables into
docs/methods.md. ``--only GLOB`` measures some rows, each against the teacher in the same run, and leaves the others
there as they are, as long as they came from the same teacher.

``--grid benchmarks/tuning.yaml --on validation`` is how a row's settings were chosen: no test row is read there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import method_peers
import yaml
from numpy.typing import NDArray
from workspace import workspace

from slimline import artifact, benchmark, latency, manifest, params, pipeline, progress, runtime_choice
from slimline.errors import SlimlineError
from slimline.file_index import FILE as INDEX
from slimline.file_index import FileIndex
from slimline.pipeline import ROOT
from slimline.predictor import Predictor
from slimline.stage import Stage, compression, fix_randomness

GRID = Path("benchmarks/methods.yaml")
CACHE = Path(".slimline/methods")
PEER = "peer"
OUT = Path("metrics/methods.json")
LABELS = ("name", "stage", "goal")
BATCH_SIZES = (1, 32)
ROUNDS, REPEATS = 15, 5


@dataclass(frozen=True)
class Row:
    """A line of the grid: ``section`` is what stands in params.yaml under ``stage``, but for its ``from``.

    Where ``stage`` is ``peer``, it names a tool and what that tool is asked for. ``table`` is the heading above it.
    """

    name: str
    table: str
    stage: str
    section: dict[str, Any]
    goal: dict[str, float]

    def document(self, base: dict[str, Any]) -> dict[str, Any]:
        """Return the params document of a chain that is this row alone."""
        fixed = {key: value for key, value in base.items() if key in params.FIXED}
        stages = list(dict.fromkeys([ROOT, self.stage]))
        export = {**base["export"], "stages": stages, "formats": ["onnx"]}
        own = {} if self.stage == ROOT else {self.stage: {"from": ROOT, **self.section}}
        return {**fixed, **own, "export": export}


TEACHER = Row(ROOT, "", ROOT, {}, {})


def rows_of(path: Path, only: str) -> Iterator[Row]:
    """Yield the rows of a grid whose names match the glob ``only``."""
    for table, rows in yaml.safe_load(path.read_text(encoding="utf-8"))["tables"].items():
        for each in rows:
            if fnmatchcase(each["name"], only):
                section = {key: value for key, value in each.items() if key not in LABELS}
                yield Row(each["name"], table, each["stage"], section, each.get("goal", {}))


@cache
def stage_script(project: Path, name: str) -> Callable[[Stage], None]:
    """Return what the script stages/NAME.py does with its stage."""
    spec = importlib.util.spec_from_file_location(f"stage_{name}", project / "stages" / f"{name}.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018  (a file that exists has a loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    work: Callable[[Stage], None] = getattr(module, "main", compression)
    return work


class Bench:
    """One run over rows on one split, with what it remembers between rows and runs."""

    def __init__(self, split: str, limit: int | None) -> None:
        self.base = params.read()
        self.split = split
        self.limit = limit
        self.teacher = manifest.digest(artifact.FOLDER / ROOT)
        self.index = FileIndex(INDEX)
        self.stage = Stage(ROOT, params.load(), limit)
        self._before: NDArray[Any] | None = None

    def folder(self, row: Row) -> Path:
        """Return where what ``row`` made is kept; the name hangs on everything that decides it."""
        if row.stage == PEER:
            known = [self.base["task"], self.base["seed"], method_peers.identity(row.section), self.teacher, self.limit]
            return CACHE / hashlib.sha256(manifest.canonical(known)).hexdigest()[:32]
        document = row.document(self.base)
        code = {
            each: pipeline.fingerprint(document, each, index=self.index) for each in (row.stage, f"export@{row.stage}")
        }
        settings = {key: document[key] for key in ("task", "seed", "target", "export")}
        known = [settings, row.stage, row.section, self.teacher, code, self.limit]
        return CACHE / hashlib.sha256(manifest.canonical(known)).hexdigest()[:32]

    def make(self, row: Row) -> Path:
        """Compress and export as ``row`` says, unless that was done before, and return the export's folder."""
        keep = self.folder(row)
        if (keep / "export").is_dir():
            return keep / "export"
        started = time.monotonic()
        if row.stage == PEER:
            fix_randomness(self.stage.params.seed)
            with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
                made = method_peers.make(row.section, self.stage, self.make(TEACHER), Path(scratch))
                keep_export(keep, made, {"seconds": time.monotonic() - started})
            return keep / "export"
        document, here = row.document(self.base), Path.cwd()
        with tempfile.TemporaryDirectory() as done:
            shutil.copytree(artifact.FOLDER / ROOT, Path(done, ROOT))
            with workspace(document, Path(done)), redirect_stdout(sys.stderr):
                settings = params.load()
                pipeline.check_order(document)
                fix_randomness(settings.seed)
                stage = Stage(row.stage, settings, self.limit)
                if row.stage != ROOT:
                    stage_script(here, row.stage)(stage)
                stage_script(here, "export")(stage)
                keep_export(here / keep, Path("exports", row.stage), {"seconds": time.monotonic() - started})
        return keep / "export"

    def quality(self, name: str, export: Path) -> dict[str, Any]:
        """Return how an export answers the split, against the teacher's, and its bytes; measured once an export."""
        path = export.parent / f"{self.split}.json"
        if not path.is_file():
            rows, confidence = self.stage.splits[self.split], self.stage.params.budget.confidence
            predictor = self.predictor(export)
            own = benchmark.outputs(predictor, rows.inputs)
            predictor.close()
            if name == ROOT:
                self._before = own
            measured = benchmark.quality(self.stage.task, rows, self.before, own, confidence)
            measured.pop("per_class", None)
            manifest.write_json(path, measured | {"bytes": (export / "model.onnx").stat().st_size})
        found: dict[str, Any] = manifest.read_json(path)
        return found

    @property
    def before(self) -> NDArray[Any]:
        """The teacher's outputs on the split."""
        if self._before is None:
            predictor = self.predictor(self.make(TEACHER))
            self._before = benchmark.outputs(predictor, self.stage.splits[self.split].inputs)
            predictor.close()
        return self._before

    def predictor(self, export: Path) -> Predictor:
        """Return an export on the target's runtime."""
        target = self.stage.params.target
        return Predictor(export, runtime=runtime_choice.default(target.runtime), threads=target.threads)

    def speeds(self, exports: dict[str, Path], batch_sizes: tuple[int, ...]) -> dict[str, dict[str, Any]]:
        """Return {name: latency, throughput, speed-up over the teacher with its interval}, interleaved in one run."""
        settings = self.stage.params
        predictors = {name: self.predictor(export) for name, export in exports.items()}
        rows, _ = self.stage.splits["calibration"][slice(0, max(batch_sizes))]
        inputs = latency.sample_inputs(self.stage.task.signature(), batch_sizes, rows)
        with progress.rounds("latency rounds", ROUNDS) as done:
            samples = latency.measure(
                {name: each.runtime.run for name, each in predictors.items()}, inputs,
                rounds=ROUNDS, repeats=REPEATS, seed=settings.seed, progress=done,
            )  # fmt: skip
        return latency.table(samples, ROOT, settings.budget.confidence)


def keep_export(folder: Path, export: Path, facts: dict[str, Any]) -> None:
    """Copy an export and what is known of it to ``folder``, whole or not at all."""
    scratch = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(export, scratch / "export")
    manifest.write_json(scratch / "facts.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def with_earlier(made: dict[str, dict[str, Any]], path: Path, grid: Path, teacher: str) -> list[dict[str, Any]]:
    """Return rows in the order of the grid: those made now, and those that ``path`` has of the same teacher."""
    before = manifest.read_json(path) if path.is_file() else {}
    earlier = {row["name"]: row for row in before.get("methods", [])} if before.get("teacher") == teacher else {}
    names = [ROOT, *(row.name for row in rows_of(grid, "*"))]
    rows = {name: made.get(name, earlier.get(name)) for name in names}
    return [{"name": name, **row} for name, row in rows.items() if row is not None]


def met(row: dict[str, Any], made: dict[str, dict[str, Any]], primary: str) -> bool:
    """Return whether a row reaches its goal: its drop, its speed-up at every batch size, what it keeps of the teacher.

    A goal that names a row which wasn't measured isn't reached.
    """
    goal = row["goal"]
    slow = "speedup" in goal and min(row["speedup"].values(), default=0.0) < goal["speedup"]
    other = made.get(goal.get("than", ""))
    less = "keeps" in goal and (other is None or row[primary] < goal["keeps"] * other[primary])
    return not slow and not less and row[f"{primary}_drop"] <= goal.get("drop", float("inf"))


def main() -> int:
    """Make, measure and write every row asked for; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--only", default="*", metavar="GLOB", help="rows whose names match")
    parser.add_argument("--on", choices=("test", "validation"), default="test", dest="split")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N rows of every split")
    parser.add_argument("--untimed", action="store_true", help="leave the clock out: this machine is shared")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    bench, started = Bench(options.split, options.limit), time.monotonic()
    primary = bench.stage.task.primary
    made: dict[str, dict[str, Any]] = {}
    exports: dict[str, Path] = {}
    failed = []
    for row in [TEACHER, *rows_of(options.grid, options.only)]:
        try:
            exports[row.name] = bench.make(row)
        except SlimlineError as error:
            failed.append(row.name)
            print(f"{row.name}: {error}", file=sys.stderr)
            continue
        took = manifest.read_json(exports[row.name].parent / "facts.json")
        macs = manifest.read_json(exports[row.name] / "facts.json")["macs"]
        shown = {"table": row.table, "stage": row.stage, "section": row.section, "goal": row.goal}
        made[row.name] = {**shown, "macs": macs, **took}
    for name, export in exports.items():
        made[name] |= bench.quality(name, export)
        drop, (low, high) = made[name][f"{primary}_drop"], made[name]["drop_ci"]
        shown = (
            f"{primary} {made[name][primary]:.4f}, drop {100 * drop:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points"
        )
        print(f"{name}: {shown}, {made[name]['seconds']:.0f} s", flush=True)
    bench.index.save()
    print(f"{len(exports)} rows after {time.monotonic() - started:.0f} s", flush=True)
    if options.split == "test":
        speeds = {} if options.untimed else bench.speeds(exports, BATCH_SIZES)
        for name, row in made.items():
            row.update(speeds.get(name, {}))
            if row["goal"] and not ("speedup" in row["goal"] and options.untimed):
                row["met"] = met(row, made, primary)
        document = {
            "format": 1,
            "primary": primary,
            "confidence": bench.stage.params.budget.confidence,
            "machine": benchmark.machine(),
            "threads": bench.stage.params.target.threads,
            "rows": len(bench.stage.splits["test"]),
            "teacher": bench.teacher,
            "methods": with_earlier(made, options.out, options.grid, bench.teacher),
        }
        manifest.write_json(options.out, document)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main() > 0)
