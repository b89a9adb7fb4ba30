"""How many events a second the monitor takes on one core, whether its memory stays flat, and how fast it restarts.

python benchmarks/monitor.py [EVENTS] [--release DIR]: traffic replayed from the release's own reference rows, half of
it labelled, one in a hundred requests through the whole chain. No endpoint is scraped, no inputs are kept and no alarm
is answered. Written to metrics/monitor-speed.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from slimline import manifest, provenance
from slimline.answers import softmax
from slimline.benchmark import machine
from slimline.events import EventStore, Label, Prediction, new_id
from slimline.monitor.follower import Follower
from slimline.monitor.process import Process
from slimline.monitor.releases import Releases

CHUNK = 20_000  # requests written before the monitor's turn
SETTLED = 0.2  # of the events, after which memory must stay flat
TARGET = Path("metrics/monitor-speed.json")


class Traffic:
    """Requests of one row each, 100 a second, as ``release`` answers its reference rows."""

    def __init__(self, release: Path) -> None:
        card = manifest.read_json(release / "card.json")
        labels = manifest.read_json(release / "chain" / card["last"] / "signature.json")["labels"]
        with np.load(release / "reference.npz") as arrays:
            self.stages = {stage: arrays[f"output/{stage}"] for stage in card["chain"]}
            self.truth = [labels[index] for index in arrays["targets"]]
        self.outputs = softmax(self.stages[card["last"]]).astype(np.float32)
        self.answers = [labels[index] for index in self.outputs.argmax(1)]
        self.revision = manifest.digest(release)
        self.rng = np.random.default_rng(0)
        self.now = time.time() - 2e7

    def write(self, store: EventStore, count: int) -> None:
        predictions, labels = [], []
        for row in self.rng.integers(0, len(self.truth), count):
            self.now += 0.01
            seconds = {"decode": 1e-4, "queue": 2e-4, "predict": 3e-4, "encode": 1e-4, "total": 8e-4}
            own: dict[str, Any] = {}
            if self.rng.random() < 0.01:
                own = {"sampled": [0], "stages": {name: each[row : row + 1] for name, each in self.stages.items()}}
            answer = Prediction(
                new_id(), self.now, self.revision, "main", [self.answers[row]], self.outputs[row : row + 1], seconds,
                **own,
            )  # fmt: skip
            predictions.append(answer)
            if self.rng.random() < 0.5:
                labels.append(Label(answer.id, 0, self.truth[row], self.now))
        store.write(predictions)
        store.label(labels)


def measure(events: int, release: Path, folder: Path) -> dict[str, Any]:
    """Return what ``events`` predictions and labels cost."""
    url = f"sqlite:///{folder / 'events.db'}"
    writer, traffic = EventStore.open(url), Traffic(release)
    process = Process(Follower(EventStore.open(url), Releases(None, [release]), folder, None), folder)
    own, seconds, memory = psutil.Process(), 0.0, []
    while process.follower.events < events:
        traffic.write(writer, CHUNK)
        started = time.process_time()
        while process.poll():
            pass
        seconds += time.process_time() - started
        memory.append((process.follower.events, own.memory_info().rss / 1e6))
        print(f"\r{process.follower.events} events, {memory[-1][1]:.0f} MB", end="", flush=True)
    print()
    settled = np.array([each for each in memory if each[0] >= SETTLED * process.follower.events])
    slope = float(np.polyfit(settled[:, 0] / 1e6, settled[:, 1], 1)[0]) if len(settled) > 2 else float("nan")
    process.follower.save()
    started = time.perf_counter()
    again = Process(Follower(EventStore.open(url), Releases(None, [release]), folder, None), folder)
    again.poll()
    return {
        "release": provenance.named(release),
        "machine": machine(),
        "events": process.follower.events,
        "events_per_second": round(process.follower.events / seconds),
        "memory_mb": {"settled": round(settled[0, 1], 1), "end": round(settled[-1, 1], 1)},
        "memory_mb_per_million_events": round(slope, 2),
        "restart_seconds": round(time.perf_counter() - started, 2),
        "checkpoint_bytes": (folder / "checkpoint.json").stat().st_size,
        "alarms": len(process.alarms.open),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--release", type=Path, default=Path("release"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(chosen.events, chosen.release, Path(scratch))
    manifest.write_json(TARGET, found)
    print(json.dumps(found, indent=1))
