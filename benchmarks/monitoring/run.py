"""How soon the signals see a loss, and how seldom they cry wolf, on streams drawn from recorded answers.

``make bench-monitoring`` draws 200 streams a scenario from the answers that ./release gives to the test rows: 2,000
rows of the release as it is, then the scenario. Every row is labelled at once and sampled for the chain, so delays
count labels, rows and sampled rows alike; real ones add the time until labels come. Beside the signals stand an alert
on a sliding window and, where .venv/nannyml was made, NannyML's CBPE. A finished scenario is kept in
.slimline/monitoring/ and not run again. The numbers go to metrics/monitoring.json under "simulated", what blame says
of planted stages (confusion.py) under "blame", and docs/check.py --write puts them into docs/monitoring.md.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import confusion
import numpy as np
import streams
from numpy.typing import NDArray
from recorded import POINTS, Recorded, Recordings
from rivals import NANNYML, cbpe_alarms, window_alarm
from run_length import run_lengths
from streams import NONE, alarms_of, first_alarms, tables
from tqdm import tqdm

from slimline import manifest, provenance
from slimline.monitor import baseline
from slimline.monitor.baseline import Baseline
from slimline.params import Monitor

RELEASE = Path("release")
RESULT = Path("metrics/monitoring.json")
STREAMS = 200
BEFORE = 2000
WINDOWS = (500, 2000)
CBPE_ROWS = 5000
PARAMS = Monitor()


@dataclass(frozen=True, eq=False)
class Scenario:
    """``after`` is what the release becomes once ``BEFORE`` rows have passed; ``mix`` draws other shares of classes.

    ``drifts``: drift is looked at.
    """

    name: str
    after: Callable[[], Recorded]
    rows: int
    mix: bool = False
    drifts: bool = True


def main() -> None:
    """Run what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="scenarios whose name holds this text")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--skip-cbpe", action="store_true", help="don't run NannyML, even where it is installed")
    chosen = parser.parse_args()
    recordings = Recordings(RELEASE)
    known = baseline.read(RELEASE, PARAMS.agreement_drop)
    key = code_key()
    found = {}
    for scenario in scenarios(recordings):
        path = recordings.folder / f"{scenario.name.replace(' ', '-')}-{chosen.streams}-{key}.json"
        if not path.is_file() and (chosen.only or "") in scenario.name:
            tqdm.write(scenario.name)
            manifest.write_json(path, simulate(recordings, known, scenario, chosen.streams))
        if path.is_file():
            found[scenario.name] = manifest.read_json(path)
        path = recordings.folder / f"{scenario.name.replace(' ', '-')}-{chosen.streams}-cbpe.json"
        if NANNYML.exists() and not path.is_file() and (chosen.only or "") in scenario.name and not chosen.skip_cbpe:
            manifest.write_json(path, estimated(recordings, known, scenario, chosen.streams))
        if path.is_file() and scenario.name in found:
            found[scenario.name]["signals"]["CBPE"] = manifest.read_json(path)
    path = recordings.folder / f"run-length-{key}.json"
    if not path.is_file() and not chosen.only:
        manifest.write_json(path, run_lengths(known, recordings, PARAMS.run_length))
    result = {
        "stage": known.stage,
        "release": provenance.named(RELEASE),
        "accuracy": recordings.accuracy(recordings.good.last),
        "teacher": recordings.accuracy(recordings.good.teacher),
        "floor": known.promises.overall,
        "agreement_floor": float(np.mean(known.promises.agreement)),
        "streams": chosen.streams,
        "cost_us": costs(recordings, known),
        "scenarios": found,
        "run_length": manifest.read_json(path) if path.is_file() else {},
    }
    document = manifest.read_json(RESULT) if RESULT.is_file() else {"format": 1}
    manifest.write_json(RESULT, document | {"simulated": result})
    if not chosen.only:
        confusion.write(chosen.streams)


def costs(recordings: Recordings, known: Baseline) -> dict[str, float]:
    """Return each signal's processor time in µs a row, every row sampled and labelled, in batches of 250."""
    rows = np.random.default_rng(0).integers(0, len(recordings.labels), 10_000)
    batches = [
        streams.batch(recordings, known, recordings.good, rows[at : at + 250], at) for at in range(0, len(rows), 250)
    ]
    spent = {}
    for signal in streams.signals(known, PARAMS):
        started = time.process_time()
        for predicted, labelled in batches:
            signal.predicted(predicted)
            signal.labelled(labelled)
            signal.standings()
        spent[signal.name] = round((time.process_time() - started) * 1e6 / len(rows), 1)
    return spent


def code_key() -> str:
    """Return what a kept result hangs on: the statistics and how streams are drawn."""
    monitor = Path(baseline.__file__).parent
    names = (
        "accuracy", "agreement", "calibration", "drift", "embedding", "estimate", "floors", "histogram", "recent",
        "scores", "sequential",
    )  # fmt: skip
    files = [*(monitor / f"{name}.py" for name in names), monitor.parent / "promises.py", Path(streams.__file__)]
    code = b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(code + f"{BEFORE} {CBPE_ROWS}".encode()).hexdigest()[:12]


