"""Releases with one stage at fault, made by the project's own stage scripts from what ``make repro`` left.

A fault changes one stage: its methods, or the classes that its training sees. That stage runs anew from the artifact
before it, and so do all that follow, without the recovery that would heal the fault; then export, latency, benchmark
and release. Without a fault only the last two run. The benchmark is that of half the test split (halves.py), so that
floors and traffic share no row. In all of them undo may act, on alarms of latency too.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from halves import SEED  # noqa: E402
from workspace import workspace  # noqa: E402

from slimline import manifest, params, pipeline  # noqa: E402
from slimline.errors import SlimlineError  # noqa: E402

CACHE = Path(".slimline/regression")
UNDO = {"policy": "act", "settle_minutes": 0.0, "on": ["accuracy", "agreement", "errors", "latency"]}
WITHOUT, HALVES = HERE / "without_classes.py", HERE / "halves.py"


@dataclass(frozen=True)
class Fault:
    """What is wrong with ``stage``: keys laid over its first method, epochs of recovery, and classes never shown."""

    stage: str
    method: Mapping[str, Any]
    epochs: int = 0
    without: tuple[int, ...] = ()


FAULTS = {
    "quantize": Fault("quantize", {"calibrator": "percentile", "percentile": 88.0}),
    "prune": Fault("prune", {}, epochs=3, without=(1, 8)),
}
EARLIER = "earlier"  # what was deployed before: calibrated alike, never trained with its quantizers in place
BUILDS = FAULTS | {EARLIER: Fault("quantize", {})}


def build(name: str, target: Path) -> Path:
    """Write the release ``name`` ("sound" or a key of BUILDS) to ``target`` and return it; made once, then copied."""
    document = params.read()
    document["monitor"] = (document.get("monitor") or {}) | {"undo": UNDO}
    if not Path("release/manifest.json").is_file():
        raise SlimlineError(
            "release: missing; run 'make repro' first, its artifacts and exports are where faults start"
        )
    fault = BUILDS.get(name)
    code = pipeline.fingerprint(document, "release")  # of what writes the monitoring folder, too
    asked = [document, manifest.digest(Path("release")), asdict(fault) if fault else None, code, SEED]
    key = hashlib.sha256(manifest.canonical(asked)).hexdigest()[:16]
    made = CACHE / f"{name}-{key}"
    if not (made / "manifest.json").is_file():
        print(f"{name}: building the release", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            _run(document, fault, made, Path(folder))
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made, target)
    return target


def _run(document: dict[str, Any], fault: Fault | None, made: Path, scratch: Path) -> None:
    chain = pipeline.chain(document, pipeline.last(document))
    again = chain[chain.index(fault.stage) :] if fault else []
    document = faulty(document, fault, again) if fault else document
    done = scratch / "artifacts"
    done.mkdir()
    for stage in chain:
        if stage not in again and fault:
            shutil.copytree(f"artifacts/{stage}", done / stage)
    here = Path.cwd()
    with workspace(document, done) as root:
        for stage in document["export"]["stages"]:
            if stage not in again:
                shutil.copytree(here / "exports" / stage, root / "exports" / stage)
        shutil.copytree(here / "metrics", root / "metrics")
        for stage in again:
            script = (
                [str(WITHOUT), stage, *map(str, fault.without)] if _blinds(fault, stage) else [f"stages/{stage}.py"]
            )
            _script(*script)
        for stage in document["export"]["stages"]:
            if stage in again:
                _script("stages/export.py", stage)
        if fault:
            _script("stages/latency.py")
        _script(str(HALVES))
        _script("stages/release.py")
        made_here = here / made
        made_here.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(made_here, ignore_errors=True)
        shutil.move(root / "release", made_here)


def _blinds(fault: Fault | None, stage: str) -> bool:
    return fault is not None and bool(fault.without) and stage == fault.stage


def faulty(document: dict[str, Any], fault: Fault, again: list[str]) -> dict[str, Any]:
    """Return the params document with the fault in it and nothing after it that would heal it."""
    changed = copy.deepcopy(document)
    changed[fault.stage]["methods"][0].update(fault.method)
    for stage in again:
        changed[stage].setdefault("recovery", {})["epochs"] = fault.epochs if stage == fault.stage else 0
    changed["latency"] = {"rounds": 10, "repeats": 5}
    return changed


def lost(release: Path) -> dict[str, float]:
    """Return the points of accuracy that each stage of a release lies below the teacher."""
    rows = manifest.read_json(release / "card.json")["benchmark"]["stages"]
    return {stage: round(100 * row["accuracy_drop"], 2) for stage, row in rows.items()}


def _script(path: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-P", path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlimlineError(f"{path}: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    for each in ("sound", *BUILDS):
        print(each, lost(build(each, CACHE / each)))
