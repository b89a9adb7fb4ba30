"""Which verdict blame gives when one stage was planted bad, on windows of rows drawn from recorded answers.

python benchmarks/monitoring/confusion.py [--streams N], and the end of ``make bench-monitoring``: "blame" in
metrics/monitoring.json. So many points lost at a stage: of as many rows that it gets right, drawn anew each stream, its
two largest outputs change places, and the stages after it inherit that. *Built in*: on the release's reference rows
too, as in a release that was made so; *in production*: on the window's rows alone. Each window has ``ROWS`` rows, all
of them labelled; the clock is left out.
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recorded import POINTS, Recordings
from tqdm import tqdm

from slimline import manifest, provenance
from slimline.monitor.blame import quality, window
from slimline.monitor.blame.chain import Chain, Outputs, Rows

RELEASE = Path("release")
RESULT = Path("metrics/monitoring.json")
STREAMS = 200
ROWS = 1000
BUILT_IN, IN_PRODUCTION = "built in", "in production"
SHIFTS = {"blur 1 px": ("blur", 1.0), "rotate 15 °": ("rotate", 15.0)}


@dataclass(frozen=True)
class Planted:
    """``points`` lost at ``stage``, or ``shift`` (how, strength), or nothing; ``right`` are the verdicts that fit."""

    name: str
    right: tuple[str, ...]
    stage: str | None = None
    points: float = 0.0
    where: str = ""
    shift: tuple[str, float] = ("as is", 0.0)


def scenarios(line: tuple[str, ...]) -> Iterator[Planted]:
    """Yield what is planted in a chain of these stages."""
    for stage in line[1:]:
        for points in POINTS:
            for where in (BUILT_IN, IN_PRODUCTION):
                yield Planted(f"{stage}, {points} points", (stage,), stage, points, where)
    for name, shift in SHIFTS.items():
        yield Planted(name, ("data",), shift=shift)
    yield Planted("nothing", ("nothing",))


def measure(recordings: Recordings, chain: Chain, streams: int) -> dict[str, Any]:
    """Return the verdicts {name: count} of ``streams`` windows a scenario."""
    found = []
    for planted in tqdm(list(scenarios(chain.line)), desc="blame", disable=None):
        outputs = recordings.chain(chain.line, *planted.shift)
        verdicts = Counter(verdict(chain, outputs, recordings.labels, planted, seed) for seed in range(streams))
        row = {"name": planted.name, "where": planted.where, "right": list(planted.right), "verdicts": dict(verdicts)}
        found.append(row)
    return {
        "release": provenance.named(recordings.release), "line": list(chain.line), "streams": streams, "rows": ROWS,
        "scenarios": found,
    }  # fmt: skip


def verdict(
    chain: Chain, outputs: Mapping[str, Outputs], labels: NDArray[np.int64], planted: Planted, seed: int
) -> str:
    """Return the verdict on one window of ``ROWS`` rows drawn from ``outputs`` {stage: [rows, k]}."""
    rng = np.random.default_rng(seed)
    if planted.stage is not None:
        outputs = damaged(outputs, labels, chain.line, planted.stage, planted.points, rng)
        if planted.where == BUILT_IN:
            own = chain.reference
            spoiled = damaged(own.outputs, own.labels, chain.line, planted.stage, planted.points, rng)
            chain = copy.copy(chain)
            chain.__dict__["reference"] = replace(own, outputs=spoiled)  # where the cached property keeps it
    drawn = rng.integers(0, len(labels), ROWS)
    said = {stage: outputs[stage][drawn] for stage in chain.line}
    rows = Rows([str(row) for row in drawn], said, labels[drawn], said[chain.last].argmax(1))
    may = quality.allowed(chain, None, None)
    told = quality.judge(chain, window.of_rows(rows), may, alarmed=True, drifted=False, confidence=0.95)
    return told.stage or told.kind


def damaged(
    outputs: Mapping[str, Outputs],
    labels: NDArray[np.int64],
    line: tuple[str, ...],
    stage: str,
    points: float,
    rng: np.random.Generator,
) -> dict[str, Outputs]:
    """Return ``outputs`` with ``points`` of 100 rows lost at ``stage`` and inherited by what was made from it."""
    right = np.flatnonzero(outputs[stage].argmax(1) == labels)
    hit = rng.choice(right, round(points / 100 * len(labels)), replace=False)
    first, second = np.argsort(outputs[stage][hit], axis=1)[:, [-1, -2]].T
    spoiled = outputs[stage][hit]
    rows = np.arange(len(hit))
    spoiled[rows, first], spoiled[rows, second] = spoiled[rows, second], spoiled[rows, first]
    changed = dict(outputs)
    for each in line[line.index(stage) :]:
        changed[each] = outputs[each].copy()
        changed[each][hit] = spoiled
    return changed


def write(streams: int) -> None:
    """Measure ./release and put it under "blame"."""
    found = measure(Recordings(RELEASE), Chain.read(RELEASE), streams)
    document = manifest.read_json(RESULT) if RESULT.is_file() else {"format": 1}
    manifest.write_json(RESULT, document | {"blame": found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    write(parser.parse_args().streams)