def scenarios(recordings: Recordings) -> Iterator[Scenario]:
    """Yield every scenario; what it needs is recorded when it runs."""
    for how in ("miscalibrated", "two classes"):
        for points in POINTS:
            rows = 20_000 if points <= 3 else 8_000
            after = partial(recordings.broken, how, points)
            yield Scenario(f"{how}, {points} points", after, rows, drifts=False)
    for how, strength, unit in (("blur", 0.5, "px"), ("blur", 1.0, "px"), ("rotate", 5.0, "°"), ("rotate", 15.0, "°")):
        yield Scenario(f"{how} {strength:g} {unit}", partial(recordings.worn, how, strength), 8_000)
    yield Scenario("other class shares", lambda: recordings.good, 8_000, mix=True)
    yield Scenario("nothing", lambda: recordings.good, 20_000)


def simulate(recordings: Recordings, known: Baseline, scenario: Scenario, count: int) -> dict[str, Any]:
    """Return what each signal and each rival did in ``count`` streams of one scenario."""
    good, after = recordings.good, scenario.after()
    drawn = [_rows(recordings, scenario, seed) for seed in range(count)]
    warm, rows = (np.stack(each) for each in zip(*drawn, strict=True))
    start = tables(recordings, known, good, PARAMS)
    then = tables(recordings, known, after, PARAMS)
    first: dict[str, NDArray[np.int64]] = {}
    for name, before in start.items():
        if name == "drift" and not scenario.drifts:
            continue
        each = [first_alarms(a, b, warm, rows) for a, b in zip(before, then[name], strict=True)]
        many = np.stack([np.where(found == NONE, np.iinfo(np.int64).max, found) for found in each]).min(0)
        first[name] = np.where(many == np.iinfo(np.int64).max, NONE, many)
    checked = alarms_of(recordings, known, PARAMS, iter([(good, warm[0]), (after, rows[0])]))
    assert all(checked[name] == found[0] for name, found in first.items()), "the signals say otherwise"
    right = np.concatenate([_right(recordings, good)[warm], _right(recordings, after)[rows]], axis=1)
    for window in WINDOWS:
        first[f"window of {window}"] = np.array([window_alarm(each, window, known.promises.overall) for each in right])
    return {
        "lost": recordings.accuracy(good.last) - recordings.accuracy(after.last),
        "accuracy": float(right[:, BEFORE:].mean()),
        "agreement": float(np.mean(after.teacher.argmax(1) == after.last.argmax(1))),
        "teacher_accuracy": recordings.accuracy(after.teacher),
        "rows": scenario.rows,
        "signals": {name: _summary(found) for name, found in first.items()},
    }


def estimated(recordings: Recordings, known: Baseline, scenario: Scenario, count: int) -> dict[str, Any]:
    """Return what CBPE did on the same streams, their first ``CBPE_ROWS`` rows after the change."""
    drawn = [_rows(recordings, scenario, seed) for seed in range(count)]
    good, after = (known.outputs(known.stage, part.last) for part in (recordings.good, scenario.after()))
    reference = (known.reference[known.stage], np.asarray(known.targets, np.int64))
    rows = [np.concatenate([good[warm], after[rest[:CBPE_ROWS]]]) for warm, rest in drawn]
    return _summary(np.array(cbpe_alarms(reference, rows)))


def _right(recordings: Recordings, part: Recorded) -> NDArray[np.bool_]:
    return np.asarray(part.last.argmax(1) == recordings.labels)


def _rows(recordings: Recordings, scenario: Scenario, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the rows of a stream, before and after; the draw hangs on the scenario's kind and the seed."""
    rng = np.random.default_rng([seed, scenario.mix])
    count = len(recordings.labels)
    before = rng.integers(0, count, BEFORE)
    if not scenario.mix:
        return before, rng.integers(0, count, scenario.rows)
    classes = int(recordings.labels.max()) + 1
    drawn = rng.choice(classes, scenario.rows, p=rng.dirichlet(np.full(classes, 0.5)))
    by_class = [np.flatnonzero(recordings.labels == index) for index in range(classes)]
    return before, np.array([rng.choice(by_class[index]) for index in drawn])


def _summary(found: NDArray[np.int64]) -> dict[str, Any]:
    """Return how many streams had an alarm after the change, how many before it, and the delay in rows.

    A stream that had one before is left out of the delays, one that had none at all counts as endless.
    """
    delays = np.where(found == NONE, np.inf, found - BEFORE + 1.0)[(found == NONE) | (found >= BEFORE)]

    def quantile(q: float) -> float | None:
        value = float(np.quantile(delays, q, method="higher")) if len(delays) else np.inf
        return value if np.isfinite(value) else None

    early = int(np.sum((found != NONE) & (found < BEFORE)))
    return {"alarmed": int(np.sum(found >= BEFORE)), "before": early, "median": quantile(0.5), "p95": quantile(0.95)}


if __name__ == "__main__":
    main()
